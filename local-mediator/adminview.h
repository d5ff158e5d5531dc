/* SPDX-License-Identifier: MIT */
/*
 * adminview - what the admin socket shows, as JSON
 *
 * Schemas are stable: fields may be added, never changed or removed, without a new number.
 */
#ifndef VGPU_MEDIATOR_ADMINVIEW_H
#define VGPU_MEDIATOR_ADMINVIEW_H

#include <jansson.h>

#include "local-mediator/mediator.h"

/**
 * adminview_make() - the answer to a command
 * @command: "queues", "workers", "vms" or "jobs"
 * @request: its arguments
 *
 * Return: a new reference; NULL for an unknown command, or without memory.
 */
json_t *adminview_make(struct mediator *m, const char *command, const json_t *request);

#endif

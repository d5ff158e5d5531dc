/* SPDX-License-Identifier: MIT */
/*
 * registry - make the mediator's objects follow the pool file
 *
 * At the start and at every reload. Objects are matched by name. Nothing that runs is lost: a removed
 * pool still runs what is queued, a removed VM is disconnected and its jobs are cancelled, changed
 * limits count for new requests.
 */
#ifndef VGPU_MEDIATOR_REGISTRY_H
#define VGPU_MEDIATOR_REGISTRY_H

#include "local-mediator/mediator.h"

/**
 * registry_apply() - make it so
 *
 * Return: 0; the first -errno of a socket that could not be made (the others are there); -ENOMEM;
 * -ENOSPC: more pools or tenants than can ever be.
 */
int registry_apply(struct mediator *m, const struct conf *conf);

/** registry_reload() - read the pool file again; an invalid one changes nothing. Errors are logged.
 *  Return: 0; what conf_load() or registry_apply() said. */
int registry_reload(struct mediator *m);

/** registry_log_errors() - log what is wrong with a pool file */
void registry_log_errors(const struct conf_errors *errors);

/** registry_fini() - free tenants and pools; their VMs and workers are gone */
void registry_fini(struct mediator *m);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * admin - the admin socket: one JSON object per line in, one out
 *
 *   {"command": "queues"}            -> {"schema": "vgpu.queues/1", …}
 *   {"command": "jobs", "limit": 20} -> {"schema": "vgpu.jobs/1", …}
 *   anything else                    -> {"schema": "vgpu.error/1", "error": "…"}
 *
 * Bounded: ADMIN_CLIENTS_MAX clients, ADMIN_LINE_MAX bytes of a question, one answer at a time per
 * client; the next question is read when the answer has left. admin/README.md lists all fields.
 */
#ifndef VGPU_MEDIATOR_ADMIN_H
#define VGPU_MEDIATOR_ADMIN_H

#include "local-mediator/mediator.h"

#define ADMIN_CLIENTS_MAX 32u
#define ADMIN_LINE_MAX 65536u

/** admin_new() - listen at <run-dir>/admin.sock. Return: 0; -errno (logged). */
int admin_new(struct mediator *m, struct admin **ret_admin);

/** admin_free() - close the socket and all clients; it is freed by the loop. NULL is fine. */
void admin_free(struct admin *admin);

#endif

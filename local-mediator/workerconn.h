/* SPDX-License-Identifier: MIT */
/*
 * workerconn - connections from worker supervisors
 */
#ifndef VGPU_MEDIATOR_WORKERCONN_H
#define VGPU_MEDIATOR_WORKERCONN_H

#include "local-mediator/mediator.h"

#define WORKER_DEPTH_MAX (VGPU_RING_ENTRIES_MAX - 1u) /* and the express credit */

/** worker_on_connect() - the listener's callback: somebody connected to the worker socket */
void worker_on_connect(struct listener *l, int fd);

/** worker_kill_executor() - ask the supervisor to end an executor; once per executor */
void worker_kill_executor(struct worker *w, struct exec *exec, uint32_t reason);

/** worker_put() - something of @w ended: free it if nothing is left and its name need not stay */
void worker_put(struct worker *w);

/** worker_tick() - heartbeats and liveness of a worker and its executors */
void worker_tick(struct worker *w, uint64_t now_ns);

/** worker_excuse() - the mediator itself was held up: nobody was silent for longer than it listened */
void worker_excuse(struct worker *w, uint64_t now_ns);

/** worker_close() - close its connection and channels (the mediator stops) */
void worker_close(struct worker *w);

#endif

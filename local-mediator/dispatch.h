/* SPDX-License-Identifier: MIT */
/*
 * dispatch - bind queued jobs to workers' credits, and what becomes of the attempts
 *
 * Every attempt writes to OUT ranges of its own. They are free again only when it can write no more:
 * its DONE came, its executor was reaped or unmapped the region, or channel and supervisor are both
 * gone. Until then an attempt whose result is not wanted (cancelled, lost, too late) lingers.
 */
#ifndef VGPU_MEDIATOR_DISPATCH_H
#define VGPU_MEDIATOR_DISPATCH_H

#include "local-mediator/mediator.h"

/** dispatch_pool() - give queued jobs of @pool to workers as long as there are credits */
void dispatch_pool(struct mediator *m, struct pool *pool);

/** dispatch_workers() - workers of @pool that are connected */
uint32_t dispatch_workers(struct mediator *m, const struct pool *pool);

/** dispatch_slots() - their credits in all */
uint32_t dispatch_slots(struct mediator *m, const struct pool *pool);

/** dispatch_held() - credits of @pool's workers in use */
uint32_t dispatch_held(struct mediator *m, const struct pool *pool);

/** dispatch_can_run() - whether a worker that could run a QUEUED job is there, busy or not */
bool dispatch_can_run(struct job *job);

/** dispatch_abandon() - nobody wants the result of @attempt: cancel it; it lingers */
void dispatch_abandon(struct attempt *attempt);

/** dispatch_done() - DONE came from @exec */
void dispatch_done(struct exec *exec, const struct vgpu_done *message, size_t length);

/**
 * dispatch_lost() - @attempt will not be waited for: run its job again or fail it
 * @too_long: it ran longer than its band allows
 * @why:      for the log
 */
void dispatch_lost(struct attempt *attempt, bool too_long, const char *why);

/** dispatch_gone() - the executor of @attempt can write no more: free it (dispatch_lost() first) */
void dispatch_gone(struct attempt *attempt);

#endif

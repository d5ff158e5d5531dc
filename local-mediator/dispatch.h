/* SPDX-License-Identifier: MIT */
/*
 * dispatch - bind queued jobs to workers' credits, and what becomes of the attempts
 *
 * Every attempt writes to OUT ranges of its own. They are free again only when it can write no more:
 * its completion came, its executor was reaped or unmapped the region, or channel and supervisor are both
 * gone. Until then an attempt whose result is not wanted (cancelled, lost, too late) lingers.
 */
#ifndef VGPU_MEDIATOR_DISPATCH_H
#define VGPU_MEDIATOR_DISPATCH_H

#include "local-mediator/mediator.h"

/** dispatch_pool() - give queued jobs of @pool to workers as long as there are credits */
void dispatch_pool(struct mediator *m, struct pool *pool);

/** dispatch_soon() - dispatch_pool() once in this turn of the loop; cheap; NULL is fine */
void dispatch_soon(struct mediator *m, struct pool *pool);

/** dispatch_flush_all() - dispatch_pool() for the pools that dispatch_soon() named */
void dispatch_flush_all(struct mediator *m);

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

/**
 * dispatch_done() - @attempt was completed; it is freed
 * @shared: its response of @length bytes, at most VGPU_REQ_MAX, where the executor wrote it
 */
void dispatch_done(struct attempt *attempt, const uint8_t *shared, size_t length);

/**
 * dispatch_lost() - @attempt will not be waited for: run its job again or fail it
 * @too_long: it ran longer than its band allows
 * @why:      for the log
 */
void dispatch_lost(struct attempt *attempt, bool too_long, const char *why);

/** dispatch_gone() - the executor of @attempt can write no more: free it (dispatch_lost() first) */
void dispatch_gone(struct attempt *attempt);

#endif

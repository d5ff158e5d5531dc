/* SPDX-License-Identifier: MIT */
/*
 * liveness - is a peer that should send heartbeats alive?
 *
 * Pure. Silent for three periods: torpid, gets no new work. For six: lost, its work is done
 * elsewhere. It is up again as soon as it speaks.
 */
#ifndef VGPU_MEDIATOR_LIVENESS_H
#define VGPU_MEDIATOR_LIVENESS_H

#include <stdint.h>

#define LIVENESS_TORPID_PERIODS 3u
#define LIVENESS_LOST_PERIODS 6u

enum liveness { LIVENESS_UP, LIVENESS_TORPID, LIVENESS_LOST };

/**
 * liveness_of() - state of a peer
 * @heard_ns:  when it was last heard
 * @period_ns: how often it should send, > 0
 */
enum liveness liveness_of(uint64_t heard_ns, uint64_t now_ns, uint64_t period_ns);

/** liveness_name() - "up", "torpid" or "lost" */
const char *liveness_name(enum liveness liveness);

#endif

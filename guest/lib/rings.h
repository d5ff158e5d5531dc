/* SPDX-License-Identifier: MIT */
/*
 * rings - the rings of BAR 2 among the processes of a VM
 *
 * A process owns a ring by a record lock (F_OFD_SETLK, exclusive) on its first byte in the sysfs
 * file of BAR 2; who only wants to look at a ring without an owner takes the same lock shared. A
 * process that has something in a ring holds the `life` lock (second byte of resource0) shared; who
 * has it exclusively may reset the device, because then no process is in the middle of anything. All
 * of them vanish with the process.
 *
 * A process that died may leave requests in flight in its ring. Nobody takes such a ring before they
 * have ended, since nobody knows which slots they use.
 */
#ifndef GUEST_RINGS_H
#define GUEST_RINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/core/ranges.h"
#include "common/core/ring.h"
#include "guest/lib/mmio.h"

enum {
    RINGS_E_NONE = 1, /* every ring is in use by another process, or not drained */
    RINGS_E_WAIT,     /* another process has the lock */
};

struct rings {
    unsigned count; /* 0: there are none, or they cannot be used */
    uint8_t *base;  /* of ring 0 */
    uint64_t stride;
    struct ring_shape shape;
    int fd;         /* of BAR 2, borrowed; -1: there is nobody to lock out */
    uint64_t start; /* of ring 0 in that file */
    int life_fd;    /* resource0, borrowed; -1 likewise */
    int mine;       /* the ring that this process owns, -1: none */
};

/**
 * rings_find() - read where the rings are, and check it
 * @shm_bytes:    of BAR 2
 * @arena_offset: where the arena begins, UINT64_MAX when there is none
 *
 * Return: NULL and the rings can be used (count is not 0); otherwise why not.
 */
const char *rings_find(struct rings *r, const struct mmio *m, uint8_t *shm, uint64_t shm_bytes,
                       uint64_t arena_offset);

/** rings_base() - memory of ring @i */
static inline uint8_t *rings_base(const struct rings *r, unsigned i)
{
    return r->base + i * r->stride;
}

/**
 * rings_take() - own a ring in which nothing is left
 * @ret_left: rings without an owner in which requests of a dead process are; written always
 *
 * Return: 0; RINGS_E_NONE.
 */
int rings_take(struct rings *r, unsigned *ret_left);

/** rings_take_any() - own a ring, whatever is in it: the device is about to be reset. Return: 0;
 *  RINGS_E_NONE. */
int rings_take_any(struct rings *r);

/** rings_kick_left() - ring the doorbells of rings without an owner: it may have died before it did.
 *  Return: how many still have something in flight. */
unsigned rings_kick_left(const struct rings *r, const struct mmio *m);

/**
 * rings_may_write() - whether a request that a dead process left in a ring may write to a part of
 *                     the arena
 */
bool rings_may_write(const struct rings *r, const struct ranges_span *part);

/** rings_enter() - hold the life lock: nobody resets the device now. 0 or RINGS_E_WAIT. */
int rings_enter(const struct rings *r);

/** rings_enter_alone() - hold it exclusively, also when it was held. 0 or RINGS_E_WAIT. */
int rings_enter_alone(const struct rings *r);

/** rings_leave() - let go of the life lock */
void rings_leave(const struct rings *r);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * arena - allocator of the device's arena for this process
 *
 * Takes parts of the arena from the transport, which keeps other processes out of them, a few
 * megabytes at a time, and hands ranges of them out. A part goes back when nothing of it is in use
 * any more, but the first small one stays. Thread safe.
 *
 * While the library has given up a request that the device may still be working on, freed memory is
 * not handed out again: between arena_hold() and arena_unhold() frees are put off.
 */
#ifndef GUEST_ARENA_H
#define GUEST_ARENA_H

#include <pthread.h>

#include "guest/lib/transport.h"

#define ARENA_PARTS_MAX 256u
#define ARENA_PART_BYTES (UINT64_C(4) << 20) /* least size of a part */

struct arena_block {
    struct arena_block *next;
    uint64_t offset;
    uint64_t length;
};

struct arena_part {
    struct ranges_span span;
    struct ranges ranges; /* offsets count from the start of the part */
};

struct arena {
    struct transport *transport;
    pthread_mutex_t lock;
    struct arena_block *used;    /* handed out */
    struct arena_block *put_off; /* freed while held */
    unsigned holds;
    unsigned nparts;
    struct arena_part parts[ARENA_PARTS_MAX];
};

/** arena_init() - start with no part; @transport has to outlive it */
void arena_init(struct arena *a, struct transport *transport);

/** arena_fini() - give all parts back to the transport */
void arena_fini(struct arena *a);

/**
 * arena_alloc() - hand out @bytes, aligned to VGPU_ARENA_ALIGN
 * @ret_offset: in the arena
 *
 * Return: 0; -ENOMEM; -ENOTSUP there is no arena; -EINVAL 0 bytes.
 */
int arena_alloc(struct arena *a, uint64_t bytes, uint64_t *ret_offset);

/** arena_free() - take back what arena_alloc() handed out. Return: 0; -EINVAL it did not. */
int arena_free(struct arena *a, uint64_t offset);

/** arena_hold() - from now on put frees off */
void arena_hold(struct arena *a);

/** arena_unhold() - undo one arena_hold(); with the last one, do what was put off */
void arena_unhold(struct arena *a);

/** arena_largest() - bytes of the largest piece that could be handed out now */
uint64_t arena_largest(struct arena *a);

#endif

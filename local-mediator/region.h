/* SPDX-License-Identifier: MIT */
/*
 * region - memory that jobs use in place and executors map
 *
 * On the shared-memory path the arena of a VM's device, on the socket path the staging memory that
 * stands in for it. References: whoever keeps it alive (a VM's connection, its staging memory), every
 * job and every attempt with ARENA buffers in it. With the last one executors are told to unmap it
 * and `free` releases what the mediator has: mapping, memfd, its end of the writers' pipe.
 */
#ifndef VGPU_MEDIATOR_REGION_H
#define VGPU_MEDIATOR_REGION_H

#include <stdint.h>

struct mediator;

struct region {
    uint32_t references;
    uint32_t number;       /* that executors know it by, not 0 */
    int fd;                /* memfd */
    int writers;           /* write end of the writers' pipe (vgpu_local.h), or -1 */
    uint64_t offset, size; /* the part of the memfd that executors map */
    void (*free)(struct region *r);
};

/** region_ref() - one more reference; returns @r */
struct region *region_ref(struct region *r);

/** region_unref() - one less; with the last one it is gone, also from executors */
void region_unref(struct mediator *m, struct region *r);

#endif

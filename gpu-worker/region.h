/* SPDX-License-Identifier: MIT */
/*
 * region - the memory that an executor has mapped for its jobs
 *
 * A region is announced with a memfd by the mediator. It stays mapped while a job holds it, also
 * when the mediator has asked to unmap it meanwhile. At most REGIONS_MAX.
 */
#ifndef VGPU_WORKER_REGION_H
#define VGPU_WORKER_REGION_H

#include <stdbool.h>
#include <stdint.h>

#include "gpu-worker/gpu.h"
#include "proto/vgpu_local.h"

#define REGIONS_MAX VGPU_EXEC_REGIONS_MAX
#define REGION_BUCKETS 1024u

struct region {
    uint32_t id;
    uint32_t jobs;  /* that hold it */
    bool detaching; /* unmapped when the last job lets go of it */
    int writers;    /* write end of the writers' pipe, open as long as it is mapped; -1: none */
    uint8_t *base;
    uint64_t bytes;
    struct gpu_region *gpu;
    struct region *next; /* in its bucket */
};

/* Zero it, then set the first three. */
struct region_table {
    const struct gpu_backend *backend;
    struct gpu *gpu;
    uint32_t most; /* regions at a time, at most REGIONS_MAX */
    uint32_t count;
    struct region *buckets[REGION_BUCKETS];
};

/**
 * region_check_file() - whether @fd can be mapped for good: a memfd sealed against shrinking that has
 *                       [@offset, @offset + @bytes)
 * @why: GPU_WHY_MAX bytes for a sentence, written unless 0 is returned
 *
 * Return: 0; -EPERM: not sealed; -EINVAL: wrong offset or size; -errno.
 */
int region_check_file(int fd, uint64_t offset, uint64_t bytes, char *why);

/**
 * region_attach() - check, map and announce to the backend
 * @attach:  the mediator's message; a number that is not 0 and not in use
 * @fd:      of the memory; stays the caller's
 * @writers: write end of the writers' pipe, or -1; taken in any case, closed after unmapping
 * @why:     as above
 *
 * Return: 0; -errno (as region_check_file(); -EINVAL: wrong number; -ENOSPC: too many).
 */
int region_attach(struct region_table *table, const struct vgpu_attach *attach, int fd, int writers,
                  char *why);

/** region_find() - the region with this id that is not being detached; NULL when there is none */
struct region *region_find(const struct region_table *table, uint32_t id);

/** region_hold() - a job uses @region now; NULL is fine */
void region_hold(struct region *region);

/**
 * region_release() - a job does not use @region any more; NULL is fine
 *
 * Return: true when it was unmapped now because its detaching waited for this job.
 */
bool region_release(struct region_table *table, struct region *region);

/**
 * region_detach() - unmap @region now or with its last job
 *
 * Return: true when it was unmapped now.
 */
bool region_detach(struct region_table *table, struct region *region);

/** region_detach_all() - unmap every region; no job may hold one */
void region_detach_all(struct region_table *table);

#endif

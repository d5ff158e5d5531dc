/* SPDX-License-Identifier: MIT */
/*
 * staging - memory of one VM in which its ARENA buffers lie on the socket path
 *
 * A memfd that executors map as a region, sealed: its size never changes. Pages exist only where bytes
 * were written and are given back by staging_release() when nothing uses it. Freed with the last
 * reference to its region.
 */
#ifndef VGPU_MEDIATOR_STAGING_H
#define VGPU_MEDIATOR_STAGING_H

#include <stdbool.h>
#include <stdint.h>

#include "common/core/ranges.h"
#include "local-mediator/region.h"

struct staging {
    struct region region; /* first: the region of its jobs */
    uint8_t *bytes;
    uint64_t arena_size; /* of the device that it was made for */
    struct ranges ranges;
    bool dirty;       /* has pages */
    uint64_t idle_ns; /* since when nothing uses it */
};

/**
 * staging_new() - memory of @size bytes, with one reference
 * @name:   shown in /proc
 * @number: of its region, not 0
 *
 * Return: 0; -errno.
 */
int staging_new(const char *name, uint32_t number, uint64_t size, struct staging **ret_staging);

/** staging_release() - give the pages back if no range is in use. Return: 0; -errno. */
int staging_release(struct staging *s);

#endif

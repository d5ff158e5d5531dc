/* SPDX-License-Identifier: MIT */
/*
 * ranges - hand out ranges of an address space
 *
 * Pure; the space may be an arena, a staging memfd or anything else with offsets. First fit by
 * offset; neighbouring free ranges are joined. Freeing never needs memory and never fails for a
 * range that was handed out. Not thread safe. Invariants: ranges_check().
 */
#ifndef VGPU_CORE_RANGES_H
#define VGPU_CORE_RANGES_H

#include <stddef.h>
#include <stdint.h>

enum {
    RANGES_E_FULL = 1, /* no free range is long enough now */
    RANGES_E_NEVER,    /* longer than the whole space */
};

struct ranges_span {
    uint64_t offset;
    uint64_t length;
};

struct ranges {
    uint64_t size;
    uint64_t align;
    uint64_t free_bytes;
    size_t n_alloc; /* ranges handed out */
    size_t n_free;  /* free ranges, sorted by offset */
    size_t cap;
    struct ranges_span *spans; /* the free ranges */
};

/**
 * ranges_init() - make one free range of the whole space
 * @r:     caller's storage
 * @size:  bytes of the space, a multiple of @align, may be 0
 * @align: offsets and lengths are multiples of this, a power of two
 *
 * Return: 0; -EINVAL; -ENOMEM.
 */
int ranges_init(struct ranges *r, uint64_t size, uint64_t align);

/** ranges_fini() - free what ranges_init() and ranges_alloc() took; @r may be all zero */
void ranges_fini(struct ranges *r);

/**
 * ranges_alloc() - hand out @length bytes
 * @length:     bytes, > 0; rounded up to the alignment
 * @ret_offset: where they start; written only on 0
 *
 * Return: 0; RANGES_E_FULL; RANGES_E_NEVER; -EINVAL; -ENOMEM.
 */
int ranges_alloc(struct ranges *r, uint64_t length, uint64_t *ret_offset);

/**
 * ranges_free() - take a range back
 * @offset: as handed out
 * @length: as asked for
 *
 * Return: 0; -EINVAL when it was not handed out (outside the space, or free already).
 */
int ranges_free(struct ranges *r, uint64_t offset, uint64_t length);

/** ranges_largest() - bytes of the longest free range */
uint64_t ranges_largest(const struct ranges *r);

/** ranges_check() - 0 when the invariants hold, else a negative number naming the broken one */
int ranges_check(const struct ranges *r);

#endif

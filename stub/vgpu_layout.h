/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vgpu_layout - what lies where in BAR 2
 *
 * Pure. The first 64 KiB are reserved, the rings follow, then the arena (proto/vgpu_regs.h). Rings get
 * at most a quarter of BAR 2: when more were asked for than fit, first their entries are halved (down
 * to VGPU_RING_ENTRIES_MIN), then their number (down to 1).
 */
#ifndef VGPU_LAYOUT_H
#define VGPU_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/vgpu_regs.h"

#define VGPU_SLOT_BYTES 4096u

/* All offsets count from the start of BAR 2. Without rings every field of theirs is 0. */
struct vgpu_layout {
    uint64_t shm_size;
    uint32_t rings;
    uint32_t entries;
    uint32_t slot_bytes;
    uint32_t ring_offset; /* of ring 0 */
    uint32_t ring_stride;
    uint64_t arena_offset;
    uint64_t arena_size;
};

/**
 * vgpu_layout_make() - divide BAR 2
 * @shm_size: a power of two, VGPU_SHM_SIZE_MIN to VGPU_SHM_SIZE_MAX
 * @rings:    0 (none) to VGPU_RINGS_MAX
 * @entries:  per ring, a power of two, VGPU_RING_ENTRIES_MIN to MAX; with no rings ignored
 */
struct vgpu_layout vgpu_layout_make(uint64_t shm_size, uint32_t rings, uint32_t entries);

/** vgpu_layout_zero_rings() - both pages of every ring of the BAR 2 that is mapped at @shm */
void vgpu_layout_zero_rings(const struct vgpu_layout *layout, void *shm);

/** vgpu_layout_check() - 0 when @layout is possible, else a negative number naming what is not */
int vgpu_layout_check(const struct vgpu_layout *layout);

#endif

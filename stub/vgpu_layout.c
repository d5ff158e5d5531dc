/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See vgpu_layout.h. */
#include <string.h>

#include "vgpu_layout.h"

#define ARENA_START_ALIGN UINT64_C(0x10000)

static uint64_t round_up(uint64_t value, uint64_t to)
{
    return (value + to - 1) / to * to;
}

static uint64_t ring_stride(uint32_t entries)
{
    uint64_t slots = (uint64_t)entries * VGPU_SLOT_STRIDE(VGPU_SLOT_BYTES);

    return round_up(VGPU_RING_SLOTS(entries) + slots, VGPU_RING_PAGE);
}

static bool fits(uint64_t shm_size, uint32_t rings, uint32_t entries)
{
    return rings * ring_stride(entries) <= shm_size / 4;
}

struct vgpu_layout vgpu_layout_make(uint64_t shm_size, uint32_t rings, uint32_t entries)
{
    struct vgpu_layout l = {.shm_size = shm_size, .arena_offset = VGPU_SHM_CONTROL_SIZE};

    if (rings != 0) {
        while (entries > VGPU_RING_ENTRIES_MIN && !fits(shm_size, rings, entries)) {
            entries /= 2;
        }
        while (rings > 1 && !fits(shm_size, rings, entries)) {
            rings /= 2;
        }
        l.rings = rings;
        l.entries = entries;
        l.slot_bytes = VGPU_SLOT_BYTES;
        l.ring_offset = VGPU_SHM_CONTROL_SIZE;
        l.ring_stride = (uint32_t)ring_stride(entries);
        l.arena_offset =
            round_up(l.ring_offset + (uint64_t)rings * l.ring_stride, ARENA_START_ALIGN);
    }
    l.arena_size = shm_size - l.arena_offset;
    return l;
}

void vgpu_layout_zero_rings(const struct vgpu_layout *layout, void *shm)
{
    uint32_t i;

    for (i = 0; i < layout->rings; i++) {
        memset((uint8_t *)shm + layout->ring_offset + (uint64_t)i * layout->ring_stride, 0,
               2 * VGPU_RING_PAGE);
    }
}

static bool power_of_two(uint64_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

int vgpu_layout_check(const struct vgpu_layout *l)
{
    if (!power_of_two(l->shm_size) || l->shm_size < VGPU_SHM_SIZE_MIN ||
        l->shm_size > VGPU_SHM_SIZE_MAX) {
        return -201;
    }
    if (l->arena_offset % ARENA_START_ALIGN != 0 || l->arena_offset < VGPU_SHM_CONTROL_SIZE ||
        l->arena_offset + l->arena_size != l->shm_size) {
        return -202;
    }
    if (l->rings == 0) {
        return l->entries | l->slot_bytes | l->ring_offset | l->ring_stride ? -203 : 0;
    }
    if (l->rings > VGPU_RINGS_MAX || !power_of_two(l->entries) ||
        l->entries < VGPU_RING_ENTRIES_MIN || l->entries > VGPU_RING_ENTRIES_MAX) {
        return -204;
    }
    if (l->ring_offset < VGPU_SHM_CONTROL_SIZE || l->ring_stride != ring_stride(l->entries) ||
        l->ring_offset + (uint64_t)l->rings * l->ring_stride > l->arena_offset) {
        return -205;
    }
    return (uint64_t)l->rings * l->ring_stride > l->shm_size / 4 ? -206 : 0;
}

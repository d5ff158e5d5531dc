/* SPDX-License-Identifier: MIT */
#include "local-mediator/core/layout.h"

#include <stdbool.h>
#include <stddef.h>

#include "common/core/ring.h"

static bool offers_shm(const struct vgpu_hello *h)
{
    return h->features & VGPU_LOCAL_FEATURE_SHM;
}

unsigned layout_fds(const struct vgpu_hello *h)
{
    return offers_shm(h) ? VGPU_HELLO_FDS((unsigned)h->rings) : 0;
}

static const char *check_rings(const struct vgpu_hello *h)
{
    const struct ring_shape shape = {.entries = h->ring_entries, .slot_bytes = h->slot_bytes};
    const char *wrong = ring_shape_check(&shape);

    if (wrong) {
        return wrong;
    }
    if (h->rings < 1 || h->rings > VGPU_RINGS_MAX) {
        return "HELLO offers shared memory without rings, or with more than 64";
    }
    if (h->ring_offset % VGPU_RING_PAGE || h->ring_stride % VGPU_RING_PAGE) {
        return "HELLO has rings that are not aligned to 4096 bytes";
    }
    if (h->ring_stride < ring_bytes(&shape)) {
        return "HELLO has rings that overlap: ring_stride is less than a ring takes";
    }
    if (h->ring_offset > h->shm_size || h->ring_stride > h->shm_size ||
        h->rings * h->ring_stride > h->shm_size - h->ring_offset) {
        return "HELLO has rings that lie outside the shared memory";
    }
    return NULL;
}

static const char *check_arena(const struct vgpu_hello *h)
{
    uint64_t rings_end = h->ring_offset + h->rings * h->ring_stride;

    if (h->arena_offset % VGPU_RING_PAGE) {
        return "HELLO has an arena that is not aligned to 4096 bytes";
    }
    if (h->arena_size == 0 || h->arena_offset > h->shm_size ||
        h->arena_size > h->shm_size - h->arena_offset) {
        return "HELLO has an arena that is empty or lies outside the shared memory";
    }
    if (h->arena_offset < rings_end && h->ring_offset < h->arena_offset + h->arena_size) {
        return "HELLO has an arena that overlaps the rings";
    }
    return NULL;
}

const char *layout_check(const struct vgpu_hello *h)
{
    const char *wrong;

    if (h->arena_size > VGPU_SHM_SIZE_MAX || h->shm_size > VGPU_SHM_SIZE_MAX) {
        return "HELLO has more memory than a device can have";
    }
    if (!offers_shm(h)) {
        return h->rings || h->ring_entries || h->slot_bytes || h->shm_size || h->ring_offset ||
                       h->ring_stride || h->arena_offset
                   ? "HELLO describes rings but does not offer shared memory"
                   : NULL;
    }
    wrong = check_rings(h);
    return wrong ? wrong : check_arena(h);
}

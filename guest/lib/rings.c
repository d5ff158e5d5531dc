/* SPDX-License-Identifier: MIT */
/* rings.c - see rings.h */
#include <fcntl.h>
#include <stddef.h>

#include "guest/lib/rings.h"

#define LIFE_BYTE 1 /* of resource0; byte 0 is devlock's */

static int lock_byte(int fd, short type, uint64_t at)
{
    struct flock byte = {.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)at, .l_len = 1};

    return fd < 0 || fcntl(fd, F_OFD_SETLK, &byte) == 0 ? 0 : RINGS_E_WAIT;
}

static int lock_ring(const struct rings *r, unsigned i, short type)
{
    return lock_byte(r->fd, type, r->start + i * r->stride);
}

const char *rings_find(struct rings *r, const struct mmio *m, uint8_t *shm, uint64_t shm_bytes,
                       uint64_t arena_offset)
{
    uint64_t count = mmio_read(m, VGPU_REG_RING_COUNT);
    uint64_t offset = mmio_read(m, VGPU_REG_RING_OFFSET);
    uint64_t stride = mmio_read(m, VGPU_REG_RING_STRIDE);
    struct ring_shape shape = {
        .entries = mmio_read(m, VGPU_REG_RING_ENTRIES),
        .slot_bytes = mmio_read(m, VGPU_REG_SLOT_BYTES),
    };
    uint64_t end;

    *r = (struct rings){.fd = -1, .life_fd = -1, .mine = -1};
    if (!shm || !(mmio_read(m, VGPU_REG_FEATURES) & VGPU_FEATURE_RING) || count == 0) {
        return "the device offers none";
    }
    if (count > VGPU_RINGS_MAX || offset % VGPU_RING_PAGE || stride % VGPU_RING_PAGE) {
        return "the device says nonsense about its rings";
    }
    if (ring_shape_check(&shape)) {
        return "the device says nonsense about their entries";
    }
    end = offset + (count - 1) * stride + ring_bytes(&shape); /* of 32-bit numbers: no overflow */
    if (offset < VGPU_SHM_CONTROL_SIZE || (count > 1 && stride < ring_bytes(&shape)) ||
        end > shm_bytes || end > arena_offset) {
        return "the device says that they lie outside of their place in BAR 2";
    }
    r->count = (unsigned)count;
    r->base = shm + offset;
    r->start = offset;
    r->stride = stride;
    r->shape = shape;
    return NULL;
}

/* What the pages say. Nobody may own the ring, or the answer means nothing. */
static int look(const struct rings *r, unsigned i)
{
    struct ring_map map;

    ring_map(&map, rings_base(r, i), &r->shape);
    return ring_left(&map);
}

/* With a ring locked shared: own it, if it is still as it was. */
static bool own(struct rings *r, unsigned i)
{
    if (lock_ring(r, i, F_WRLCK) == 0) {
        if (look(r, i) == 0) {
            r->mine = (int)i;
            return true;
        }
    }
    lock_ring(r, i, F_UNLCK);
    return false;
}

int rings_take(struct rings *r, unsigned *ret_left)
{
    unsigned left = 0;

    for (unsigned i = 0; i < r->count; i++) {
        if (lock_ring(r, i, F_RDLCK) != 0) {
            continue;
        }
        if (look(r, i) != 0) {
            left++;
            lock_ring(r, i, F_UNLCK);
        } else if (r->mine >= 0) {
            lock_ring(r, i, F_UNLCK);
        } else {
            own(r, i);
        }
    }
    *ret_left = left;
    return r->mine >= 0 ? 0 : RINGS_E_NONE;
}

int rings_take_any(struct rings *r)
{
    for (unsigned i = 0; i < r->count && r->mine < 0; i++) {
        if (lock_ring(r, i, F_WRLCK) == 0) {
            r->mine = (int)i;
        }
    }
    return r->mine >= 0 ? 0 : RINGS_E_NONE;
}

unsigned rings_kick_left(const struct rings *r, const struct mmio *m)
{
    unsigned left = 0;

    for (unsigned i = 0; i < r->count; i++) {
        if ((int)i == r->mine || lock_ring(r, i, F_RDLCK) != 0) {
            continue;
        }
        if (look(r, i) != 0) {
            mmio_write(m, VGPU_REG_RING_DOORBELL + 4 * i, 1);
            left++;
        }
        lock_ring(r, i, F_UNLCK);
    }
    return left;
}

/* Whether the request in a slot has an output in a part of the arena. */
static bool slot_writes(const struct ring_map *map, uint32_t slot, const struct ranges_span *part)
{
    const uint8_t *request = ring_request(map, slot);
    struct vgpu_req_hdr hdr;
    struct vgpu_buf buf;

    ring_copy_in(&hdr, request, sizeof(hdr));
    for (unsigned i = 0; i < hdr.nbufs && i < VGPU_BUFS_MAX; i++) {
        size_t at = sizeof(hdr) + i * sizeof(buf);

        if (at + sizeof(buf) > map->shape.slot_bytes) {
            return false;
        }
        ring_copy_in(&buf, request + at, sizeof(buf));
        if (buf.kind == VGPU_BUF_ARENA && buf.dir == VGPU_BUF_OUT &&
            buf.offset < part->offset + part->length &&
            (buf.offset >= part->offset || part->offset - buf.offset < buf.length)) {
            return true;
        }
    }
    return false;
}

/* Which slots are in flight is not known, so any slot's request counts, also an old one. */
static bool ring_writes(const struct rings *r, unsigned i, const struct ranges_span *part)
{
    struct ring_map map;

    if (look(r, i) == 0) {
        return false;
    }
    ring_map(&map, rings_base(r, i), &r->shape);
    for (uint32_t slot = 0; slot < r->shape.entries; slot++) {
        if (slot_writes(&map, slot, part)) {
            return true;
        }
    }
    return false;
}

bool rings_may_write(const struct rings *r, const struct ranges_span *part)
{
    bool writes = false;

    for (unsigned i = 0; i < r->count && !writes && r->fd >= 0; i++) {
        if ((int)i != r->mine && lock_ring(r, i, F_RDLCK) == 0) {
            writes = ring_writes(r, i, part);
            lock_ring(r, i, F_UNLCK);
        }
    }
    return writes;
}

int rings_enter(const struct rings *r)
{
    return lock_byte(r->life_fd, F_RDLCK, LIFE_BYTE);
}

int rings_enter_alone(const struct rings *r)
{
    return lock_byte(r->life_fd, F_WRLCK, LIFE_BYTE);
}

void rings_leave(const struct rings *r)
{
    lock_byte(r->life_fd, F_UNLCK, LIFE_BYTE);
}

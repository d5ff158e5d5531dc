/* SPDX-License-Identifier: MIT */
/* encode.c - see encode.h */
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "guest/lib/encode.h"

static uint64_t align_up(uint64_t value, uint64_t align)
{
    return (value + align - 1) & ~(align - 1);
}

static uint32_t inline_start(const struct encode_spec *s)
{
    return (uint32_t)sizeof(struct vgpu_req_hdr) + s->nbufs * (uint32_t)sizeof(struct vgpu_buf) +
           s->body_len;
}

static bool in_arena(const struct encode_buf *b, const struct transport_limits *l,
                     uint64_t *ret_offset)
{
    uintptr_t base = (uintptr_t)l->arena;
    uintptr_t p = (uintptr_t)b->memory;

    if (!l->arena || p < base || p - base > l->arena_bytes ||
        b->length > l->arena_bytes - (p - base) || (p - base) % VGPU_ARENA_ALIGN != 0) {
        return false;
    }
    *ret_offset = p - base;
    return true;
}

/* Room left for INLINE data: of inputs in the request, of outputs in the response. */
struct room {
    uint64_t in_at, in_end;
    uint64_t out_at, out_end;
};

static bool fits_inline(struct encode_buf *b, struct room *room)
{
    uint64_t *at = b->dir == VGPU_BUF_IN ? &room->in_at : &room->out_at;
    uint64_t end = b->dir == VGPU_BUF_IN ? room->in_end : room->out_end;
    uint64_t start = align_up(*at, VGPU_INLINE_ALIGN);

    if (start > end || b->length > end - start) {
        return false;
    }
    b->offset = start;
    b->place = ENCODE_INLINE;
    *at = start + b->length;
    return true;
}

static int place_one(struct encode_buf *b, const struct transport_limits *l, struct room *room)
{
    uint64_t offset;

    if (in_arena(b, l, &offset)) {
        b->place = ENCODE_ARENA;
        b->offset = offset;
        return 0;
    }
    if ((!l->arena || b->length <= l->inline_best) && fits_inline(b, room)) {
        return 0;
    }
    if (!l->arena) {
        return -EMSGSIZE;
    }
    b->place = ENCODE_STAGED;
    return 0;
}

int encode_place(struct encode_spec *s, const struct transport_limits *limits)
{
    uint32_t start = inline_start(s);
    struct room room = {
        .in_at = start,
        .in_end = limits->request_max,
        .out_end = limits->payload_max,
    };

    if (start > limits->request_max) {
        return -EMSGSIZE;
    }
    for (unsigned i = 0; i < s->nbufs; i++) {
        int r = place_one(&s->bufs[i], limits, &room);

        if (r) {
            return r;
        }
    }
    return 0;
}

static void put_inline(uint8_t *out, const struct encode_buf *b, uint64_t *end)
{
    memset(out + *end, 0, b->offset - *end);
    memcpy(out + b->offset, b->memory, b->length);
    *end = b->offset + b->length;
}

uint32_t encode_write(const struct encode_spec *s, uint8_t *out)
{
    struct vgpu_req_hdr hdr = s->hdr;
    uint64_t end = inline_start(s);
    uint8_t *at = out + sizeof(hdr);

    memcpy(at + s->nbufs * sizeof(struct vgpu_buf), s->body, s->body_len);
    for (unsigned i = 0; i < s->nbufs; i++, at += sizeof(struct vgpu_buf)) {
        const struct encode_buf *b = &s->bufs[i];
        struct vgpu_buf entry = {
            .kind = b->place == ENCODE_INLINE ? VGPU_BUF_INLINE : VGPU_BUF_ARENA,
            .dir = b->dir,
            .offset = b->offset,
            .length = b->length,
        };

        if (b->place == ENCODE_INLINE && b->dir == VGPU_BUF_IN) {
            put_inline(out, b, &end);
        }
        memcpy(at, &entry, sizeof(entry));
    }
    hdr.size = (uint32_t)end;
    hdr.version = VGPU_REQ_VERSION;
    hdr.nbufs = (uint8_t)s->nbufs;
    hdr.body_len = (uint16_t)s->body_len;
    memcpy(out, &hdr, sizeof(hdr));
    return hdr.size;
}

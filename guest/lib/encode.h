/* SPDX-License-Identifier: MIT */
/*
 * encode - turn what the caller gave into the bytes of a request
 *
 * Pure. Two steps: encode_place() decides where each buffer goes (in place in the arena, into the
 * request or response, or to a copy in the arena that the caller then provides), encode_write()
 * makes the bytes. Format: proto/vgpu_regs.h, "requests".
 */
#ifndef GUEST_ENCODE_H
#define GUEST_ENCODE_H

#include <stddef.h>
#include <stdint.h>

#include "guest/lib/transport.h"

#define ENCODE_BODY_MAX 512u

enum encode_place {
    ENCODE_INLINE,
    ENCODE_ARENA,  /* the caller's memory, in the arena */
    ENCODE_STAGED, /* a copy in the arena; its offset comes from the caller of encode_place() */
};

struct encode_buf {
    uint8_t *memory; /* the caller's; inputs are only read */
    uint64_t length;
    uint64_t offset; /* as in struct vgpu_buf */
    uint8_t dir;     /* VGPU_BUF_IN or VGPU_BUF_OUT */
    uint8_t place;   /* enum encode_place */
};

struct encode_spec {
    struct vgpu_req_hdr hdr; /* size, version, nbufs and body_len are filled in by encode_write() */
    unsigned nbufs;
    uint32_t body_len;
    struct encode_buf bufs[VGPU_BUFS_MAX];
    uint8_t body[ENCODE_BODY_MAX];
};

/**
 * encode_place() - decide where the buffers go
 * @s:      its buffers get `place`, and `offset` unless they are ENCODE_STAGED
 * @limits: of the transport
 *
 * Return: 0; -EMSGSIZE the request cannot be made to fit.
 */
int encode_place(struct encode_spec *s, const struct transport_limits *limits);

/**
 * encode_write() - make the bytes of a placed request
 * @s:   every offset is known
 * @out: room for limits->request_max bytes
 *
 * Return: bytes of the request.
 */
uint32_t encode_write(const struct encode_spec *s, uint8_t *out);

#endif

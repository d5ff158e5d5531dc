/* SPDX-License-Identifier: MIT */
/*
 * request.c - validation of requests and responses; see request.h
 *
 * Every length is compared in the form `offset <= size && length <= size - offset`, which cannot
 * overflow. The sentences name the field or buffer, what it holds and what was expected.
 */
#include "common/core/request.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* A buffer's INLINE input lies in the request, its INLINE output in the response. */
enum space { SPACE_NONE, SPACE_REQUEST, SPACE_PAYLOAD, SPACE_ARENA };

static enum space buf_space(const struct vgpu_buf *b)
{
    if (b->kind == VGPU_BUF_ARENA) {
        return SPACE_ARENA;
    }
    if (b->kind == VGPU_BUF_INLINE) {
        return b->dir == VGPU_BUF_OUT ? SPACE_PAYLOAD : SPACE_REQUEST;
    }
    return SPACE_NONE;
}

static bool inside(uint64_t offset, uint64_t length, uint64_t size)
{
    return offset <= size && length <= size - offset;
}

static uint32_t check_header(const struct vgpu_req_hdr *h, size_t len,
                             const struct request_limits *limits, char *why)
{
    if (h->version != VGPU_REQ_VERSION) {
        snprintf(why, REQUEST_WHY_MAX, "the header's version is %u; this device knows %u",
                 h->version, VGPU_REQ_VERSION);
        return VGPU_E_BAD_VERSION;
    }
    if (h->size != len || h->size > limits->max_size) {
        snprintf(why, REQUEST_WHY_MAX, "the header says %u bytes, %zu were submitted, at most %u",
                 h->size, len, limits->max_size);
        return VGPU_E_BAD_LENGTH;
    }
    if (h->flags & ~VGPU_REQ_FLAGS) {
        snprintf(why, REQUEST_WHY_MAX, "flags 0x%" PRIx32 ": only 0x%x are known", h->flags,
                 VGPU_REQ_FLAGS);
        return VGPU_E_RESERVED_SET;
    }
    if (h->reserved[0] | h->reserved[1] | h->reserved[2] | h->reserved[3]) {
        snprintf(why, REQUEST_WHY_MAX, "a reserved field of the header is not zero");
        return VGPU_E_RESERVED_SET;
    }
    if (h->band >= VGPU_BANDS && h->band != VGPU_BAND_DEFAULT) {
        snprintf(why, REQUEST_WHY_MAX, "band %u: bands are 0 to 3, and 255 for the default",
                 h->band);
        return VGPU_E_BAD_PARAM;
    }
    if (h->nbufs > VGPU_BUFS_MAX) {
        snprintf(why, REQUEST_WHY_MAX, "%u buffers: at most %u", h->nbufs, VGPU_BUFS_MAX);
        return VGPU_E_TOO_MANY_BUFFERS;
    }
    if (h->body_len % 8 || sizeof(*h) + h->nbufs * sizeof(struct vgpu_buf) + h->body_len > len) {
        snprintf(why, REQUEST_WHY_MAX,
                 "header, %u buffers and a body of %u bytes (a multiple of 8) do not fit %zu bytes",
                 h->nbufs, h->body_len, len);
        return VGPU_E_BAD_LENGTH;
    }
    return VGPU_E_OK;
}

/* Kinds and directions that may be used at all, before any offset is looked at. */
static uint32_t check_kind(const struct request *r, unsigned i, const struct request_limits *limits,
                           char *why)
{
    const struct vgpu_buf *b = &r->bufs[i];
    bool temp = b->kind == VGPU_BUF_TEMP;

    if (b->kind > VGPU_BUF_TEMP) {
        snprintf(why, REQUEST_WHY_MAX, "buffer %u: unknown kind %u", i, b->kind);
        return VGPU_E_BAD_BUFFER;
    }
    if (temp ? b->dir != 0 : b->dir != VGPU_BUF_IN && b->dir != VGPU_BUF_OUT) {
        snprintf(why, REQUEST_WHY_MAX, "buffer %u: direction %u is not one of its kind", i, b->dir);
        return VGPU_E_BAD_BUFFER;
    }
    if (b->kind == VGPU_BUF_OBJECT && b->dir != VGPU_BUF_IN) {
        snprintf(why, REQUEST_WHY_MAX, "buffer %u: an object is an input only", i);
        return VGPU_E_BAD_BUFFER;
    }
    if ((b->kind == VGPU_BUF_OBJECT && !(limits->features & VGPU_FEATURE_OBJECT)) ||
        (temp && !(limits->features & VGPU_FEATURE_PROGRAM))) {
        snprintf(why, REQUEST_WHY_MAX, "buffer %u: this device does not offer %s buffers", i,
                 temp ? "TEMP" : "OBJECT");
        return VGPU_E_UNSUPPORTED;
    }
    if (temp && r->hdr.op != VGPU_OP_PROGRAM) {
        snprintf(why, REQUEST_WHY_MAX, "buffer %u: TEMP buffers belong to PROGRAM", i);
        return VGPU_E_BAD_BUFFER;
    }
    if (b->reserved || (b->kind != VGPU_BUF_OBJECT && b->aux)) {
        snprintf(why, REQUEST_WHY_MAX, "buffer %u: a reserved field is not zero", i);
        return VGPU_E_RESERVED_SET;
    }
    if (b->length == 0) {
        snprintf(why, REQUEST_WHY_MAX, "buffer %u: its length is zero", i);
        return VGPU_E_BAD_LENGTH;
    }
    return VGPU_E_OK;
}

static uint32_t check_outside(unsigned i, const struct vgpu_buf *b, const char *space,
                              uint64_t size, char *why)
{
    if (inside(b->offset, b->length, size)) {
        return VGPU_E_OK;
    }
    snprintf(why, REQUEST_WHY_MAX,
             "buffer %u: offset %" PRIu64 " and length %" PRIu64 " lie outside the %s of %" PRIu64
             " bytes",
             i, b->offset, b->length, space, size);
    return VGPU_E_BAD_BUFFER;
}

static uint32_t check_aligned(unsigned i, uint64_t offset, unsigned align, char *why)
{
    if (offset % align == 0) {
        return VGPU_E_OK;
    }
    snprintf(why, REQUEST_WHY_MAX, "buffer %u: offset %" PRIu64 " is not a multiple of %u", i,
             offset, align);
    return VGPU_E_MISALIGNED;
}

static uint32_t check_place(const struct request *r, unsigned i,
                            const struct request_limits *limits, char *why)
{
    const struct vgpu_buf *b = &r->bufs[i];
    uint32_t e;

    switch (b->kind) {
    case VGPU_BUF_INLINE:
        if (b->dir == VGPU_BUF_IN && b->offset < r->inline_offset) {
            snprintf(why, REQUEST_WHY_MAX,
                     "buffer %u: offset %" PRIu64 " lies before the inline data at %u", i,
                     b->offset, r->inline_offset);
            return VGPU_E_BAD_BUFFER;
        }
        e = check_aligned(i, b->offset, VGPU_INLINE_ALIGN, why);
        if (e) {
            return e;
        }
        return b->dir == VGPU_BUF_IN
                   ? check_outside(i, b, "request", r->hdr.size, why)
                   : check_outside(i, b, "response payload", limits->payload_max, why);
    case VGPU_BUF_ARENA:
        e = check_aligned(i, b->offset, VGPU_ARENA_ALIGN, why);
        return e ? e : check_outside(i, b, "arena", limits->arena_size, why);
    case VGPU_BUF_OBJECT:
        if (b->aux < r->inline_offset || !inside(b->aux, 32, r->hdr.size)) {
            snprintf(why, REQUEST_WHY_MAX,
                     "buffer %u: the object's name at %u lies outside the inline data", i, b->aux);
            return VGPU_E_BAD_BUFFER;
        }
        return b->length <= UINT64_MAX - b->offset ? VGPU_E_OK
                                                   : check_outside(i, b, "object", UINT64_MAX, why);
    default:
        return b->offset == 0 ? VGPU_E_OK : check_outside(i, b, "TEMP buffer", b->length, why);
    }
}

static bool overlaps(const struct vgpu_buf *a, const struct vgpu_buf *b)
{
    enum space space = buf_space(a);

    if (space == SPACE_NONE || space != buf_space(b)) {
        return false;
    }
    if (a->dir != VGPU_BUF_OUT && b->dir != VGPU_BUF_OUT) {
        return false;
    }
    return a->offset < b->offset + b->length && b->offset < a->offset + a->length;
}

static uint32_t check_overlap(const struct request *r, char *why)
{
    for (unsigned i = 1; i < r->hdr.nbufs; i++) {
        for (unsigned j = 0; j < i; j++) {
            if (overlaps(&r->bufs[i], &r->bufs[j])) {
                snprintf(why, REQUEST_WHY_MAX,
                         "buffers %u and %u overlap and one of them is an output", j, i);
                return VGPU_E_OVERLAP;
            }
        }
    }
    return VGPU_E_OK;
}

static void add_sizes(struct request *r)
{
    for (unsigned i = 0; i < r->hdr.nbufs; i++) {
        const struct vgpu_buf *b = &r->bufs[i];

        if (b->kind == VGPU_BUF_ARENA && b->dir == VGPU_BUF_IN) {
            r->arena_in += b->length; /* at most 16 arenas of 64 GiB: cannot overflow */
        } else if (b->kind == VGPU_BUF_ARENA) {
            r->arena_out += b->length;
        } else if (buf_space(b) == SPACE_PAYLOAD && b->offset + b->length > r->payload_len) {
            r->payload_len = (uint32_t)(b->offset + b->length);
        }
    }
}

/* The ops that the mediator answers itself have a fixed form. */
static uint32_t check_device_op(const struct vgpu_req_hdr *h, char *why)
{
    uint16_t body_len = h->op == VGPU_OP_CANCEL ? sizeof(struct vgpu_cancel) : 0;

    if (h->op >= VGPU_OP_FIRST_COMPUTE || (h->nbufs == 0 && h->body_len == body_len)) {
        return VGPU_E_OK;
    }
    snprintf(why, REQUEST_WHY_MAX, "op %s takes no buffers and a body of %u bytes",
             vgpu_op_name(h->op), body_len);
    return VGPU_E_BAD_LENGTH;
}

static uint32_t check_buffers(struct request *r, const struct request_limits *limits, char *why)
{
    for (unsigned i = 0; i < r->hdr.nbufs; i++) {
        uint32_t e = check_kind(r, i, limits, why);

        e = e ? e : check_place(r, i, limits, why);
        if (e) {
            return e;
        }
    }
    return check_overlap(r, why);
}

uint32_t request_parse(const void *bytes, size_t len, const struct request_limits *limits,
                       struct request *ret, char *why)
{
    struct request r = {.bytes = bytes};
    uint32_t e;

    if (len < sizeof(r.hdr) || len > UINT32_MAX) {
        snprintf(why, REQUEST_WHY_MAX, "%zu bytes were submitted; a request header has %zu", len,
                 sizeof(r.hdr));
        return VGPU_E_BAD_LENGTH;
    }
    memcpy(&r.hdr, bytes, sizeof(r.hdr));
    e = check_header(&r.hdr, len, limits, why);
    e = e ? e : check_device_op(&r.hdr, why);
    if (e) {
        return e;
    }
    memcpy(r.bufs, r.bytes + sizeof(r.hdr), r.hdr.nbufs * sizeof(struct vgpu_buf));
    r.body_offset = (uint32_t)(sizeof(r.hdr) + r.hdr.nbufs * sizeof(struct vgpu_buf));
    r.inline_offset = r.body_offset + r.hdr.body_len;
    e = check_buffers(&r, limits, why);
    if (e) {
        return e;
    }
    add_sizes(&r);
    *ret = r;
    return VGPU_E_OK;
}

uint64_t request_peek_tag(const void *bytes, size_t len)
{
    struct vgpu_req_hdr h;

    if (len < sizeof(h)) {
        return 0;
    }
    memcpy(&h, bytes, sizeof(h));
    return h.tag;
}

uint16_t request_peek_op(const void *bytes, size_t len)
{
    struct vgpu_req_hdr h;

    if (len < sizeof(h)) {
        return VGPU_OP_INFO;
    }
    memcpy(&h, bytes, sizeof(h));
    return h.op;
}

void request_rebase(void *bytes, struct request *r, const uint64_t *offsets)
{
    for (unsigned i = 0; i < r->hdr.nbufs; i++) {
        if (r->bufs[i].kind == VGPU_BUF_ARENA) {
            r->bufs[i].offset = offsets[i];
            memcpy((uint8_t *)bytes + sizeof(r->hdr) + i * sizeof(r->bufs[i]), &r->bufs[i],
                   sizeof(r->bufs[i]));
        }
    }
}

uint32_t response_error(void *buf, size_t cap, uint16_t op, uint64_t tag, uint32_t error,
                        const char *text)
{
    struct vgpu_resp_hdr h = {.version = VGPU_REQ_VERSION, .op = op, .error = error, .tag = tag};
    size_t len;

    text = text && *text ? text : vgpu_error_text(error);
    len = strlen(text);
    if (len > cap - sizeof(h)) {
        len = cap - sizeof(h);
    }
    h.payload = VGPU_PAYLOAD_TEXT;
    h.size = (uint32_t)(sizeof(h) + len);
    memcpy(buf, &h, sizeof(h));
    memcpy((uint8_t *)buf + sizeof(h), text, len);
    return h.size;
}

static bool header_matches(const struct vgpu_resp_hdr *h, size_t len, uint16_t op, uint64_t tag)
{
    return h->size == len && h->version == VGPU_REQ_VERSION && h->op == op && h->tag == tag &&
           h->payload <= VGPU_PAYLOAD_INFO && (h->reserved[0] | h->reserved[1]) == 0;
}

uint32_t response_check(const void *bytes, size_t len, uint16_t op, uint64_t tag,
                        uint32_t payload_max, struct vgpu_resp_hdr *ret, char *why)
{
    struct vgpu_resp_hdr h;

    if (len < sizeof(h) || len - sizeof(h) > payload_max) {
        snprintf(why, REQUEST_WHY_MAX, "a response of %zu bytes: it has %zu to %zu", len, sizeof(h),
                 sizeof(h) + payload_max);
        return VGPU_E_INTERNAL;
    }
    memcpy(&h, bytes, sizeof(h));
    if (!header_matches(&h, len, op, tag)) {
        snprintf(why, REQUEST_WHY_MAX,
                 "a response that is not one to %s: size %u of %zu, version %u, op %u",
                 vgpu_op_name(op), h.size, len, h.version, h.op);
        return VGPU_E_INTERNAL;
    }
    *ret = h;
    return VGPU_E_OK;
}

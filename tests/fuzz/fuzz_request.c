/* SPDX-License-Identifier: MIT */
/* fuzz_request.c - any bytes as a request or a response, in a window or in a slot of a ring: no crash, and
 * nothing accepted that lies outside of its space, that overlaps, or that reads differently a second
 * time */
#include "common/core/request.h"
#include "tests/fuzz/fuzz.h"

#define ARENA (UINT64_C(1) << 20)

/* clang-format off */
static const struct request_limits places[] = {
    {VGPU_WINDOW_SIZE, VGPU_PAYLOAD_MAX, 0, ARENA},
    {VGPU_REQ_MAX, VGPU_REQ_MAX - 64, 0, ARENA},
    {256, 192, 0, 4096}, /* the smallest slot */
    {VGPU_REQ_MAX, VGPU_REQ_MAX - 64, VGPU_FEATURE_OBJECT | VGPU_FEATURE_PROGRAM, ARENA},
    {VGPU_REQ_MAX, VGPU_REQ_MAX - 64, 0, UINT64_MAX}, /* ends nowhere: sums may overflow */
    {VGPU_REQ_MAX, VGPU_REQ_MAX - 64, 0, 0},
};
/* clang-format on */

static uint64_t space_of(const struct request *r, const struct request_limits *limits,
                         const struct vgpu_buf *b)
{
    if (b->kind == VGPU_BUF_ARENA) {
        return limits->arena_size;
    }
    if (b->kind == VGPU_BUF_INLINE) {
        return b->dir == VGPU_BUF_OUT ? limits->payload_max : r->hdr.size;
    }
    return UINT64_MAX;
}

static int overlap(const struct vgpu_buf *a, const struct vgpu_buf *b)
{
    return a->offset < b->offset + b->length && b->offset < a->offset + a->length;
}

/* Both of one space, one of them an output: they must not overlap. */
static int compete(const struct vgpu_buf *a, const struct vgpu_buf *b)
{
    if (a->kind != b->kind || (a->dir != VGPU_BUF_OUT && b->dir != VGPU_BUF_OUT)) {
        return 0;
    }
    return a->kind == VGPU_BUF_ARENA || (a->kind == VGPU_BUF_INLINE && a->dir == b->dir);
}

static void check_buffers(const struct request *r, const struct request_limits *limits)
{
    uint64_t in = 0, out = 0;

    fuzz_check(r->hdr.nbufs <= VGPU_BUFS_MAX);
    for (unsigned i = 0; i < r->hdr.nbufs; i++) {
        const struct vgpu_buf *b = &r->bufs[i];
        uint64_t space = space_of(r, limits, b);

        fuzz_check(b->length > 0 && b->offset <= space && b->length <= space - b->offset);
        for (unsigned k = 0; k < i; k++) {
            fuzz_check(!compete(b, &r->bufs[k]) || !overlap(b, &r->bufs[k]));
        }
        in += b->kind == VGPU_BUF_ARENA && b->dir == VGPU_BUF_IN ? b->length : 0;
        out += b->kind == VGPU_BUF_ARENA && b->dir == VGPU_BUF_OUT ? b->length : 0;
    }
    if (limits->arena_size <= ARENA) { /* else their sums may be more than 64 bits hold */
        fuzz_check(in == r->arena_in && out == r->arena_out);
    }
}

static void check_request(const uint8_t *bytes, size_t size, const struct request_limits *limits,
                          const struct request *r)
{
    char why[REQUEST_WHY_MAX];
    struct request again;

    fuzz_check(r->hdr.size == size && size <= limits->max_size);
    fuzz_check(r->body_offset + r->hdr.body_len <= r->inline_offset && r->inline_offset <= size);
    fuzz_check(r->payload_len <= limits->payload_max);
    check_buffers(r, limits);
    fuzz_check(request_peek_tag(bytes, size) == r->hdr.tag &&
               request_peek_op(bytes, size) == r->hdr.op);
    fuzz_check(request_parse(bytes, size, limits, &again, why) == VGPU_E_OK);
}

/* Moved somewhere else it is the same request with other offsets. */
static void check_rebase(uint8_t *bytes, struct request *r, const struct request_limits *limits)
{
    uint64_t offsets[VGPU_BUFS_MAX], next = 0;
    char why[REQUEST_WHY_MAX];
    struct request again;

    if (r->arena_in + r->arena_out > ARENA / 2 || limits->arena_size != ARENA) {
        return;
    }
    for (unsigned i = 0; i < r->hdr.nbufs; i++) {
        offsets[i] = next;
        next += r->bufs[i].kind == VGPU_BUF_ARENA ? (r->bufs[i].length + 63) / 64 * 64 : 0;
    }
    request_rebase(bytes, r, offsets);
    fuzz_check(request_parse(bytes, r->hdr.size, limits, &again, why) == VGPU_E_OK);
    fuzz_check(memcmp(again.bufs, r->bufs, r->hdr.nbufs * sizeof(r->bufs[0])) == 0);
}

/* A request of some buffers of the fuzzer's, so that more than the header is looked at. Return: its size. */
static size_t make_request(struct fuzz_input *in, uint8_t *bytes)
{
    struct vgpu_req_hdr hdr = {.version = VGPU_REQ_VERSION, .op = VGPU_OP_ECHO};
    struct vgpu_buf bufs[VGPU_BUFS_MAX];
    unsigned n = (unsigned)fuzz_take(in, 1) % (VGPU_BUFS_MAX + 1);
    size_t size = sizeof(hdr) + n * sizeof(bufs[0]) + fuzz_take(in, 1);

    for (unsigned i = 0; i < n; i++) {
        unsigned what = (unsigned)fuzz_take(in, 1);
        uint64_t at = fuzz_take(in, 2);

        bufs[i] = (struct vgpu_buf){
            .kind = what & 1 ? VGPU_BUF_ARENA : VGPU_BUF_INLINE,
            .dir = what & 2 ? VGPU_BUF_IN : VGPU_BUF_OUT,
            .offset = what & 1 ? at * VGPU_ARENA_ALIGN : at % 512 * VGPU_INLINE_ALIGN,
            .length = what & 4 ? 1 + fuzz_take(in, 2) : 8,
        };
    }
    hdr.nbufs = (uint8_t)n;
    hdr.band = VGPU_BAND_DEFAULT;
    memset(bytes, 0, size);
    memcpy(bytes, &hdr, sizeof(hdr));
    memcpy(bytes + sizeof(hdr), bufs, n * sizeof(bufs[0]));
    while (in->left > 0) { /* and then changes of a few bytes */
        fuzz_copy(in, bytes + fuzz_take(in, 2) % (size - 8), 1 + fuzz_take(in, 1) % 8);
    }
    return size;
}

static void check_response(const uint8_t *bytes, size_t size)
{
    struct vgpu_resp_hdr h;
    char why[REQUEST_WHY_MAX];
    uint64_t tag;

    if (size < sizeof(h)) {
        return;
    }
    memcpy(&tag, bytes + offsetof(struct vgpu_resp_hdr, tag), sizeof(tag));
    if (response_check(bytes, size, request_peek_op(bytes, size), tag, VGPU_PAYLOAD_MAX, &h, why) ==
        VGPU_E_OK) {
        fuzz_check(h.size == size && size - sizeof(h) <= VGPU_PAYLOAD_MAX && h.tag == tag);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    unsigned how = (unsigned)fuzz_take(&in, 1);
    const struct request_limits *limits = &places[how % (sizeof(places) / sizeof(places[0]))];
    uint16_t version = VGPU_REQ_VERSION;
    uint8_t bytes[VGPU_REQ_MAX + 64];
    char why[REQUEST_WHY_MAX];
    struct request r;
    uint32_t said;

    if (in.left < sizeof(struct vgpu_req_hdr) || in.left > sizeof(bytes)) {
        return 0;
    }
    size = in.left;
    if (how & 0x80) {
        size = make_request(&in, bytes);
    } else {
        memcpy(bytes, in.at, size);
    }
    said = (uint32_t)size;
    memcpy(bytes, &said, sizeof(said)); /* get past the first checks, which a fuzzer finds slowly */
    memcpy(bytes + 4, &version, sizeof(version));
    check_response(bytes, size);
    if (request_parse(bytes, size, limits, &r, why) == VGPU_E_OK) {
        check_request(bytes, size, limits, &r);
        check_rebase(bytes, &r, limits);
    } else {
        fuzz_check(strlen(why) > 0 && strlen(why) < sizeof(why));
    }
    return 0;
}

/* SPDX-License-Identifier: MIT */
/* fuzz_request.c - any bytes as a request or a response: no crash, and nothing accepted that lies
 * outside its space */
#include <stdlib.h>
#include <string.h>

#include "common/core/request.h"

#define ARENA (UINT64_C(1) << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_bounds(const struct request *r)
{
    for (unsigned i = 0; i < r->hdr.nbufs; i++) {
        const struct vgpu_buf *b = &r->bufs[i];
        uint64_t space = b->kind == VGPU_BUF_ARENA    ? ARENA
                         : b->dir == VGPU_BUF_OUT     ? VGPU_PAYLOAD_MAX
                         : b->kind == VGPU_BUF_INLINE ? r->hdr.size
                                                      : UINT64_MAX;

        if (b->offset > space || b->length > space - b->offset) {
            abort();
        }
    }
    if (r->body_offset + r->hdr.body_len > r->hdr.size || r->payload_len > VGPU_PAYLOAD_MAX) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct request_limits limits = {.max_size = VGPU_REQ_MAX,
                                    .payload_max = VGPU_PAYLOAD_MAX,
                                    .features = VGPU_FEATURE_OBJECT | VGPU_FEATURE_PROGRAM,
                                    .arena_size = ARENA};
    uint8_t bytes[VGPU_REQ_MAX + 64];
    struct request r;
    struct vgpu_resp_hdr h;
    char why[REQUEST_WHY_MAX];
    uint32_t said = (uint32_t)size;
    uint16_t version = VGPU_REQ_VERSION;

    if (size < sizeof(struct vgpu_req_hdr) || size > sizeof(bytes)) {
        return 0;
    }
    memcpy(bytes, data, size);
    memcpy(bytes, &said, sizeof(said)); /* get past the first checks, which a fuzzer finds slowly */
    memcpy(bytes + 4, &version, sizeof(version));
    if (request_parse(bytes, size, &limits, &r, why) == VGPU_E_OK) {
        check_bounds(&r);
    }
    (void)response_check(bytes, size, request_peek_op(bytes, size), request_peek_tag(bytes, size),
                         VGPU_PAYLOAD_MAX, &h, why);
    return 0;
}

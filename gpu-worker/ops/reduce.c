/* SPDX-License-Identifier: MIT */
/*
 * reduce.c - what REDUCE demands: one number of n elements that lie `stride` apart
 */
#include <stdbool.h>

#include "gpu-worker/ops/check.h"

static uint32_t result_bytes(const struct vgpu_reduce *b)
{
    bool wide = b->kind == VGPU_REDUCE_SUM || b->kind == VGPU_REDUCE_ARGMAX;

    return wide ? 8 : vgpu_dtype_size(b->dtype);
}

uint32_t op_reduce_check(const struct request *r, const void *body, char *why)
{
    const struct vgpu_reduce *b = body;
    uint64_t bytes;
    uint32_t e = check_choice("kind", b->kind, VGPU_REDUCE_ARGMAX, why);

    if (!e) {
        e = check_size("n", b->n, UINT64_MAX, why);
    }
    if (!e) {
        e = check_size("stride", b->stride, UINT64_MAX, why);
    }
    if (!e) {
        e = check_vector_bytes(b->n, b->stride, vgpu_dtype_size(b->dtype), &bytes, why);
    }
    if (!e) {
        e = check_buffers(r, "io", why);
    }
    if (!e) {
        e = check_length(r, 0, bytes, why);
    }
    return e ? e : check_length(r, 1, result_bytes(b), why);
}

/* SPDX-License-Identifier: MIT */
/*
 * sort.c - what SORT demands: n keys, and n values when value_size is not 0
 */
#include "gpu-worker/ops/check.h"

static uint32_t check_value_size(const struct vgpu_sort *b, char *why)
{
    switch (b->value_size) {
    case 0:
    case 1:
    case 2:
    case 4:
    case 8:
        return VGPU_E_OK;
    default:
        return check_fail(VGPU_E_BAD_PARAM, why, "value_size is %u; it must be 0, 1, 2, 4 or 8",
                          b->value_size);
    }
}

/* With n at most OPS_SORT_N_MAX no product overflows. */
static uint32_t check_lengths(const struct request *r, const struct vgpu_sort *b, char *why)
{
    uint64_t key_bytes = b->n * vgpu_dtype_size(b->dtype);
    uint64_t value_bytes = b->n * b->value_size;
    const char *pattern = b->value_size ? "iioo" : "io";
    uint32_t e = check_buffers(r, pattern, why);

    for (uint32_t i = 0; i < r->hdr.nbufs && !e; i++) {
        uint64_t bytes = b->value_size && i % 2 ? value_bytes : key_bytes;
        e = check_length(r, i, bytes, why);
    }
    return e;
}

uint32_t op_sort_check(const struct request *r, const void *body, char *why)
{
    const struct vgpu_sort *b = body;
    uint32_t e = check_choice("descending", b->descending, 1, why);

    if (!e) {
        e = check_value_size(b, why);
    }
    if (!e) {
        e = check_size("n", b->n, OPS_SORT_N_MAX, why);
    }
    return e ? e : check_lengths(r, b, why);
}

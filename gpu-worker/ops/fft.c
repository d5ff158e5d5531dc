/* SPDX-License-Identifier: MIT */
/*
 * fft.c - what FFT demands: `batch` transforms of n0, or n0 x n1, points
 */
#include "gpu-worker/ops/check.h"

static uint32_t check_parameters(const struct vgpu_fft *b, char *why)
{
    uint32_t e = check_choice("kind", b->kind, VGPU_FFT_C2R, why);

    if (!e) {
        e = check_choice("direction", b->direction, VGPU_FFT_INVERSE, why);
    }
    if (!e && (b->rank < 1 || b->rank > 2)) {
        e = check_fail(VGPU_E_BAD_PARAM, why, "rank is %u; it must be 1 or 2", b->rank);
    }
    if (!e && b->kind == VGPU_FFT_R2C && b->direction != VGPU_FFT_FORWARD) {
        e = check_fail(VGPU_E_BAD_PARAM, why, "R2C is a forward transform only");
    }
    if (!e && b->kind == VGPU_FFT_C2R && b->direction != VGPU_FFT_INVERSE) {
        e = check_fail(VGPU_E_BAD_PARAM, why, "C2R is an inverse transform only");
    }
    return e;
}

static uint32_t check_sizes(const struct vgpu_fft *b, char *why)
{
    uint32_t e = check_size("n0", b->n0, OPS_DIM_MAX, why);

    if (!e && b->rank == 2) {
        e = check_size("n1", b->n1, OPS_DIM_MAX, why);
    }
    if (!e && b->rank == 1 && b->n1 != 0) {
        e = check_fail(VGPU_E_BAD_SHAPE, why, "n1 must be 0 for rank 1");
    }
    return e ? e : check_size("batch", b->batch, OPS_DIM_MAX, why);
}

static uint32_t check_lengths(const struct request *r, const struct vgpu_fft *b, char *why)
{
    uint64_t size = vgpu_dtype_size(b->dtype);
    uint64_t rows = b->rank == 2 ? b->n0 : 1;
    uint64_t last = b->rank == 2 ? b->n1 : b->n0;
    uint64_t packed = b->kind == VGPU_FFT_C2C ? last : last / 2 + 1;
    uint64_t complex_bytes, real_bytes;
    uint32_t e =
        check_product((uint64_t[]){b->batch, rows, packed, 2 * size}, 4, &complex_bytes, why);

    if (!e) {
        e = check_product((uint64_t[]){b->batch, rows, last, size}, 4, &real_bytes, why);
    }
    if (!e) {
        e = check_buffers(r, "io", why);
    }
    if (!e) {
        e = check_length(r, 0, b->kind == VGPU_FFT_R2C ? real_bytes : complex_bytes, why);
    }
    return e ? e : check_length(r, 1, b->kind == VGPU_FFT_C2R ? real_bytes : complex_bytes, why);
}

uint32_t op_fft_check(const struct request *r, const void *body, char *why)
{
    const struct vgpu_fft *b = body;
    uint32_t e = check_parameters(b, why);

    if (!e) {
        e = check_sizes(b, why);
    }
    return e ? e : check_lengths(r, b, why);
}

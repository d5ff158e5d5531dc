/* SPDX-License-Identifier: MIT */
/*
 * denoise.c - what DENOISE demands: a tile of an image and the rectangle of it to put out
 */
#include <inttypes.h>
#include <math.h>

#include "gpu-worker/ops/check.h"

static uint32_t check_parameters(const struct vgpu_denoise *b, char *why)
{
    if (b->channels != 1 && b->channels != 3) {
        return check_fail(VGPU_E_BAD_PARAM, why, "channels is %u; it must be 1 or 3", b->channels);
    }
    if (b->patch > OPS_DENOISE_PATCH_MAX) {
        return check_fail(VGPU_E_BAD_PARAM, why, "patch is %u; it must be 0 to %u", b->patch,
                          OPS_DENOISE_PATCH_MAX);
    }
    if (b->search < 1 || b->search > OPS_DENOISE_SEARCH_MAX) {
        return check_fail(VGPU_E_BAD_PARAM, why, "search is %u; it must be 1 to %u", b->search,
                          OPS_DENOISE_SEARCH_MAX);
    }
    if (!isfinite(b->sigma) || b->sigma < 0) {
        return check_fail(VGPU_E_BAD_PARAM, why, "sigma is %g; it must be finite and at least 0",
                          (double)b->sigma);
    }
    if (!isfinite(b->h) || b->h <= 0) {
        return check_fail(VGPU_E_BAD_PARAM, why, "h is %g; it must be finite and more than 0",
                          (double)b->h);
    }
    return VGPU_E_OK;
}

/* The rectangle is not empty and lies inside; sums of two 32-bit numbers fit 64 bits. */
static uint32_t check_rectangle(const struct vgpu_denoise *b, char *why)
{
    uint32_t e = check_size("w", b->w, b->width, why);

    if (!e) {
        e = check_size("h_out", b->h_out, b->height, why);
    }
    if (!e && ((uint64_t)b->x + b->w > b->width || (uint64_t)b->y + b->h_out > b->height)) {
        e = check_fail(VGPU_E_BAD_SHAPE, why,
                       "the rectangle %" PRIu32 "x%" PRIu32 " at (%" PRIu32 ", %" PRIu32
                       ") leaves the input of %" PRIu32 "x%" PRIu32,
                       b->w, b->h_out, b->x, b->y, b->width, b->height);
    }
    return e;
}

static uint32_t check_sizes(const struct vgpu_denoise *b, char *why)
{
    uint32_t sample = b->dtype == VGPU_DTYPE_U8 ? 1 : sizeof(float);
    uint32_t e = check_size("width", b->width, OPS_DENOISE_SIDE_MAX, why);

    if (!e) {
        e = check_size("height", b->height, OPS_DENOISE_SIDE_MAX, why);
    }
    if (!e && (b->stride < b->width * b->channels * sample || b->stride % sample)) {
        e = check_fail(VGPU_E_BAD_SHAPE, why,
                       "stride is %" PRIu32 " bytes; it must be a multiple of %" PRIu32
                       " and at least %" PRIu32,
                       b->stride, sample, b->width * b->channels * sample);
    }
    return e ? e : check_rectangle(b, why);
}

/* With the limits of check_sizes() no product overflows. */
static uint32_t check_lengths(const struct request *r, const struct vgpu_denoise *b, char *why)
{
    uint64_t pixel = (uint64_t)b->channels * vgpu_dtype_size(b->dtype);
    uint64_t most = (uint64_t)b->stride * b->height;
    uint64_t padding = b->stride - b->width * pixel;
    uint32_t e = check_buffers(r, "io", why);

    if (!e) {
        e = check_length_range(r, 0, most - padding, most, why);
    }
    return e ? e : check_length(r, 1, b->w * pixel * b->h_out, why);
}

uint32_t op_denoise_check(const struct request *r, const void *body, char *why)
{
    const struct vgpu_denoise *b = body;
    uint32_t e = check_parameters(b, why);

    if (!e) {
        e = check_sizes(b, why);
    }
    return e ? e : check_lengths(r, b, why);
}

/* SPDX-License-Identifier: MIT */
/*
 * axpy.c - what AXPY demands: z[i] = alpha * x[i * incx] + y[i * incy]
 */
#include "gpu-worker/ops/check.h"

static uint32_t check_sizes(const struct vgpu_axpy *b, char *why)
{
    uint32_t e = check_size("n", b->n, UINT64_MAX, why);

    if (!e) {
        e = check_size("incx", b->incx, UINT64_MAX, why);
    }
    if (!e) {
        e = check_size("incy", b->incy, UINT64_MAX, why);
    }
    return e;
}

uint32_t op_axpy_check(const struct request *r, const void *body, char *why)
{
    const struct vgpu_axpy *b = body;
    uint32_t size = vgpu_dtype_size(b->dtype);
    uint64_t x_bytes, y_bytes, z_bytes;
    uint32_t e = check_sizes(b, why);

    if (!e) {
        e = check_vector_bytes(b->n, b->incx, size, &x_bytes, why);
    }
    if (!e) {
        e = check_vector_bytes(b->n, b->incy, size, &y_bytes, why);
    }
    if (!e) {
        e = check_vector_bytes(b->n, 1, size, &z_bytes, why);
    }
    if (!e) {
        e = check_buffers(r, "iio", why);
    }
    if (!e) {
        e = check_length(r, 0, x_bytes, why);
    }
    if (!e) {
        e = check_length(r, 1, y_bytes, why);
    }
    return e ? e : check_length(r, 2, z_bytes, why);
}

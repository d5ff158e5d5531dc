/* SPDX-License-Identifier: MIT */
/*
 * run_axpy.c - AXPY on the CPU
 *
 * F32 is computed in F64 and rounded once: alpha is not rounded first.
 */
#include "gpu-worker/cpu/cpu.h"
#include "gpu-worker/cpu/simd.h"
#include "gpu-worker/ops/ops.h"

#define AXPY_PIECE (UINT64_C(1) << 20) /* elements between looks at the stop flag */

/* A piece of a job. */
struct axpy {
    double alpha;
    uint64_t n, incx, incy;
    const void *x, *y;
    void *z;
};

SIMD_CLONES static void axpy_f32(const struct axpy *a)
{
    const float *x = a->x, *y = a->y;
    float *z = a->z;

    if (a->incx == 1 && a->incy == 1) {
        for (uint64_t i = 0; i < a->n; i++) {
            z[i] = (float)(a->alpha * x[i] + y[i]);
        }
        return;
    }
    for (uint64_t i = 0; i < a->n; i++) {
        z[i] = (float)(a->alpha * x[i * a->incx] + y[i * a->incy]);
    }
}

SIMD_CLONES static void axpy_f64(const struct axpy *a)
{
    const double *x = a->x, *y = a->y;
    double *z = a->z;

    if (a->incx == 1 && a->incy == 1) {
        for (uint64_t i = 0; i < a->n; i++) {
            z[i] = a->alpha * x[i] + y[i];
        }
        return;
    }
    for (uint64_t i = 0; i < a->n; i++) {
        z[i] = a->alpha * x[i * a->incx] + y[i * a->incy];
    }
}

static struct axpy piece_of(const struct gpu_job *job, uint64_t start)
{
    const struct vgpu_axpy *b = ops_body(job->request);
    uint64_t size = vgpu_dtype_size(b->dtype);
    uint64_t left = b->n - start;

    return (struct axpy){
        .alpha = b->alpha,
        .n = left < AXPY_PIECE ? left : AXPY_PIECE,
        .incx = b->incx,
        .incy = b->incy,
        .x = (const uint8_t *)job->bufs[0].host + start * b->incx * size,
        .y = (const uint8_t *)job->bufs[1].host + start * b->incy * size,
        .z = (uint8_t *)job->bufs[2].host + start * size,
    };
}

uint32_t run_axpy(struct cpu_context *context, const struct gpu_job *job, char *why)
{
    const struct vgpu_axpy *b = ops_body(job->request);

    (void)context, (void)why;
    for (uint64_t start = 0; start < b->n; start += AXPY_PIECE) {
        struct axpy piece = piece_of(job, start);
        uint32_t stop = cpu_stop(job);
        if (stop) {
            return stop;
        }
        if (b->dtype == VGPU_DTYPE_F32) {
            axpy_f32(&piece);
        } else {
            axpy_f64(&piece);
        }
    }
    return VGPU_E_OK;
}

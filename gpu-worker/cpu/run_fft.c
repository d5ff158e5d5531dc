/* SPDX-License-Identifier: MIT */
/*
 * run_fft.c - FFT on the CPU, by FFTW
 *
 * A batch is run in pieces of about FFT_PIECE points, so that it can be stopped and the output of a
 * piece is still in the cache when an inverse is scaled. The 2-D C2R transform of FFTW destroys its
 * input, which belongs to the guest: that one runs in two stages by way of working memory.
 */
#include <stdlib.h>

#include "common/cleanup.h"
#include "gpu-worker/cpu/cpu.h"
#include "gpu-worker/cpu/fft_cache.h"
#include "gpu-worker/cpu/simd.h"
#include "gpu-worker/ops/ops.h"

#define FFT_PIECE (UINT64_C(1) << 16)
#define FFT_ALIGN 64u

struct fft {
    struct cpu_context *context;
    const struct vgpu_fft *body;
    uint64_t points;            /* of one transform */
    uint64_t in_step, out_step; /* bytes from one transform to the next */
    uint64_t reals;             /* of the output of one transform */
    void *work;                 /* 2-D C2R: the spectrum of one transform */
};

SIMD_CLONES static void scale_f32(float *x, uint64_t n, float factor)
{
    for (uint64_t i = 0; i < n; i++) {
        x[i] *= factor;
    }
}

SIMD_CLONES static void scale_f64(double *x, uint64_t n, double factor)
{
    for (uint64_t i = 0; i < n; i++) {
        x[i] *= factor;
    }
}

static void scale(const struct fft *f, void *out, uint64_t count)
{
    if (f->body->direction != VGPU_FFT_INVERSE) {
        return;
    }
    if (f->body->dtype == VGPU_DTYPE_F32) {
        scale_f32(out, count * f->reals, 1.0f / (float)f->points);
    } else {
        scale_f64(out, count * f->reals, 1.0 / (double)f->points);
    }
}

static uint8_t aligned(const void *in, const void *out)
{
    return ((uintptr_t)in | (uintptr_t)out) % FFT_ALIGN == 0;
}

/* Run one stage. Return: 0; -1 when there is no memory for its plan. */
static int run_stage(const struct fft *f, enum fft_stage stage, uint64_t count, void *in, void *out)
{
    struct fft_shape shape = {
        .n0 = f->body->n0,
        .n1 = f->body->n1,
        .count = count,
        .dtype = f->body->dtype,
        .kind = f->body->kind,
        .inverse = f->body->direction == VGPU_FFT_INVERSE,
        .stage = (uint8_t)stage,
        .aligned = aligned(in, out),
    };
    struct fft_plan *plan = fft_cache_get(f->context->ffts, &shape, in, out);

    if (!plan) {
        return -1;
    }
    fft_plan_run(plan, in, out);
    fft_cache_put(f->context->ffts, plan);
    return 0;
}

static int run_piece(const struct fft *f, uint64_t count, void *in, void *out)
{
    int r;

    if (f->work) {
        r = run_stage(f, FFT_STAGE_COLUMNS, 1, in, f->work);
        r = r ? r : run_stage(f, FFT_STAGE_ROWS, 1, f->work, out);
    } else {
        r = run_stage(f, FFT_STAGE_WHOLE, count, in, out);
    }
    if (r == 0) {
        scale(f, out, count);
    }
    return r;
}

static void measure(struct fft *f)
{
    const struct vgpu_fft *b = f->body;
    uint64_t size = vgpu_dtype_size(b->dtype);
    uint64_t rows = b->rank == 2 ? b->n0 : 1;
    uint64_t last = b->rank == 2 ? b->n1 : b->n0;
    uint64_t half = rows * (last / 2 + 1);

    f->points = rows * last;
    f->reals =
        b->kind == VGPU_FFT_C2R ? f->points : 2 * (b->kind == VGPU_FFT_R2C ? half : f->points);
    f->out_step = f->reals * size;
    f->in_step = b->kind == VGPU_FFT_R2C ? f->points * size
                                         : 2 * size * (b->kind == VGPU_FFT_C2R ? half : f->points);
}

/* Transforms per piece: whole pieces share a plan, the rest runs one by one. */
static uint64_t piece_count(const struct fft *f, uint64_t left)
{
    uint64_t count = f->points < FFT_PIECE ? FFT_PIECE / f->points : 1;

    return f->work || left < count ? 1 : count;
}

static uint32_t run_batch(const struct fft *f, const struct gpu_job *job, char *why)
{
    uint8_t *in = job->bufs[0].host, *out = job->bufs[1].host;
    uint64_t left = f->body->batch;

    while (left) {
        uint64_t count = piece_count(f, left);
        uint32_t stop = cpu_stop(job);
        if (stop) {
            return stop;
        }
        if (run_piece(f, count, in, out) != 0) {
            return cpu_no_memory(why, f->in_step);
        }
        in += count * f->in_step;
        out += count * f->out_step;
        left -= count;
    }
    return VGPU_E_OK;
}

uint32_t run_fft(struct cpu_context *context, const struct gpu_job *job, char *why)
{
    struct fft f = {.context = context, .body = ops_body(job->request)};
    CLEANUP(cleanup_free) void *work = NULL;

    measure(&f);
    if (f.body->kind == VGPU_FFT_C2R && f.body->rank == 2) {
        uint64_t bytes = (f.in_step + FFT_ALIGN - 1) / FFT_ALIGN * FFT_ALIGN;
        work = aligned_alloc(FFT_ALIGN, bytes);
        if (!work) {
            return cpu_no_memory(why, bytes);
        }
    }
    f.work = work;
    return run_batch(&f, job, why);
}

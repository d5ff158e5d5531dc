/* SPDX-License-Identifier: MIT */
/*
 * fft_cache.c - see fft_cache.h
 *
 * The plans are in one array; a use stamps a plan with a counter, and the plan with the lowest
 * stamp is replaced. With FFT_CACHE_MAX plans a linear search costs less than any transform.
 */
#include "gpu-worker/cpu/fft_cache.h"

#include <fftw3.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "proto/vgpu_regs.h"

struct fft_plan {
    struct fft_shape shape;
    uint32_t users;
    bool cached; /* false: free it with its last user */
    uint64_t stamp;
    fftw_plan f64; /* one of the two, by shape.dtype */
    fftwf_plan f32;
};

struct fft_cache {
    pthread_mutex_t lock; /* of the cache and of FFTW's planner */
    uint64_t stamp;
    uint32_t count;
    struct fft_plan *plans[FFT_CACHE_MAX];
};

/* The dimensions of a stage for the planner; strides in elements of each side. */
struct dimensions {
    int rank, loops;
    fftw_iodim64 axis[2], loop[2];
};

static uint64_t points_in(const struct fft_shape *s)
{
    uint64_t last = s->n1 ? s->n1 : s->n0;
    uint64_t rows = s->n1 ? s->n0 : 1;

    return rows * (s->kind == VGPU_FFT_C2R ? last / 2 + 1 : last);
}

static uint64_t points_out(const struct fft_shape *s)
{
    uint64_t last = s->n1 ? s->n1 : s->n0;
    uint64_t rows = s->n1 ? s->n0 : 1;

    return rows * (s->kind == VGPU_FFT_R2C ? last / 2 + 1 : last);
}

static fftw_iodim64 dimension(uint64_t n, uint64_t in, uint64_t out)
{
    return (fftw_iodim64){.n = (ptrdiff_t)n, .is = (ptrdiff_t)in, .os = (ptrdiff_t)out};
}

/* All of a transform: the last axis is contiguous, the first one strides over rows. */
static struct dimensions dimensions_whole(const struct fft_shape *s)
{
    struct dimensions d = {.loops = 1};

    d.loop[0] = dimension(s->count, points_in(s), points_out(s));
    if (s->n1) {
        d.axis[d.rank++] = dimension(s->n0, points_in(s) / s->n0, points_out(s) / s->n0);
    }
    d.axis[d.rank++] = dimension(s->n1 ? s->n1 : s->n0, 1, 1);
    return d;
}

/* Complex along n0 for each of the n1 / 2 + 1 columns. */
static struct dimensions dimensions_columns(const struct fft_shape *s)
{
    uint64_t columns = s->n1 / 2 + 1;
    struct dimensions d = {.rank = 1, .loops = 1};

    d.axis[0] = dimension(s->n0, columns, columns);
    d.loop[0] = dimension(columns, 1, 1);
    return d;
}

/* C2R along n1 for each of the n0 rows. */
static struct dimensions dimensions_rows(const struct fft_shape *s)
{
    struct dimensions d = {.rank = 1, .loops = 1};

    d.axis[0] = dimension(s->n1, 1, 1);
    d.loop[0] = dimension(s->n0, s->n1 / 2 + 1, s->n1);
    return d;
}

static struct dimensions dimensions_of(const struct fft_shape *s)
{
    switch (s->stage) {
    case FFT_STAGE_COLUMNS:
        return dimensions_columns(s);
    case FFT_STAGE_ROWS:
        return dimensions_rows(s);
    default:
        return dimensions_whole(s);
    }
}

static unsigned flags_of(const struct fft_shape *s)
{
    unsigned input = s->stage == FFT_STAGE_ROWS ? FFTW_DESTROY_INPUT : FFTW_PRESERVE_INPUT;

    return FFTW_ESTIMATE | input | (s->aligned ? 0 : FFTW_UNALIGNED);
}

/* What the stage does with an axis. */
static uint8_t kind_of(const struct fft_shape *s)
{
    return s->stage == FFT_STAGE_COLUMNS ? VGPU_FFT_C2C : s->kind;
}

static fftw_plan make_f64(const struct fft_shape *s, const struct dimensions *d, void *in,
                          void *out)
{
    switch (kind_of(s)) {
    case VGPU_FFT_R2C:
        return fftw_plan_guru64_dft_r2c(d->rank, d->axis, d->loops, d->loop, in, out, flags_of(s));
    case VGPU_FFT_C2R:
        return fftw_plan_guru64_dft_c2r(d->rank, d->axis, d->loops, d->loop, in, out, flags_of(s));
    default:
        return fftw_plan_guru64_dft(d->rank, d->axis, d->loops, d->loop, in, out,
                                    s->inverse ? FFTW_BACKWARD : FFTW_FORWARD, flags_of(s));
    }
}

/* fftwf_iodim64 and fftw_iodim64 are one type. */
static fftwf_plan make_f32(const struct fft_shape *s, const struct dimensions *d, void *in,
                           void *out)
{
    switch (kind_of(s)) {
    case VGPU_FFT_R2C:
        return fftwf_plan_guru64_dft_r2c(d->rank, d->axis, d->loops, d->loop, in, out, flags_of(s));
    case VGPU_FFT_C2R:
        return fftwf_plan_guru64_dft_c2r(d->rank, d->axis, d->loops, d->loop, in, out, flags_of(s));
    default:
        return fftwf_plan_guru64_dft(d->rank, d->axis, d->loops, d->loop, in, out,
                                     s->inverse ? FFTW_BACKWARD : FFTW_FORWARD, flags_of(s));
    }
}

/* Called with the lock held, like everything below that calls FFTW but fft_plan_run(). */
static void plan_free(struct fft_plan *plan)
{
    if (plan->f64) {
        fftw_destroy_plan(plan->f64);
    }
    if (plan->f32) {
        fftwf_destroy_plan(plan->f32);
    }
    free(plan);
}

static struct fft_plan *plan_new(const struct fft_shape *shape, void *in, void *out)
{
    struct fft_plan *plan = calloc(1, sizeof(*plan));
    struct dimensions d = dimensions_of(shape);

    if (!plan) {
        return NULL;
    }
    plan->shape = *shape;
    if (shape->dtype == VGPU_DTYPE_F64) {
        plan->f64 = make_f64(shape, &d, in, out);
    } else {
        plan->f32 = make_f32(shape, &d, in, out);
    }
    if (!plan->f64 && !plan->f32) {
        free(plan);
        return NULL;
    }
    return plan;
}

struct fft_cache *fft_cache_new(void)
{
    struct fft_cache *cache = calloc(1, sizeof(*cache));

    if (cache) {
        pthread_mutex_init(&cache->lock, NULL);
    }
    return cache;
}

void fft_cache_free(struct fft_cache *cache)
{
    if (!cache) {
        return;
    }
    for (uint32_t i = 0; i < cache->count; i++) {
        plan_free(cache->plans[i]);
    }
    fftw_cleanup();
    fftwf_cleanup();
    pthread_mutex_destroy(&cache->lock);
    free(cache);
}

static struct fft_plan *find(struct fft_cache *cache, const struct fft_shape *shape)
{
    for (uint32_t i = 0; i < cache->count; i++) {
        if (memcmp(&cache->plans[i]->shape, shape, sizeof(*shape)) == 0) {
            return cache->plans[i];
        }
    }
    return NULL;
}

/* Take the least recently used plan out; in use, it is freed by its last user. */
static uint32_t evict(struct fft_cache *cache)
{
    uint32_t oldest = 0;

    for (uint32_t i = 1; i < cache->count; i++) {
        if (cache->plans[i]->stamp < cache->plans[oldest]->stamp) {
            oldest = i;
        }
    }
    cache->plans[oldest]->cached = false;
    if (cache->plans[oldest]->users == 0) {
        plan_free(cache->plans[oldest]);
    }
    return oldest;
}

static void keep(struct fft_cache *cache, struct fft_plan *plan)
{
    uint32_t at = cache->count < FFT_CACHE_MAX ? cache->count++ : evict(cache);

    cache->plans[at] = plan;
    plan->cached = true;
}

struct fft_plan *fft_cache_get(struct fft_cache *cache, const struct fft_shape *shape, void *in,
                               void *out)
{
    pthread_mutex_lock(&cache->lock);
    struct fft_plan *plan = find(cache, shape);
    if (!plan) {
        plan = plan_new(shape, in, out);
        if (plan) {
            keep(cache, plan);
        }
    }
    if (plan) {
        plan->users++;
        plan->stamp = ++cache->stamp;
    }
    pthread_mutex_unlock(&cache->lock);
    return plan;
}

void fft_cache_put(struct fft_cache *cache, struct fft_plan *plan)
{
    pthread_mutex_lock(&cache->lock);
    if (--plan->users == 0 && !plan->cached) {
        plan_free(plan);
    }
    pthread_mutex_unlock(&cache->lock);
}

uint32_t fft_cache_count(struct fft_cache *cache)
{
    pthread_mutex_lock(&cache->lock);
    uint32_t count = cache->count;
    pthread_mutex_unlock(&cache->lock);
    return count;
}

static void run_f64(const struct fft_plan *plan, void *in, void *out)
{
    switch (kind_of(&plan->shape)) {
    case VGPU_FFT_R2C:
        fftw_execute_dft_r2c(plan->f64, in, out);
        break;
    case VGPU_FFT_C2R:
        fftw_execute_dft_c2r(plan->f64, in, out);
        break;
    default:
        fftw_execute_dft(plan->f64, in, out);
    }
}

static void run_f32(const struct fft_plan *plan, void *in, void *out)
{
    switch (kind_of(&plan->shape)) {
    case VGPU_FFT_R2C:
        fftwf_execute_dft_r2c(plan->f32, in, out);
        break;
    case VGPU_FFT_C2R:
        fftwf_execute_dft_c2r(plan->f32, in, out);
        break;
    default:
        fftwf_execute_dft(plan->f32, in, out);
    }
}

void fft_plan_run(const struct fft_plan *plan, void *in, void *out)
{
    if (plan->shape.dtype == VGPU_DTYPE_F64) {
        run_f64(plan, in, out);
    } else {
        run_f32(plan, in, out);
    }
}

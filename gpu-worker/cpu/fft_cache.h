/* SPDX-License-Identifier: MIT */
/*
 * fft_cache - FFTW plans, made once per shape
 *
 * Thread safe. Making a plan is serialised (FFTW's planner has global state), running one is not.
 * At most FFT_CACHE_MAX plans are kept, the least recently used goes first; a plan in use stays
 * until its last user has put it back. Plans are made with FFTW_ESTIMATE: no measuring, and the
 * same plan for the same shape every time.
 */
#ifndef VGPU_WORKER_CPU_FFT_CACHE_H
#define VGPU_WORKER_CPU_FFT_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#define FFT_CACHE_MAX 64u

/* Which stage of a transform a plan is for. */
enum fft_stage {
    FFT_STAGE_WHOLE,   /* the transform as a whole */
    FFT_STAGE_COLUMNS, /* 2-D C2R, first half: complex along n0, into working memory */
    FFT_STAGE_ROWS,    /* 2-D C2R, second half: C2R along n1, destroys the working memory */
};

/* All fields count, none is padding. */
struct fft_shape {
    uint64_t n0, n1; /* n1 0: 1-D */
    uint64_t count;  /* transforms that lie one behind the other */
    uint8_t dtype;   /* VGPU_DTYPE_F32, F64 */
    uint8_t kind;    /* VGPU_FFT_C2C, … */
    uint8_t inverse; /* 0, 1 */
    uint8_t stage;   /* enum fft_stage */
    uint8_t aligned; /* 1: input and output are aligned as FFTW likes it */
    uint8_t unused[3];
};

struct fft_cache;
struct fft_plan;

/** fft_cache_new() - an empty cache; NULL: out of memory */
struct fft_cache *fft_cache_new(void);

/** fft_cache_free() - free a cache of which no plan is in use; NULL is fine */
void fft_cache_free(struct fft_cache *cache);

/**
 * fft_cache_get() - the plan of a shape; put it back with fft_cache_put()
 * @in, @out: memory of that shape, aligned as the shape says; not touched
 *
 * Return: the plan; NULL: out of memory.
 */
struct fft_plan *fft_cache_get(struct fft_cache *cache, const struct fft_shape *shape, void *in,
                               void *out);

/** fft_cache_put() - end the use of a plan */
void fft_cache_put(struct fft_cache *cache, struct fft_plan *plan);

/** fft_cache_count() - plans kept now */
uint32_t fft_cache_count(struct fft_cache *cache);

/** fft_plan_run() - run a plan on memory of its shape and alignment */
void fft_plan_run(const struct fft_plan *plan, void *in, void *out);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * cpu - the CPU backend's own declarations (for the files of this folder only)
 *
 * cpu.c has the threads and the queue; each run_*.c runs one operation, from start to end on one
 * thread, reading inputs from and writing outputs to where they lie.
 */
#ifndef VGPU_WORKER_CPU_H
#define VGPU_WORKER_CPU_H

#include <stdatomic.h>
#include <stdint.h>

#include "gpu-worker/gpu.h"

struct fft_cache;

/* What a run may use besides its job. */
struct cpu_context {
    struct fft_cache *ffts;
};

/* Runs a job. @why: GPU_WHY_MAX bytes, for a sentence on an error. Return: enum vgpu_error. */
typedef uint32_t (*cpu_run)(struct cpu_context *context, const struct gpu_job *job, char *why);

/* One operation of this backend. */
struct cpu_op {
    uint16_t number; /* enum vgpu_op */
    uint64_t dtypes; /* bit n: for dtype n; 0 for an op without dtypes */
    cpu_run run;
    uint32_t tiny_bytes; /* a job with at most these bytes takes less than handing it to a thread */
};

/** cpu_op_find() - the row of op @number in the table of cpu_ops.c; NULL when there is none */
const struct cpu_op *cpu_op_find(uint32_t number);

/** cpu_op_at() - row @index of the table; NULL past its end */
const struct cpu_op *cpu_op_at(size_t index);

/**
 * cpu_stop() - whether the job is to end early; an op asks between pieces of about 1 ms
 *
 * Return: the error to end with; 0: go on.
 */
static inline uint32_t cpu_stop(const struct gpu_job *job)
{
    return atomic_load_explicit(&job->stop, memory_order_relaxed);
}

/**
 * cpu_no_memory() - say that working memory could not be had
 *
 * Return: VGPU_E_NO_MEMORY.
 */
uint32_t cpu_no_memory(char *why, uint64_t bytes);

/* The rows of the table. */
uint32_t run_echo(struct cpu_context *context, const struct gpu_job *job, char *why);
uint32_t run_axpy(struct cpu_context *context, const struct gpu_job *job, char *why);
uint32_t run_reduce(struct cpu_context *context, const struct gpu_job *job, char *why);
uint32_t run_gemm(struct cpu_context *context, const struct gpu_job *job, char *why);
uint32_t run_fft(struct cpu_context *context, const struct gpu_job *job, char *why);
uint32_t run_sort(struct cpu_context *context, const struct gpu_job *job, char *why);
uint32_t run_denoise(struct cpu_context *context, const struct gpu_job *job, char *why);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * cpu_ops.c - the operations of the CPU backend
 *
 * What an op demands of a request is in ops/; the dtypes here are those of it that the CPU offers.
 */
#include <inttypes.h>
#include <stdio.h>

#include "gpu-worker/cpu/cpu.h"

#define BIT(dtype) (UINT64_C(1) << VGPU_DTYPE_##dtype)
#define FLOATS (BIT(F32) | BIT(F64))
#define TINY 8192u
#define SMALL (BIT(U8) | BIT(I8) | BIT(U32) | BIT(I32))

static const struct cpu_op cpu_ops[] = {
    {VGPU_OP_ECHO, 0, run_echo, TINY},
    {VGPU_OP_AXPY, FLOATS, run_axpy, TINY},
    {VGPU_OP_REDUCE, FLOATS | SMALL, run_reduce, TINY},
    {VGPU_OP_GEMM, FLOATS, run_gemm, 0},
    {VGPU_OP_FFT, FLOATS, run_fft, 0},
    {VGPU_OP_SORT, FLOATS | SMALL | BIT(U64) | BIT(I64), run_sort, 0},
    {VGPU_OP_DENOISE, BIT(F32) | BIT(U8), run_denoise, 0},
};

const struct cpu_op *cpu_op_at(size_t index)
{
    return index < sizeof(cpu_ops) / sizeof(cpu_ops[0]) ? &cpu_ops[index] : NULL;
}

const struct cpu_op *cpu_op_find(uint32_t number)
{
    for (size_t i = 0; cpu_op_at(i); i++) {
        if (cpu_ops[i].number == number) {
            return &cpu_ops[i];
        }
    }
    return NULL;
}

uint32_t cpu_no_memory(char *why, uint64_t bytes)
{
    snprintf(why, GPU_WHY_MAX, "%" PRIu64 " bytes of working memory could not be had", bytes);
    return VGPU_E_NO_MEMORY;
}

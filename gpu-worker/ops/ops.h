/* SPDX-License-Identifier: MIT */
/*
 * ops - what the operations demand of a request
 *
 * Pure: looks at a parsed request (common/core/request.h) and nothing else, so that every backend
 * and every test uses the same rules. One file per op; the table is in ops.c. docs/ops.md says the
 * same in prose.
 *
 * A request is checked in this order, and the first thing that is wrong is its error:
 *   1. the op is known here                             UNSUPPORTED
 *   2. body length                                      BAD_LENGTH
 *   3. reserved fields of the body                      RESERVED_SET
 *   4. data type                                        BAD_DTYPE
 *   5. parameters                                       BAD_PARAM
 *   6. sizes and strides: zero, out of limits           BAD_SHAPE
 *   7. products of sizes                                OVERFLOW
 *   8. number and directions of buffers                 BAD_BUFFER
 *   9. lengths of buffers                               BAD_SHAPE
 */
#ifndef VGPU_WORKER_OPS_H
#define VGPU_WORKER_OPS_H

#include <stddef.h>
#include <stdint.h>

#include "common/core/request.h"

#define OPS_BIT(n) (UINT64_C(1) << (n))
#define OPS_SORT_N_MAX UINT32_MAX /* most elements of one SORT */
#define OPS_DIM_MAX INT32_MAX     /* largest GEMM and FFT dimension, GEMM row stride, FFT batch */
#define OPS_DENOISE_PATCH_MAX 8u
#define OPS_DENOISE_SEARCH_MAX 32u
#define OPS_DENOISE_SIDE_MAX 65535u

#define OPS_RESERVED 2u /* most reserved fields of a body */

/* What is true of every request of an op. */
struct op {
    uint16_t number;     /* enum vgpu_op */
    uint16_t body_bytes; /* exact length of the body */
    struct {
        uint8_t offset, bytes;
    } reserved[OPS_RESERVED]; /* fields of the body that must be zero */
    uint64_t dtypes; /* bit n: defined for dtype n, the body's first byte; 0: it has none */
    /* Steps 5 to 9. @body: the op's struct of vgpu_regs.h, aligned to 8. */
    uint32_t (*check)(const struct request *r, const void *body, char *why);
};

/** ops_find() - the descriptor of op @number; NULL when there is none */
const struct op *ops_find(uint32_t number);

/**
 * ops_check() - whether a request that request_parse() accepted can be run
 * @r:   the request; its bytes are aligned to 8
 * @why: REQUEST_WHY_MAX bytes for a sentence; written only on an error
 *
 * Return: enum vgpu_error.
 */
uint32_t ops_check(const struct request *r, char *why);

/** ops_body() - the op body of a request, aligned to 8 when its bytes are */
const void *ops_body(const struct request *r);

/** ops_dtype() - the data type of a request that ops_check() accepted; 0 when its op has none */
uint32_t ops_dtype(const struct request *r);

/* The rows of the table. */
uint32_t op_echo_check(const struct request *r, const void *body, char *why);
uint32_t op_axpy_check(const struct request *r, const void *body, char *why);
uint32_t op_reduce_check(const struct request *r, const void *body, char *why);
uint32_t op_gemm_check(const struct request *r, const void *body, char *why);
uint32_t op_fft_check(const struct request *r, const void *body, char *why);
uint32_t op_sort_check(const struct request *r, const void *body, char *why);
uint32_t op_denoise_check(const struct request *r, const void *body, char *why);

#endif

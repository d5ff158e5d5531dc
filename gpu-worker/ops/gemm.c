/* SPDX-License-Identifier: MIT */
/*
 * gemm.c - what GEMM demands: D = alpha * op(A) * op(B) + beta * C, row major
 *
 * A matrix that is stored with a row stride may end with its last element or with the padding of
 * its last row.
 */
#include <inttypes.h>

#include "gpu-worker/ops/check.h"

#define GEMM_MATRICES 4u /* A, B, C, D */

/* A matrix as it is stored. */
struct stored {
    uint64_t rows, cols, stride;
};

static uint32_t check_parameters(const struct vgpu_gemm *b, char *why)
{
    uint32_t e = check_choice("trans_a", b->trans_a, 1, why);

    if (!e) {
        e = check_choice("trans_b", b->trans_b, 1, why);
    }
    if (!e) {
        e = check_choice("math", b->math, VGPU_MATH_TF32, why);
    }
    if (!e && b->math == VGPU_MATH_TF32 && b->dtype != VGPU_DTYPE_F32) {
        e = check_fail(VGPU_E_BAD_PARAM, why, "math TF32 is for data type F32 only");
    }
    return e;
}

static uint32_t check_sizes(const struct vgpu_gemm *b, char *why)
{
    uint32_t e = check_size("m", b->m, OPS_DIM_MAX, why);

    if (!e) {
        e = check_size("n", b->n, OPS_DIM_MAX, why);
    }
    return e ? e : check_size("k", b->k, OPS_DIM_MAX, why);
}

static uint32_t check_stride(char matrix, const struct stored *s, char *why)
{
    if (s->stride < s->cols || s->stride > OPS_DIM_MAX) {
        return check_fail(VGPU_E_BAD_SHAPE, why,
                          "ld%c is %" PRIu64 "; it must be %" PRIu64 " to %" PRIu64, matrix,
                          s->stride, s->cols, (uint64_t)OPS_DIM_MAX);
    }
    return VGPU_E_OK;
}

/* The matrices in the order of their buffers; D comes last. Return: how many. */
static unsigned list_matrices(const struct vgpu_gemm *b, struct stored *m)
{
    unsigned count = 0;

    m[count++] = (struct stored){b->trans_a ? b->k : b->m, b->trans_a ? b->m : b->k, b->lda};
    m[count++] = (struct stored){b->trans_b ? b->n : b->k, b->trans_b ? b->k : b->n, b->ldb};
    if (b->beta != 0) {
        m[count++] = (struct stored){b->m, b->n, b->ldc};
    }
    m[count++] = (struct stored){b->m, b->n, b->n};
    return count;
}

static uint32_t check_strides(const struct vgpu_gemm *b, const struct stored *m, unsigned inputs,
                              char *why)
{
    if (inputs == 2 && b->ldc != 0) {
        return check_fail(VGPU_E_BAD_SHAPE, why,
                          "ldc is %" PRIu64 "; it must be 0 when beta is 0: there is no C", b->ldc);
    }
    for (unsigned i = 0; i < inputs; i++) {
        uint32_t e = check_stride("abc"[i], &m[i], why);
        if (e) {
            return e;
        }
    }
    return VGPU_E_OK;
}

static uint32_t check_lengths(const struct request *r, const struct stored *m, unsigned count,
                              uint32_t element_bytes, char *why)
{
    uint64_t bytes[GEMM_MATRICES];
    uint32_t e = VGPU_E_OK;

    for (unsigned i = 0; i < count && !e; i++) {
        e = check_product((uint64_t[]){m[i].rows, m[i].stride, element_bytes}, 3, &bytes[i], why);
    }
    if (!e) {
        e = check_buffers(r, count == GEMM_MATRICES ? "iiio" : "iio", why);
    }
    for (unsigned i = 0; i < count && !e; i++) {
        uint64_t padding = (m[i].stride - m[i].cols) * element_bytes;
        e = check_length_range(r, i, bytes[i] - padding, bytes[i], why);
    }
    return e;
}

uint32_t op_gemm_check(const struct request *r, const void *body, char *why)
{
    const struct vgpu_gemm *b = body;
    struct stored m[GEMM_MATRICES];
    uint32_t e = check_parameters(b, why);

    if (!e) {
        e = check_sizes(b, why);
    }
    if (e) {
        return e;
    }
    unsigned count = list_matrices(b, m);
    e = check_strides(b, m, count - 1, why);
    return e ? e : check_lengths(r, m, count, vgpu_dtype_size(b->dtype), why);
}

/* SPDX-License-Identifier: MIT */
/*
 * run_reduce.c - REDUCE on the CPU
 *
 * A vector is reduced in pieces, each in LANES partial results that the compiler keeps in vector
 * registers. Float sums are accumulated in F64, one sum per lane and piece, then over the pieces:
 * the error grows with the length of a piece plus the number of pieces, not with their product.
 *
 * NaN: sums carry it by themselves. A minimum or maximum of a piece is NaN when the piece has one,
 * and NaN wins over every number when pieces are joined. ARGMAX takes the first NaN.
 *
 * The element types differ only in their types: REDUCE_TYPE() makes the functions of one.
 */
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "gpu-worker/cpu/cpu.h"
#include "gpu-worker/cpu/simd.h"
#include "gpu-worker/ops/ops.h"

#define LANES 32u
#define REDUCE_PIECE (UINT64_C(1) << 16) /* elements between looks at the stop flag */

/* The result so far. Which member counts depends on kind and type. */
union result {
    double f64;
    uint64_t u64;
    float f32;
    uint8_t u8;
    int8_t i8;
    uint32_t u32;
    int32_t i32;
    uint8_t bytes[8];
};

/* The reduction of a vector, piece by piece. */
struct reduction {
    const uint8_t *at;   /* the piece */
    uint64_t n;          /* elements of it */
    uint64_t stride;     /* elements */
    uint64_t first;      /* index of its first element in the vector */
    uint8_t kind;        /* VGPU_REDUCE_* */
    union result result; /* of all pieces before; valid when first > 0, SUM: always */
    union result best;   /* ARGMAX: the element at the index in `result` */
};

typedef void (*reduce_piece)(struct reduction *r);

/* clang-format off */
#define REDUCE_TYPE(name, type, wide, wide_member)                                                 \
    SIMD_BODY void sum_strided_##name(struct reduction *r, uint64_t stride)                        \
    {                                                                                              \
        const type *x = (const type *)(const void *)r->at;                                         \
        wide lane[LANES] = {0}, total = 0;                                                         \
        uint64_t i = 0;                                                                            \
        for (; i + LANES <= r->n; i += LANES) {                                                    \
            for (unsigned j = 0; j < LANES; j++) {                                                 \
                lane[j] += (wide)x[(i + j) * stride];                                              \
            }                                                                                      \
        }                                                                                          \
        for (; i < r->n; i++) {                                                                    \
            lane[i % LANES] += (wide)x[i * stride];                                                \
        }                                                                                          \
        for (unsigned j = 0; j < LANES; j++) {                                                     \
            total += lane[j];                                                                      \
        }                                                                                          \
        r->result.wide_member += total;                                                            \
    }                                                                                              \
    SIMD_CLONES static void sum_##name(struct reduction *r)                                        \
    {                                                                                              \
        if (r->stride == 1) {                                                                      \
            sum_strided_##name(r, 1);                                                              \
        } else {                                                                                   \
            sum_strided_##name(r, r->stride);                                                      \
        }                                                                                          \
    }                                                                                              \
    /* The least (sign 1) or largest; a NaN if there is one. */                                    \
    SIMD_BODY type extreme_##name(const type *x, uint64_t n, uint64_t stride, bool least)          \
    {                                                                                              \
        type lane[LANES], best;                                                                    \
        uint64_t i = 0;                                                                            \
        for (unsigned j = 0; j < LANES; j++) {                                                     \
            lane[j] = x[0];                                                                        \
        }                                                                                          \
        for (; i + LANES <= n; i += LANES) {                                                       \
            for (unsigned j = 0; j < LANES; j++) {                                                 \
                type v = x[(i + j) * stride];                                                      \
                bool keep = least ? lane[j] <= v : lane[j] >= v;                                   \
                keep |= lane[j] != lane[j];                                                        \
                lane[j] = keep ? lane[j] : v;                                                      \
            }                                                                                      \
        }                                                                                          \
        best = lane[0];                                                                            \
        for (unsigned j = 1; j < LANES; j++) {                                                     \
            bool keep = (least ? best <= lane[j] : best >= lane[j]) || best != best;               \
            best = keep ? best : lane[j];                                                          \
        }                                                                                          \
        for (; i < n; i++) {                                                                       \
            type v = x[i * stride];                                                                \
            bool keep = (least ? best <= v : best >= v) || best != best;                           \
            best = keep ? best : v;                                                                \
        }                                                                                          \
        return best;                                                                               \
    }                                                                                              \
    SIMD_BODY type extreme_of_##name(const struct reduction *r)                                    \
    {                                                                                              \
        const type *x = (const type *)(const void *)r->at;                                         \
        bool least = r->kind == VGPU_REDUCE_MIN;                                                   \
        if (r->stride == 1) {                                                                      \
            return least ? extreme_##name(x, r->n, 1, true) : extreme_##name(x, r->n, 1, false);   \
        }                                                                                          \
        return extreme_##name(x, r->n, r->stride, least);                                          \
    }                                                                                              \
    SIMD_CLONES static void join_##name(struct reduction *r)                                       \
    {                                                                                              \
        type best = extreme_of_##name(r), old = r->result.name;                                    \
        bool least = r->kind == VGPU_REDUCE_MIN;                                                   \
        bool keep = (least ? old <= best : old >= best) || old != old;                             \
        r->result.name = r->first && keep ? old : best;                                            \
    }                                                                                              \
    SIMD_CLONES static void argmax_##name(struct reduction *r)                                     \
    {                                                                                              \
        const type *x = (const type *)(const void *)r->at;                                         \
        type best = extreme_of_##name(r), old = r->best.name;                                      \
        if (r->first && (old >= best || old != old)) {                                             \
            return;                                                                                \
        }                                                                                          \
        uint64_t i = 0;                                                                            \
        while (i + 1 < r->n && x[i * r->stride] != best &&                                         \
               (best == best || x[i * r->stride] == x[i * r->stride])) {                           \
            i++;                                                                                   \
        }                                                                                          \
        r->best.name = best;                                                                       \
        r->result.u64 = r->first + i;                                                              \
    }

REDUCE_TYPE(f32, float, double, f64)
REDUCE_TYPE(f64, double, double, f64)
REDUCE_TYPE(u8, uint8_t, uint64_t, u64)
REDUCE_TYPE(i8, int8_t, uint64_t, u64)
REDUCE_TYPE(u32, uint32_t, uint64_t, u64)
REDUCE_TYPE(i32, int32_t, uint64_t, u64)

/* By type; SUM, then MIN and MAX, then ARGMAX. Signed sums are modulo 2^64 too: the same bits. */
static const struct reduce_type {
    uint8_t dtype;
    reduce_piece sum, join, argmax;
} reduce_types[] = {
    {VGPU_DTYPE_F32, sum_f32, join_f32, argmax_f32},
    {VGPU_DTYPE_F64, sum_f64, join_f64, argmax_f64},
    {VGPU_DTYPE_U8,  sum_u8,  join_u8,  argmax_u8},
    {VGPU_DTYPE_I8,  sum_i8,  join_i8,  argmax_i8},
    {VGPU_DTYPE_U32, sum_u32, join_u32, argmax_u32},
    {VGPU_DTYPE_I32, sum_i32, join_i32, argmax_i32},
};
/* clang-format on */

static reduce_piece find_piece(const struct vgpu_reduce *b)
{
    const struct reduce_type *t = reduce_types;

    while (t->dtype != b->dtype) {
        t++;
    }
    switch (b->kind) {
    case VGPU_REDUCE_SUM:
        return t->sum;
    case VGPU_REDUCE_ARGMAX:
        return t->argmax;
    default:
        return t->join;
    }
}

uint32_t run_reduce(struct cpu_context *context, const struct gpu_job *job, char *why)
{
    const struct vgpu_reduce *b = ops_body(job->request);
    reduce_piece reduce = find_piece(b);
    struct reduction r = {.stride = b->stride, .kind = b->kind};
    uint64_t step = REDUCE_PIECE * b->stride * vgpu_dtype_size(b->dtype);

    (void)context, (void)why;
    r.at = job->bufs[0].host;
    for (; r.first < b->n; r.first += REDUCE_PIECE, r.at += step) {
        uint32_t stop = cpu_stop(job);
        if (stop) {
            return stop;
        }
        r.n = b->n - r.first < REDUCE_PIECE ? b->n - r.first : REDUCE_PIECE;
        reduce(&r);
    }
    memcpy(job->bufs[1].host, r.result.bytes, job->bufs[1].length);
    return VGPU_E_OK;
}

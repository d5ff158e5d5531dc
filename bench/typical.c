/* SPDX-License-Identifier: MIT */
/* See typical.h. */
#include <stddef.h>
#include <string.h>

#include "bench/typical.h"

#define MIB(n) ((uint64_t)(n) << 20)
#define AXPY_N (UINT64_C(4) << 20)
#define REDUCE_N (UINT64_C(16) << 20)
#define GEMM_N 1024
#define FFT_N (1 << 20)
#define SORT_N (1 << 20)
#define SIDE 256

static const struct vgpu_axpy axpy = {
    .dtype = VGPU_DTYPE_F32, .alpha = 2, .n = AXPY_N, .incx = 1, .incy = 1};
static const struct vgpu_reduce reduce = {
    .dtype = VGPU_DTYPE_F32, .kind = VGPU_REDUCE_SUM, .n = REDUCE_N, .stride = 1};
static const struct vgpu_gemm gemm = {
    .dtype = VGPU_DTYPE_F32,
    .m = GEMM_N,
    .n = GEMM_N,
    .k = GEMM_N,
    .lda = GEMM_N,
    .ldb = GEMM_N,
    .alpha = 1,
};
static const struct vgpu_fft fft = {
    .dtype = VGPU_DTYPE_F32, .kind = VGPU_FFT_C2C, .rank = 1, .n0 = FFT_N, .batch = 1};
static const struct vgpu_sort sort = {.dtype = VGPU_DTYPE_F32, .n = SORT_N};
static const struct vgpu_denoise denoise = {
    .dtype = VGPU_DTYPE_U8,
    .channels = 3,
    .patch = 2,
    .search = 7,
    .sigma = 10,
    .h = 8,
    .width = SIDE,
    .height = SIDE,
    .stride = SIDE * 3,
    .w = SIDE,
    .h_out = SIDE,
};

#define IN VGPU_BUF_IN
#define OUT VGPU_BUF_OUT

/* clang-format off */
static const struct typical ops[] = {
    { "echo", "16 MiB", VGPU_OP_ECHO, 2, { IN, OUT },
      { MIB(16), MIB(16) }, { 0, MIB(16) }, NULL, 0 },
    { "axpy", "f32, 4 Mi elements", VGPU_OP_AXPY, 3, { IN, IN, OUT },
      { AXPY_N * 4, AXPY_N * 4, AXPY_N * 4 }, { 0, MIB(16), MIB(32) }, &axpy, sizeof(axpy) },
    { "reduce", "f32 sum, 16 Mi elements", VGPU_OP_REDUCE, 2, { IN, OUT },
      { REDUCE_N * 4, 8 }, { 0, MIB(64) }, &reduce, sizeof(reduce) },
    { "gemm", "f32, 1024 x 1024 x 1024", VGPU_OP_GEMM, 3, { IN, IN, OUT },
      { GEMM_N * GEMM_N * 4, GEMM_N * GEMM_N * 4, GEMM_N * GEMM_N * 4 }, { 0, MIB(4), MIB(8) },
      &gemm, sizeof(gemm) },
    { "fft", "f32 c2c, 1 Mi points", VGPU_OP_FFT, 2, { IN, OUT },
      { FFT_N * 8, FFT_N * 8 }, { 0, MIB(8) }, &fft, sizeof(fft) },
    { "sort", "f32 keys, 1 Mi", VGPU_OP_SORT, 2, { IN, OUT },
      { SORT_N * 4, SORT_N * 4 }, { 0, MIB(4) }, &sort, sizeof(sort) },
    { "denoise", "u8 x 3, 256 x 256, patch 2, search 7", VGPU_OP_DENOISE, 2, { IN, OUT },
      { SIDE * SIDE * 3, SIDE * SIDE * 3 }, { 0, MIB(1) }, &denoise, sizeof(denoise) },
};
/* clang-format on */

const struct typical *typical_find(const char *name)
{
    for (unsigned i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
        if (strcmp(ops[i].name, name) == 0) {
            return &ops[i];
        }
    }
    return NULL;
}

void typical_fill(const struct typical *op, uint8_t *arena)
{
    uint32_t seed = 2463534242u;

    for (unsigned b = 0; b < op->nbufs; b++) {
        uint8_t *p = arena + op->offsets[b];

        for (uint64_t at = 0; op->dirs[b] == IN && at + 4 <= op->lengths[b]; at += 4) {
            float value;

            seed ^= seed << 13;
            seed ^= seed >> 17;
            seed ^= seed << 5;
            value = (float)(seed >> 8) / 16777216.0f;
            memcpy(p + at, op->op == VGPU_OP_DENOISE ? (void *)&seed : (void *)&value, 4);
        }
    }
}

uint32_t typical_request(const struct typical *op, uint64_t tag, uint8_t *ret)
{
    struct vgpu_req_hdr h = {
        .version = VGPU_REQ_VERSION,
        .op = op->op,
        .tag = tag,
        .band = VGPU_BAND_DEFAULT,
        .nbufs = op->nbufs,
        .body_len = op->body_len,
    };
    uint32_t at = sizeof(h);

    h.size = (uint32_t)(sizeof(h) + op->nbufs * sizeof(struct vgpu_buf) + op->body_len);
    memcpy(ret, &h, sizeof(h));
    for (unsigned i = 0; i < op->nbufs; i++, at += sizeof(struct vgpu_buf)) {
        struct vgpu_buf b = {
            .kind = VGPU_BUF_ARENA,
            .dir = op->dirs[i],
            .offset = op->offsets[i],
            .length = op->lengths[i],
        };

        memcpy(ret + at, &b, sizeof(b));
    }
    if (op->body_len) {
        memcpy(ret + at, op->body, op->body_len);
    }
    return h.size;
}

uint32_t typical_echo(uint32_t bytes, uint8_t *ret)
{
    struct vgpu_req_hdr h = {
        .version = VGPU_REQ_VERSION, .op = VGPU_OP_ECHO, .band = VGPU_BAND_DEFAULT, .nbufs = 2};
    struct vgpu_buf bufs[2] = {
        {.kind = VGPU_BUF_INLINE, .dir = VGPU_BUF_IN, .length = bytes},
        {.kind = VGPU_BUF_INLINE, .dir = VGPU_BUF_OUT, .length = bytes},
    };
    uint32_t at = sizeof(h) + sizeof(bufs);

    bufs[0].offset = at;
    h.size = at + bytes;
    memcpy(ret, &h, sizeof(h));
    memcpy(ret + sizeof(h), bufs, sizeof(bufs));
    for (uint32_t i = 0; i < bytes; i++) {
        ret[at + i] = (uint8_t)(i * 7 + 1);
    }
    return h.size;
}

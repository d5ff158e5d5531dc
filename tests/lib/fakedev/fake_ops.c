/* SPDX-License-Identifier: MIT */
/* fake_ops.c - the operations in their plainest form, straight from proto/vgpu_regs.h */
#include <complex.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/core/request.h"
#include "tests/lib/fakedev/fake.h"

struct args {
    const struct request *r;
    const void *body;
    uint8_t *buf[VGPU_BUFS_MAX];
};

static double number(const uint8_t *p, unsigned dtype, uint64_t i)
{
    p += i * vgpu_dtype_size(dtype);
    switch (dtype) {
    case VGPU_DTYPE_F32:
        return *(const float *)p;
    case VGPU_DTYPE_F64:
        return *(const double *)p;
    case VGPU_DTYPE_U8:
        return *p;
    case VGPU_DTYPE_I8:
        return *(const int8_t *)p;
    case VGPU_DTYPE_U32:
        return *(const uint32_t *)p;
    case VGPU_DTYPE_I32:
        return *(const int32_t *)p;
    case VGPU_DTYPE_U64:
        return (double)*(const uint64_t *)p;
    default:
        return (double)*(const int64_t *)p;
    }
}

static void put(uint8_t *p, unsigned dtype, uint64_t i, double v)
{
    p += i * vgpu_dtype_size(dtype);
    switch (dtype) {
    case VGPU_DTYPE_F32:
        *(float *)p = (float)v;
        break;
    case VGPU_DTYPE_F64:
        *(double *)p = v;
        break;
    case VGPU_DTYPE_U8:
        *p = (uint8_t)v;
        break;
    case VGPU_DTYPE_I8:
        *(int8_t *)p = (int8_t)v;
        break;
    case VGPU_DTYPE_U32:
        *(uint32_t *)p = (uint32_t)v;
        break;
    case VGPU_DTYPE_I32:
        *(int32_t *)p = (int32_t)v;
        break;
    case VGPU_DTYPE_U64:
        *(uint64_t *)p = (uint64_t)v;
        break;
    default:
        *(int64_t *)p = (int64_t)v;
        break;
    }
}

static bool have(const struct args *a, unsigned i, uint64_t bytes)
{
    return i < a->r->hdr.nbufs && a->r->bufs[i].length == bytes;
}

static uint32_t run_echo(struct args *a)
{
    if (a->r->hdr.nbufs != 2 || !have(a, 1, a->r->bufs[0].length)) {
        return VGPU_E_BAD_SHAPE;
    }
    memcpy(a->buf[1], a->buf[0], a->r->bufs[0].length);
    return 0;
}

static uint32_t run_axpy(struct args *a)
{
    const struct vgpu_axpy *o = a->body;
    uint64_t e = vgpu_dtype_size(o->dtype);

    if (!have(a, 0, ((o->n - 1) * o->incx + 1) * e) ||
        !have(a, 1, ((o->n - 1) * o->incy + 1) * e) || !have(a, 2, o->n * e)) {
        return VGPU_E_BAD_SHAPE;
    }
    for (uint64_t i = 0; i < o->n; i++) {
        put(a->buf[2], o->dtype, i,
            o->alpha * number(a->buf[0], o->dtype, i * o->incx) +
                number(a->buf[1], o->dtype, i * o->incy));
    }
    return 0;
}

static uint32_t run_reduce(struct args *a)
{
    const struct vgpu_reduce *o = a->body;
    unsigned result = vgpu_reduce_dtype(o);
    double best = number(a->buf[0], o->dtype, 0), sum = 0;
    uint64_t at = 0;

    if (!have(a, 0, ((o->n - 1) * o->stride + 1) * vgpu_dtype_size(o->dtype)) ||
        !have(a, 1, vgpu_dtype_size(result))) {
        return VGPU_E_BAD_SHAPE;
    }
    for (uint64_t i = 0; i < o->n; i++) {
        double v = number(a->buf[0], o->dtype, i * o->stride);

        sum += v;
        if (o->kind == VGPU_REDUCE_MIN ? v < best : v > best) {
            best = v;
            at = i;
        }
    }
    put(a->buf[1], result, 0,
        o->kind == VGPU_REDUCE_SUM      ? sum
        : o->kind == VGPU_REDUCE_ARGMAX ? (double)at
                                        : best);
    return 0;
}

static uint32_t run_gemm(struct args *a)
{
    const struct vgpu_gemm *o = a->body;
    unsigned d = o->beta != 0 ? 3 : 2;

    if (!have(a, d, o->m * o->n * vgpu_dtype_size(o->dtype))) {
        return VGPU_E_BAD_SHAPE;
    }
    for (uint64_t i = 0; i < o->m; i++) {
        for (uint64_t j = 0; j < o->n; j++) {
            double s = 0;

            for (uint64_t k = 0; k < o->k; k++) {
                s += number(a->buf[0], o->dtype, o->trans_a ? k * o->lda + i : i * o->lda + k) *
                     number(a->buf[1], o->dtype, o->trans_b ? j * o->ldb + k : k * o->ldb + j);
            }
            s *= o->alpha;
            if (o->beta != 0) {
                s += o->beta * number(a->buf[2], o->dtype, i * o->ldc + j);
            }
            put(a->buf[d], o->dtype, i * o->n + j, s);
        }
    }
    return 0;
}

/* Element k of a (half or whole) spectrum or signal with n1 columns. */
static double complex element(const struct vgpu_fft *o, const uint8_t *in, uint64_t base,
                              uint64_t i, uint64_t j, uint64_t n1)
{
    uint64_t half = n1 / 2 + 1, rows = o->rank == 2 ? o->n0 : 1;

    if (o->kind == VGPU_FFT_R2C) {
        return number(in, o->dtype, base + i * n1 + j);
    }
    if (o->kind == VGPU_FFT_C2R) {
        bool mirrored = j >= half;
        uint64_t row = mirrored ? (rows - i) % rows : i;
        uint64_t at = base + row * half + (mirrored ? n1 - j : j);
        double im = number(in, o->dtype, 2 * at + 1);

        return number(in, o->dtype, 2 * at) + I * (mirrored ? -im : im);
    }
    return number(in, o->dtype, 2 * (base + i * n1 + j)) +
           I * number(in, o->dtype, 2 * (base + i * n1 + j) + 1);
}

static double complex dft_at(const struct vgpu_fft *o, const uint8_t *in, uint64_t base, uint64_t u,
                             uint64_t v, uint64_t n0, uint64_t n1)
{
    double sign = o->direction == VGPU_FFT_FORWARD ? -2 * M_PI : 2 * M_PI;
    double complex sum = 0;

    for (uint64_t i = 0; i < n0; i++) {
        for (uint64_t j = 0; j < n1; j++) {
            sum += element(o, in, base, i, j, n1) *
                   cexp(I * sign * ((double)(u * i) / (double)n0 + (double)(v * j) / (double)n1));
        }
    }
    return o->direction == VGPU_FFT_FORWARD ? sum : sum / (double)(n0 * n1);
}

static uint32_t run_fft(struct args *a)
{
    const struct vgpu_fft *o = a->body;
    uint64_t n0 = o->rank == 2 ? o->n0 : 1, n1 = o->rank == 2 ? o->n1 : o->n0;
    uint64_t in_columns = o->kind == VGPU_FFT_C2R ? n1 / 2 + 1 : n1;
    uint64_t out_columns = o->kind == VGPU_FFT_R2C ? n1 / 2 + 1 : n1;
    uint64_t in_bytes, out_bytes;

    if (vgpu_fft_bytes(o, &in_bytes, &out_bytes) || !have(a, 0, in_bytes) ||
        !have(a, 1, out_bytes)) {
        return VGPU_E_BAD_SHAPE;
    }
    for (uint64_t b = 0; b < o->batch; b++) {
        for (uint64_t k = 0; k < n0 * out_columns; k++) {
            double complex z =
                dft_at(o, a->buf[0], b * n0 * in_columns, k / out_columns, k % out_columns, n0, n1);
            uint64_t at = b * n0 * out_columns + k;

            if (o->kind == VGPU_FFT_C2R) {
                put(a->buf[1], o->dtype, at, creal(z));
            } else {
                put(a->buf[1], o->dtype, 2 * at, creal(z));
                put(a->buf[1], o->dtype, 2 * at + 1, cimag(z));
            }
        }
    }
    return 0;
}

/* Insertion sort of indices: stable. */
static uint32_t run_sort(struct args *a)
{
    const struct vgpu_sort *o = a->body;
    unsigned outs = o->value_size ? 2 : 1;
    uint64_t e = vgpu_dtype_size(o->dtype);
    uint64_t *index;

    if (!have(a, 0, o->n * e) || !have(a, outs, o->n * e)) {
        return VGPU_E_BAD_SHAPE;
    }
    index = malloc(o->n * sizeof(*index));
    if (!index) {
        return VGPU_E_NO_MEMORY;
    }
    for (uint64_t i = 0; i < o->n; i++) {
        double v = number(a->buf[0], o->dtype, i);
        uint64_t j = i;

        while (j > 0) {
            double before = number(a->buf[0], o->dtype, index[j - 1]);

            if (o->descending ? before >= v : before <= v) {
                break;
            }
            index[j] = index[j - 1];
            j--;
        }
        index[j] = i;
    }
    for (uint64_t i = 0; i < o->n; i++) {
        memcpy(a->buf[outs] + i * e, a->buf[0] + index[i] * e, e);
        if (o->value_size) {
            memcpy(a->buf[3] + i * o->value_size, a->buf[1] + index[i] * o->value_size,
                   o->value_size);
        }
    }
    free(index);
    return 0;
}

static double sample(const struct vgpu_denoise *o, const uint8_t *in, int64_t x, int64_t y,
                     unsigned c)
{
    x = x < 0 ? 0 : x >= o->width ? o->width - 1 : x;
    y = y < 0 ? 0 : y >= o->height ? o->height - 1 : y;
    return number(in + (uint64_t)y * o->stride, o->dtype, (uint64_t)x * o->channels + c);
}

static double weight(const struct vgpu_denoise *o, const uint8_t *in, int64_t px, int64_t py,
                     int64_t qx, int64_t qy)
{
    double d2 = 0;
    unsigned n = 0;

    for (int dy = -o->patch; dy <= o->patch; dy++) {
        for (int dx = -o->patch; dx <= o->patch; dx++) {
            for (unsigned c = 0; c < o->channels; c++, n++) {
                double d = sample(o, in, px + dx, py + dy, c) - sample(o, in, qx + dx, qy + dy, c);

                d2 += d * d;
            }
        }
    }
    d2 = d2 / n - 2 * (double)o->sigma * (double)o->sigma;
    return exp(-(d2 > 0 ? d2 : 0) / ((double)o->h * (double)o->h));
}

static void denoise_pixel(const struct vgpu_denoise *o, const uint8_t *in, uint8_t *out, uint64_t x,
                          uint64_t y)
{
    double sum[3] = {0}, total = 0;
    int64_t px = (int64_t)(o->x + x), py = (int64_t)(o->y + y);

    for (int dy = -o->search; dy <= o->search; dy++) {
        for (int dx = -o->search; dx <= o->search; dx++) {
            double w = weight(o, in, px, py, px + dx, py + dy);

            total += w;
            for (unsigned c = 0; c < o->channels; c++) {
                sum[c] += w * sample(o, in, px + dx, py + dy, c);
            }
        }
    }
    for (unsigned c = 0; c < o->channels; c++) {
        double v = sum[c] / total;

        put(out, o->dtype, (y * o->w + x) * o->channels + c,
            o->dtype == VGPU_DTYPE_U8 ? floor(v + 0.5) : v);
    }
}

static uint32_t run_denoise(struct args *a)
{
    const struct vgpu_denoise *o = a->body;
    uint64_t pixel = vgpu_dtype_size(o->dtype) * o->channels;

    if (o->search < 1 || o->search > 32 || o->patch > 8 || !(o->h > 0)) {
        return VGPU_E_BAD_PARAM;
    }
    if (!have(a, 0, (uint64_t)(o->height - 1) * o->stride + o->width * pixel) ||
        !have(a, 1, (uint64_t)o->w * o->h_out * pixel)) {
        return VGPU_E_BAD_SHAPE;
    }
    for (uint64_t i = 0; i < (uint64_t)o->w * o->h_out; i++) {
        denoise_pixel(o, a->buf[0], a->buf[1], i % o->w, i / o->w);
    }
    return 0;
}

uint32_t fake_run(const struct request *r, uint8_t *arena, uint8_t *payload)
{
    static uint32_t (*const run[])(struct args *) = {run_echo, run_axpy, run_reduce, run_gemm,
                                                     run_fft,  run_sort, run_denoise};
    uint8_t body[512] __attribute__((aligned(8)));
    uint8_t inline_copy[VGPU_REQ_MAX] __attribute__((aligned(8)));
    struct args a = {.r = r, .body = body};

    if (r->hdr.op < VGPU_OP_ECHO || r->hdr.op > VGPU_OP_DENOISE) {
        return VGPU_E_UNSUPPORTED;
    }
    memcpy(body, r->bytes + r->body_offset, r->hdr.body_len);
    memcpy(inline_copy, r->bytes, r->hdr.size);
    for (unsigned i = 0; i < r->hdr.nbufs; i++) {
        const struct vgpu_buf *b = &r->bufs[i];
        uint8_t *base = b->kind == VGPU_BUF_ARENA ? arena
                        : b->dir == VGPU_BUF_IN   ? inline_copy
                                                  : payload;

        a.buf[i] = base + b->offset;
    }
    return run[r->hdr.op - VGPU_OP_ECHO](&a);
}

/* SPDX-License-Identifier: MIT */
/* ops.c - a whole request from the body of an operation; see vgpu.h */
#include <errno.h>

#include "guest/lib/client.h"

/* Lengths are worked out in this type; once too large, always too large. */
struct bytes {
    uint64_t n;
    bool overflow;
};

static struct bytes bytes_of(uint64_t n)
{
    return (struct bytes){.n = n};
}

static struct bytes times(struct bytes b, uint64_t factor)
{
    b.overflow |= __builtin_mul_overflow(b.n, factor, &b.n);
    return b;
}

static struct bytes plus(struct bytes b, uint64_t more)
{
    b.overflow |= __builtin_add_overflow(b.n, more, &b.n);
    return b;
}

/* Elements from the first to the last of n with a stride; n is checked by the caller. */
static struct bytes strided(uint64_t n, uint64_t stride, uint64_t element)
{
    return times(plus(times(bytes_of(n - 1), stride), 1), element);
}

static void in(struct vgpu_request *req, const void *data, struct bytes b)
{
    if (b.overflow && !req->broken) {
        req->broken = -EOVERFLOW;
        client_fail(req, -EOVERFLOW, "input %u", req->spec.nbufs);
    }
    vgpu_request_in(req, data, b.n);
}

static void out(struct vgpu_request *req, void *data, struct bytes b)
{
    if (b.overflow && !req->broken) {
        req->broken = -EOVERFLOW;
        client_fail(req, -EOVERFLOW, "output, buffer %u", req->spec.nbufs);
    }
    vgpu_request_out(req, data, b.n);
}

/* Start a request; @valid: lengths can be made from its sizes. */
static int begin(struct vgpu_request *req, unsigned op, const void *body, size_t len, bool valid)
{
    int r = vgpu_request_begin(req, op);

    if (r) {
        return r;
    }
    if (!valid) {
        req->broken = -EINVAL;
        client_fail(req, -EINVAL, "%s: a size is 0 or the data type is unknown", vgpu_op_name(op));
        return req->broken;
    }
    return vgpu_request_body(req, body, len);
}

int vgpu_echo(struct vgpu_request *req, const void *from, void *to, uint64_t bytes)
{
    if (begin(req, VGPU_OP_ECHO, NULL, 0, bytes != 0) == 0) {
        in(req, from, bytes_of(bytes));
        out(req, to, bytes_of(bytes));
    }
    return req->broken;
}

int vgpu_axpy(struct vgpu_request *req, const struct vgpu_axpy *op, const void *x, const void *y,
              void *z)
{
    uint32_t e = vgpu_dtype_size(op->dtype);

    if (begin(req, VGPU_OP_AXPY, op, sizeof(*op), e && op->n) == 0) {
        in(req, x, strided(op->n, op->incx, e));
        in(req, y, strided(op->n, op->incy, e));
        out(req, z, times(bytes_of(op->n), e));
    }
    return req->broken;
}

unsigned vgpu_reduce_dtype(const struct vgpu_reduce *op)
{
    if (op->kind == VGPU_REDUCE_ARGMAX) {
        return VGPU_DTYPE_U64;
    }
    if (op->kind != VGPU_REDUCE_SUM) {
        return op->kind > VGPU_REDUCE_ARGMAX ? 0 : op->dtype;
    }
    switch (op->dtype) {
    case VGPU_DTYPE_U8:
    case VGPU_DTYPE_U32:
        return VGPU_DTYPE_U64;
    case VGPU_DTYPE_I8:
    case VGPU_DTYPE_I32:
        return VGPU_DTYPE_I64;
    case VGPU_DTYPE_F32:
    case VGPU_DTYPE_F64:
        return VGPU_DTYPE_F64;
    default:
        return 0;
    }
}

int vgpu_reduce(struct vgpu_request *req, const struct vgpu_reduce *op, const void *x, void *result)
{
    uint32_t e = vgpu_dtype_size(op->dtype);
    uint32_t r = vgpu_dtype_size(vgpu_reduce_dtype(op));

    if (begin(req, VGPU_OP_REDUCE, op, sizeof(*op), e && op->n) == 0) {
        in(req, x, strided(op->n, op->stride, e));
        out(req, result, bytes_of(r ? r : 8)); /* the device refuses what has no result type */
    }
    return req->broken;
}

/* A matrix as it is stored: all rows but the last with their stride. */
static struct bytes matrix(uint64_t rows, uint64_t columns, uint64_t stride, uint64_t element)
{
    return times(plus(times(bytes_of(rows - 1), stride), columns), element);
}

int vgpu_gemm(struct vgpu_request *req, const struct vgpu_gemm *op, const void *a, const void *b,
              const void *c, void *d)
{
    uint32_t e = vgpu_dtype_size(op->dtype);
    bool valid = e && op->m && op->n && op->k;

    if (begin(req, VGPU_OP_GEMM, op, sizeof(*op), valid) == 0) {
        in(req, a,
           op->trans_a ? matrix(op->k, op->m, op->lda, e) : matrix(op->m, op->k, op->lda, e));
        in(req, b,
           op->trans_b ? matrix(op->n, op->k, op->ldb, e) : matrix(op->k, op->n, op->ldb, e));
        if (op->beta != 0) {
            in(req, c, matrix(op->m, op->n, op->ldc, e));
        }
        out(req, d, times(times(bytes_of(op->m), op->n), e));
    }
    return req->broken;
}

int vgpu_fft_bytes(const struct vgpu_fft *op, uint64_t *ret_in, uint64_t *ret_out)
{
    uint64_t e = vgpu_dtype_size(op->dtype);
    uint64_t last = op->rank == 2 ? op->n1 : op->n0;
    uint64_t rows = op->rank == 2 ? op->n0 : 1;
    struct bytes real, complex_full, complex_half;

    if (!e || !last || !rows || !op->batch || op->kind > VGPU_FFT_C2R) {
        return -EINVAL;
    }
    real = times(times(times(bytes_of(last), rows), op->batch), e);
    complex_full = times(real, 2);
    complex_half = times(times(times(bytes_of(last / 2 + 1), rows), op->batch), 2 * e);
    if (complex_full.overflow || complex_half.overflow) {
        return -EOVERFLOW;
    }
    *ret_in = op->kind == VGPU_FFT_C2C   ? complex_full.n
              : op->kind == VGPU_FFT_R2C ? real.n
                                         : complex_half.n;
    *ret_out = op->kind == VGPU_FFT_C2C   ? complex_full.n
               : op->kind == VGPU_FFT_R2C ? complex_half.n
                                          : real.n;
    return 0;
}

int vgpu_fft(struct vgpu_request *req, const struct vgpu_fft *op, const void *from, void *to)
{
    uint64_t in_bytes = 0, out_bytes = 0;
    int r = vgpu_fft_bytes(op, &in_bytes, &out_bytes);

    if (begin(req, VGPU_OP_FFT, op, sizeof(*op), r != -EINVAL) == 0) {
        in(req, from, (struct bytes){in_bytes, r == -EOVERFLOW});
        out(req, to, (struct bytes){out_bytes, false});
    }
    return req->broken;
}

int vgpu_sort(struct vgpu_request *req, const struct vgpu_sort *op, const void *keys,
              const void *values, void *sorted_keys, void *sorted_values)
{
    uint32_t e = vgpu_dtype_size(op->dtype);

    if (begin(req, VGPU_OP_SORT, op, sizeof(*op), e && op->n) == 0) {
        in(req, keys, times(bytes_of(op->n), e));
        if (op->value_size) {
            in(req, values, times(bytes_of(op->n), op->value_size));
        }
        out(req, sorted_keys, times(bytes_of(op->n), e));
        if (op->value_size) {
            out(req, sorted_values, times(bytes_of(op->n), op->value_size));
        }
    }
    return req->broken;
}

int vgpu_denoise(struct vgpu_request *req, const struct vgpu_denoise *op, const void *from,
                 void *to)
{
    uint64_t pixel = (uint64_t)vgpu_dtype_size(op->dtype) * op->channels;
    bool valid = pixel && op->width && op->height && op->w && op->h_out;

    if (begin(req, VGPU_OP_DENOISE, op, sizeof(*op), valid) == 0) {
        in(req, from, plus(times(bytes_of(op->height - 1), op->stride), op->width * pixel));
        out(req, to, times(times(bytes_of(op->w), op->h_out), pixel));
    }
    return req->broken;
}

/* SPDX-License-Identifier: MIT */
/* run_ops.c - the operations of `vgpu run`; see run.h */
#include <inttypes.h>
#include <string.h>

#include "guest/cmd/run.h"

static bool given(const struct run *r, enum run_option option)
{
    return (r->given & RUN_BIT(option)) != 0;
}

/* "a.npy is float32 (3, 4)": what a complaint about an input begins with. */
static int bad_input(const struct run *r, unsigned i, const char *what)
{
    char text[160];

    return cmd_fail(&r->cmd, EXIT_FILE, "%s is %s: %s", r->in_path[i],
                    npy_describe(&r->in[i], text, sizeof(text)), what);
}

static bool is_complex(const struct npy *a)
{
    return a->kind == 'c';
}

/* Every operation but echo: a known real type, and not empty. */
static int check_real(const struct run *r, unsigned i)
{
    if (is_complex(&r->in[i])) {
        return bad_input(r, i, "this operation takes real numbers");
    }
    if (npy_dtype(&r->in[i]) == 0) {
        return bad_input(r, i, "the pool has no operations for this type");
    }
    return 0;
}

static int check_same_type(const struct run *r, unsigned i)
{
    if (r->in[i].kind != r->in[0].kind || r->in[i].size != r->in[0].size) {
        return bad_input(r, i, "it must have the type of the first input");
    }
    return 0;
}

static void make_out(struct run *r, unsigned i, unsigned dtype, uint32_t ndim,
                     const uint64_t *shape)
{
    struct npy *a = &r->out[i];

    npy_set_dtype(a, dtype);
    a->ndim = ndim;
    for (uint32_t k = 0; k < ndim; k++) {
        a->shape[k] = shape[k];
    }
}

/* ---- echo ---- */

static int shape_echo(struct run *r)
{
    r->out[0] = r->in[0];
    r->results = 1;
    return 0;
}

static int build_echo(struct run *r, struct vgpu_request *req)
{
    return vgpu_echo(req, r->in_data[0], r->out_data[0], r->in[0].bytes);
}

/* ---- axpy, reduce: vectors with strides ---- */

/* How many elements lie @stride apart in an array. */
static uint64_t reach(const struct npy *a, uint64_t stride)
{
    return (a->count - 1) / stride + 1;
}

static int shape_axpy(struct run *r)
{
    uint64_t nx = reach(&r->in[0], r->incx), ny = reach(&r->in[1], r->incy);
    uint64_t n = given(r, RUN_N) ? r->n : nx;

    if (check_real(r, 0) || check_same_type(r, 1)) {
        return EXIT_FILE;
    }
    if (given(r, RUN_N) ? n > nx || n > ny : nx != ny) {
        return cmd_fail(&r->cmd, EXIT_FILE,
                        "x has %" PRIu64 " elements %" PRIu64 " apart, y %" PRIu64
                        " elements %" PRIu64
                        " apart: they must be as many, or --n must say how many to use",
                        nx, r->incx, ny, r->incy);
    }
    r->body.axpy = (struct vgpu_axpy){
        .dtype = (uint8_t)npy_dtype(&r->in[0]),
        .alpha = r->alpha,
        .n = n,
        .incx = r->incx,
        .incy = r->incy,
    };
    r->results = 1;
    if (n == r->in[0].count) {
        r->out[0] = r->in[0];
    } else {
        make_out(r, 0, npy_dtype(&r->in[0]), 1, &n);
    }
    return 0;
}

static int build_axpy(struct run *r, struct vgpu_request *req)
{
    return vgpu_axpy(req, &r->body.axpy, r->in_data[0], r->in_data[1], r->out_data[0]);
}

static int shape_reduce(struct run *r)
{
    uint64_t n = reach(&r->in[0], r->stride);
    unsigned dtype;

    if (check_real(r, 0)) {
        return EXIT_FILE;
    }
    if (given(r, RUN_N) && r->n > n) {
        return bad_input(r, 0, "it has fewer elements than --n says");
    }
    r->body.reduce = (struct vgpu_reduce){
        .dtype = (uint8_t)npy_dtype(&r->in[0]),
        .kind = r->kind,
        .n = given(r, RUN_N) ? r->n : n,
        .stride = r->stride,
    };
    dtype = vgpu_reduce_dtype(&r->body.reduce);
    if (!dtype) {
        return bad_input(r, 0, "reduce takes float32, float64, uint8, int8, uint32 and int32");
    }
    make_out(r, 0, dtype, 0, NULL);
    r->results = 1;
    return 0;
}

static int build_reduce(struct run *r, struct vgpu_request *req)
{
    return vgpu_reduce(req, &r->body.reduce, r->in_data[0], r->out_data[0]);
}

/* ---- gemm ---- */

static int check_matrix(const struct run *r, unsigned i)
{
    return r->in[i].ndim == 2 ? 0 : bad_input(r, i, "it must have two dimensions");
}

static int shape_gemm(struct run *r)
{
    const uint64_t *a = r->in[0].shape, *b = r->in[1].shape, *c = r->in[2].shape;
    unsigned ta = given(r, RUN_TRANS_A), tb = given(r, RUN_TRANS_B);
    uint64_t shape[2] = {a[ta], b[!tb]};

    if (check_real(r, 0) || check_matrix(r, 0) || check_same_type(r, 1) || check_matrix(r, 1) ||
        (r->nin == 3 && (check_same_type(r, 2) || check_matrix(r, 2)))) {
        return EXIT_FILE;
    }
    if (a[!ta] != b[tb]) {
        return cmd_fail(&r->cmd, EXIT_FILE,
                        "op(A) is %" PRIu64 " x %" PRIu64 " and op(B) %" PRIu64 " x %" PRIu64
                        ": the inner sizes must be equal",
                        a[ta], a[!ta], b[tb], b[!tb]);
    }
    if (r->nin == 3 && (c[0] != shape[0] || c[1] != shape[1])) {
        return bad_input(r, 2, "C must have the shape of the result");
    }
    r->beta = given(r, RUN_BETA) ? r->beta : r->nin == 3;
    if (r->beta != 0 && r->nin < 3) {
        return cmd_fail(&r->cmd, EXIT_USAGE, "--beta needs C as a third --in");
    }
    r->body.gemm = (struct vgpu_gemm){
        .dtype = (uint8_t)npy_dtype(&r->in[0]),
        .trans_a = (uint8_t)ta,
        .trans_b = (uint8_t)tb,
        .math = r->math,
        .m = shape[0],
        .n = shape[1],
        .k = a[!ta],
        .lda = a[1],
        .ldb = b[1],
        .ldc = r->beta != 0 ? c[1] : 0,
        .alpha = r->alpha,
        .beta = r->beta,
    };
    make_out(r, 0, npy_dtype(&r->in[0]), 2, shape);
    r->results = 1;
    return 0;
}

static int build_gemm(struct run *r, struct vgpu_request *req)
{
    return vgpu_gemm(req, &r->body.gemm, r->in_data[0], r->in_data[1], r->in_data[2],
                     r->out_data[0]);
}

/* ---- fft ---- */

/* Which transform the input and the options mean. Return: 0; an exit code. */
static int choose_fft(struct run *r, struct vgpu_fft *op)
{
    bool complex_in = is_complex(&r->in[0]);

    if (given(r, RUN_C2R) && !complex_in) {
        return bad_input(r, 0, "--c2r takes complex numbers");
    }
    if (given(r, RUN_INVERSE) && !complex_in) {
        return bad_input(r, 0, "an inverse transform takes complex numbers");
    }
    op->kind = given(r, RUN_C2R) ? VGPU_FFT_C2R : complex_in ? VGPU_FFT_C2C : VGPU_FFT_R2C;
    op->direction =
        given(r, RUN_C2R) || given(r, RUN_INVERSE) ? VGPU_FFT_INVERSE : VGPU_FFT_FORWARD;
    return 0;
}

static int shape_fft(struct run *r)
{
    struct npy *a = &r->in[0], *out = &r->out[0];
    uint64_t *last;
    struct vgpu_fft op = {.dtype = (uint8_t)npy_dtype(a), .rank = (uint8_t)r->rank, .batch = 1};

    if (npy_dtype(a) != VGPU_DTYPE_F32 && npy_dtype(a) != VGPU_DTYPE_F64) {
        return bad_input(r, 0, "fft takes float32, float64, complex64 and complex128");
    }
    if (a->ndim < r->rank) {
        return bad_input(r, 0, "it has fewer dimensions than the transform");
    }
    if (choose_fft(r, &op)) {
        return EXIT_FILE;
    }
    *out = *a;
    last = &out->shape[a->ndim - 1];
    if (op.kind == VGPU_FFT_C2R) {
        uint64_t n = given(r, RUN_N) ? r->n : *last > 1 ? 2 * (*last - 1) : 1;

        if (n / 2 + 1 != *last) {
            return cmd_fail(&r->cmd, EXIT_FILE,
                            "--n %" PRIu64 ": a last dimension of %" PRIu64
                            " complex numbers belongs to %" PRIu64 " or %" PRIu64 " real ones",
                            n, *last, 2 * *last - 2, 2 * *last - 1);
        }
        *last = n;
    }
    op.n0 = r->rank == 2 ? out->shape[a->ndim - 2] : *last;
    op.n1 = r->rank == 2 ? *last : 0;
    for (uint32_t i = 0; i + r->rank < a->ndim; i++) {
        op.batch *= a->shape[i];
    }
    if (op.kind == VGPU_FFT_R2C) {
        *last = *last / 2 + 1;
        out->kind = 'c';
        out->size = 2 * a->size;
    } else if (op.kind == VGPU_FFT_C2R) {
        out->kind = 'f';
        out->size = a->size / 2;
    }
    r->body.fft = op;
    r->results = 1;
    return 0;
}

static int build_fft(struct run *r, struct vgpu_request *req)
{
    return vgpu_fft(req, &r->body.fft, r->in_data[0], r->out_data[0]);
}

/* ---- sort ---- */

static int shape_sort(struct run *r)
{
    if (check_real(r, 0)) {
        return EXIT_FILE;
    }
    if (r->nin == 2 && r->in[1].count != r->in[0].count) {
        return bad_input(r, 1, "there must be as many values as keys");
    }
    if (r->nin == 2 && r->in[1].size > 8) {
        return bad_input(r, 1, "values have at most 8 bytes");
    }
    r->body.sort = (struct vgpu_sort){
        .dtype = (uint8_t)npy_dtype(&r->in[0]),
        .descending = given(r, RUN_DESCENDING),
        .value_size = r->nin == 2 ? (uint8_t)r->in[1].size : 0,
        .n = r->in[0].count,
    };
    r->out[0] = r->in[0];
    r->out[1] = r->in[1];
    r->results = r->nin;
    return 0;
}

static int build_sort(struct run *r, struct vgpu_request *req)
{
    return vgpu_sort(req, &r->body.sort, r->in_data[0], r->in_data[1], r->out_data[0],
                     r->out_data[1]);
}

/* ---- denoise ---- */

static int shape_denoise(struct run *r)
{
    const struct npy *a = &r->in[0];
    uint64_t channels = a->ndim == 3 ? a->shape[2] : 1;
    unsigned dtype = npy_dtype(a);

    if (check_real(r, 0)) {
        return EXIT_FILE;
    }
    if ((a->ndim != 2 && a->ndim != 3) || (channels != 1 && channels != 3)) {
        return bad_input(r, 0,
                         "it must be (height, width), (height, width, 1) or "
                         "(height, width, 3)");
    }
    if (dtype != VGPU_DTYPE_U8 && dtype != VGPU_DTYPE_F32) {
        return bad_input(r, 0, "denoise takes uint8 and float32");
    }
    if (a->shape[0] > UINT16_MAX || a->shape[1] > UINT16_MAX) {
        return bad_input(r, 0, "a side has at most 65535 pixels");
    }
    if (dtype == VGPU_DTYPE_F32 && !given(r, RUN_SIGMA)) {
        return cmd_fail(&r->cmd, EXIT_USAGE,
                        "float32 samples have no scale of their own: say --sigma in their units");
    }
    r->body.denoise = (struct vgpu_denoise){
        .dtype = (uint8_t)dtype,
        .channels = (uint8_t)channels,
        .patch = (uint8_t)r->patch,
        .search = (uint8_t)r->search,
        .sigma = (float)r->sigma,
        .h = (float)(given(r, RUN_H) ? r->h
                     : r->sigma > 0  ? 0.4 * r->sigma
                                     : 1),
        .width = (uint32_t)a->shape[1],
        .height = (uint32_t)a->shape[0],
        .stride = (uint32_t)(a->shape[1] * channels * a->size),
        .w = (uint32_t)a->shape[1],
        .h_out = (uint32_t)a->shape[0],
    };
    r->out[0] = *a;
    r->results = 1;
    return 0;
}

static int build_denoise(struct run *r, struct vgpu_request *req)
{
    return vgpu_denoise(req, &r->body.denoise, r->in_data[0], r->out_data[0]);
}

/* clang-format off */
static const struct run_op ops[] = {
    { "echo", 1, 1, false, 0, shape_echo, build_echo,
      "  echo      the input, unchanged\n" },
    { "axpy", 2, 2, false,
      RUN_BIT(RUN_ALPHA) | RUN_BIT(RUN_INCX) | RUN_BIT(RUN_INCY) | RUN_BIT(RUN_N),
      shape_axpy, build_axpy,
      "  axpy      alpha * x + y; --in x --in y [--alpha A] [--incx N] [--incy N] [--n N]\n" },
    { "reduce", 1, 1, true, RUN_BIT(RUN_KIND) | RUN_BIT(RUN_STRIDE) | RUN_BIT(RUN_N),
      shape_reduce, build_reduce,
      "  reduce    one number, printed; [--kind sum|min|max|argmax] [--stride N] [--n N]\n" },
    { "gemm", 2, 3, false,
      RUN_BIT(RUN_ALPHA) | RUN_BIT(RUN_BETA) | RUN_BIT(RUN_TRANS_A) | RUN_BIT(RUN_TRANS_B) |
          RUN_BIT(RUN_MATH),
      shape_gemm, build_gemm,
      "  gemm      alpha * op(A) op(B) + beta * C; --in A --in B [--in C] [--alpha A] [--beta B]\n"
      "            [--trans-a] [--trans-b] [--math default|tf32]\n" },
    { "fft", 1, 1, false,
      RUN_BIT(RUN_INVERSE) | RUN_BIT(RUN_C2R) | RUN_BIT(RUN_RANK) | RUN_BIT(RUN_N),
      shape_fft, build_fft,
      "  fft       over the last axis, or the last two with --rank 2; real input gives half a\n"
      "            spectrum; [--inverse] [--c2r [--n N]] (half a spectrum to N real numbers)\n" },
    { "sort", 1, 2, false, RUN_BIT(RUN_DESCENDING), shape_sort, build_sort,
      "  sort      --in keys [--in values] --out keys [--out values] [--descending]\n" },
    { "denoise", 1, 1, false,
      RUN_BIT(RUN_SIGMA) | RUN_BIT(RUN_H) | RUN_BIT(RUN_PATCH) | RUN_BIT(RUN_SEARCH),
      shape_denoise, build_denoise,
      "  denoise   an image array in one piece; [--sigma X] [--h X] [--patch N] [--search N]\n" },
};
/* clang-format on */
#define N_OPS (sizeof(ops) / sizeof(ops[0]))

const struct run_op *run_each(unsigned i)
{
    return i < N_OPS ? &ops[i] : NULL;
}

const struct run_op *run_find(const char *name)
{
    for (unsigned i = 0; i < N_OPS; i++) {
        if (strcmp(ops[i].name, name) == 0) {
            return &ops[i];
        }
    }
    return NULL;
}

/* SPDX-License-Identifier: MIT */
/*
 * run - what `vgpu run` knows about each operation: which arrays and options it takes, what comes
 * out, and how its request is made
 */
#ifndef GUEST_RUN_H
#define GUEST_RUN_H

#include "guest/cmd/cmd.h"
#include "guest/cmd/npy.h"

#define RUN_INPUTS_MAX 3u
#define RUN_OUTPUTS_MAX 2u

/* Options of operations; also the values that getopt_long() returns for them. */
enum run_option {
    RUN_ALPHA = 1,
    RUN_BETA,
    RUN_INCX,
    RUN_INCY,
    RUN_KIND,
    RUN_STRIDE,
    RUN_TRANS_A,
    RUN_TRANS_B,
    RUN_MATH,
    RUN_INVERSE,
    RUN_C2R,
    RUN_RANK,
    RUN_N,
    RUN_DESCENDING,
    RUN_SIGMA,
    RUN_H,
    RUN_PATCH,
    RUN_SEARCH,
};
#define RUN_BIT(option) (UINT32_C(1) << (option))

struct run {
    struct cmd cmd;
    uint32_t given; /* RUN_BIT of options on the command line */
    double alpha, beta, sigma, h;
    uint64_t incx, incy, stride, n, rank, patch, search;
    uint8_t kind, math;
    unsigned nin, nout;
    const char *in_path[RUN_INPUTS_MAX], *out_path[RUN_OUTPUTS_MAX];
    int in_fd[RUN_INPUTS_MAX]; /* -1: not open */
    struct npy in[RUN_INPUTS_MAX], out[RUN_OUTPUTS_MAX];
    void *in_data[RUN_INPUTS_MAX], *out_data[RUN_OUTPUTS_MAX];
    unsigned results; /* outputs that the operation makes */
    /* The body of the operation, made by shape(). */
    union {
        struct vgpu_axpy axpy;
        struct vgpu_reduce reduce;
        struct vgpu_gemm gemm;
        struct vgpu_fft fft;
        struct vgpu_sort sort;
        struct vgpu_denoise denoise;
    } body;
};

struct run_op {
    const char *name;
    unsigned in_min, in_max;
    bool out_optional; /* the result may just be printed */
    uint32_t options;  /* RUN_BIT of those it takes */
    /* From the shapes of r->in: fill in r->out, r->results and r->body. 0 or an exit code. */
    int (*shape)(struct run *r);
    /* Make the request. As the builders of vgpu.h. */
    int (*build)(struct run *r, struct vgpu_request *req);
    const char *help;
};

/** run_find() - the operation called @name, or NULL */
const struct run_op *run_find(const char *name);

/** run_each() - operation number @i, or NULL past the last */
const struct run_op *run_each(unsigned i);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * gemm.c - multiply two matrices on the pool, the short way and the asynchronous way
 *
 * Build outside of the project's tree:
 *     cc -I PROJECT gemm.c PROJECT/build/dev/guest/libvgpu.a -lpthread
 * Run as root in the VM.
 */
#include <stdio.h>
#include <stdlib.h>

#include "guest/include/vgpu.h"

#define SIDE 256u
#define REQUESTS 4u

static int fail(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    return 1;
}

/* A and B are filled so that every element of the product is known: SIDE * 2 * 3. */
static void fill(float *a, float *b)
{
    for (unsigned i = 0; i < SIDE * SIDE; i++) {
        a[i] = 2;
        b[i] = 3;
    }
}

static int check(const float *d)
{
    for (unsigned i = 0; i < SIDE * SIDE; i++) {
        if (d[i] != SIDE * 6.0f) {
            return fail("product", "an element is wrong");
        }
    }
    return 0;
}

static const struct vgpu_gemm product = {
    .dtype = VGPU_DTYPE_F32,
    .m = SIDE,
    .n = SIDE,
    .k = SIDE,
    .lda = SIDE,
    .ldb = SIDE,
    .alpha = 1,
};

/* One request: ordinary memory, which the library copies to the device's arena and back. */
static int one(struct vgpu *gpu, const float *a, const float *b)
{
    struct vgpu_request *req = vgpu_request_new(gpu);
    float *d = calloc(SIDE * SIDE, sizeof(*d));
    struct vgpu_err err;
    int r = 0;

    if (!req || !d) {
        r = fail("one", "out of memory");
    } else {
        vgpu_gemm(req, &product, a, b, NULL, d);
        r = vgpu_run(req, &err) ? fail("one", err.text) : check(d);
    }
    if (r == 0) {
        printf("one: worker %u, %.3f ms\n", vgpu_result(req)->worker,
               (double)vgpu_result(req)->run_ns / 1e6);
    }
    vgpu_request_free(req);
    free(d);
    return r;
}

/* Several at a time, in memory that the device uses in place. */
static int several(struct vgpu *gpu, const float *a, const float *b)
{
    struct vgpu_request *reqs[REQUESTS] = {NULL};
    float *d[REQUESTS] = {NULL};
    unsigned ended = 0;
    size_t i;
    int r = 0;

    for (i = 0; i < REQUESTS && r == 0; i++) {
        reqs[i] = vgpu_request_new(gpu);
        d[i] = vgpu_alloc(gpu, SIDE * SIDE * sizeof(float));
        if (!reqs[i] || !d[i]) {
            r = fail("several", "out of memory");
        } else if (vgpu_gemm(reqs[i], &product, a, b, NULL, d[i]) || vgpu_submit(reqs[i])) {
            r = fail("several", vgpu_result_text(reqs[i]));
        }
    }
    while (r == 0 && ended < REQUESTS && vgpu_wait_any(reqs, REQUESTS, -1, &i) == 0) {
        r = vgpu_poll(reqs[i]) ? fail("several", vgpu_result_text(reqs[i])) : check(d[i]);
        printf("several: number %zu ended\n", i);
        vgpu_request_free(reqs[i]);
        reqs[i] = NULL;
        ended++;
    }
    for (i = 0; i < REQUESTS; i++) {
        vgpu_request_free(reqs[i]); /* cancels what is still under way */
        vgpu_free(gpu, d[i]);
    }
    return r;
}

int main(void)
{
    struct vgpu *gpu;
    struct vgpu_err err;
    float *a, *b;
    int r;

    if (vgpu_open(NULL, &gpu, &err) != 0) {
        return fail("vgpu_open", err.text);
    }
    a = vgpu_alloc(gpu, SIDE * SIDE * sizeof(*a));
    b = vgpu_alloc(gpu, SIDE * SIDE * sizeof(*b));
    if (a && b) {
        fill(a, b);
        r = one(gpu, a, b);
        r = r ? r : several(gpu, a, b);
    } else {
        r = fail("vgpu_alloc", "the device's arena is too small or in use");
    }
    vgpu_free(gpu, a);
    vgpu_free(gpu, b);
    vgpu_close(gpu);
    return r;
}

/* SPDX-License-Identifier: MIT */
/*
 * run_gemm.c - GEMM on the CPU, by OpenBLAS
 *
 * D is computed in bands of rows of op(A), so that a long product can be stopped between them. C is
 * copied into a band of D first, which OpenBLAS then scales and adds to.
 */
#include <cblas.h>
#include <string.h>

#include "gpu-worker/cpu/cpu.h"
#include "gpu-worker/ops/ops.h"

#define GEMM_BAND_FLOP 2e9 /* about 50 ms of one core */
#define GEMM_BAND_ROWS 64u /* at least: less is slow */

static uint64_t band_rows(const struct vgpu_gemm *b)
{
    double rows = GEMM_BAND_FLOP / (2.0 * (double)b->n * (double)b->k);

    if (rows >= (double)b->m) {
        return b->m;
    }
    return rows < GEMM_BAND_ROWS ? GEMM_BAND_ROWS : (uint64_t)rows;
}

static void copy_rows(const struct vgpu_gemm *b, const uint8_t *c, uint8_t *d, uint64_t rows)
{
    uint64_t size = vgpu_dtype_size(b->dtype);

    for (uint64_t i = 0; i < rows; i++) {
        memcpy(d + i * b->n * size, c + i * b->ldc * size, b->n * size);
    }
}

/* @a and @d start at the band's first row. */
static void multiply(const struct vgpu_gemm *b, const void *a, const void *bb, void *d,
                     uint64_t rows)
{
    enum CBLAS_TRANSPOSE ta = b->trans_a ? CblasTrans : CblasNoTrans;
    enum CBLAS_TRANSPOSE tb = b->trans_b ? CblasTrans : CblasNoTrans;
    blasint m = (blasint)rows, n = (blasint)b->n, k = (blasint)b->k;
    blasint lda = (blasint)b->lda, ldb = (blasint)b->ldb;

    if (b->dtype == VGPU_DTYPE_F32) {
        cblas_sgemm(CblasRowMajor, ta, tb, m, n, k, (float)b->alpha, a, lda, bb, ldb,
                    (float)b->beta, d, n);
    } else {
        cblas_dgemm(CblasRowMajor, ta, tb, m, n, k, b->alpha, a, lda, bb, ldb, b->beta, d, n);
    }
}

uint32_t run_gemm(struct cpu_context *context, const struct gpu_job *job, char *why)
{
    const struct vgpu_gemm *b = ops_body(job->request);
    const struct gpu_buf *bufs = job->bufs;
    const uint8_t *a = bufs[0].host, *c = b->beta != 0 ? bufs[2].host : NULL;
    uint8_t *d = bufs[c ? 3 : 2].host;
    uint64_t size = vgpu_dtype_size(b->dtype), band = band_rows(b);

    (void)context, (void)why;
    for (uint64_t row = 0; row < b->m; row += band) {
        uint64_t rows = b->m - row < band ? b->m - row : band;
        uint32_t stop = cpu_stop(job);
        if (stop) {
            return stop;
        }
        if (c) {
            copy_rows(b, c + row * b->ldc * size, d + row * b->n * size, rows);
        }
        multiply(b, a + row * size * (b->trans_a ? 1 : b->lda), bufs[1].host, d + row * b->n * size,
                 rows);
    }
    return VGPU_E_OK;
}

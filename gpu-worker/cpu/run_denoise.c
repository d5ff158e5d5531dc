/* SPDX-License-Identifier: MIT */
/*
 * run_denoise.c - DENOISE on the CPU: non-local means (Buades, Coll, Morel 2005)
 *
 * The rectangle is computed in blocks. A block's surroundings are first copied into planes of
 * floats, the border repeated. The weight between two pixels is the same both ways, so only half of
 * the search square is visited; for each offset d of it, in three passes:
 *
 *   difference   squared difference between each pixel and the one d away, all channels
 *   weights      box sum of these over the patch, along rows, then along columns; from that the
 *                weight between p and p + d, for all p of the block and of the block moved by -d
 *   accumulate   to each pixel p what p + d and p - d give
 *
 * A pixel costs (2 * search + 1)^2 * (a few dozen operations) whatever the patch is, and all inner
 * loops are vectors along x. Sums are made in the same order wherever the block lies: a pixel does
 * not depend on how the image was cut into tiles.
 *
 * Samples are scaled by the power of two that brings h near 1: exact, and F32 may have any scale.
 * Squared differences of U8 samples and their sums are exact up to patch 4.
 */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gpu-worker/cpu/cpu.h"
#include "gpu-worker/cpu/simd.h"
#include "gpu-worker/ops/ops.h"

#define BLOCK_W 128
#define BLOCK_H 32
#define PATCH_MAX ((int)OPS_DENOISE_PATCH_MAX)
#define SEARCH_MAX ((int)OPS_DENOISE_SEARCH_MAX)
#define MARGIN_MAX (PATCH_MAX + SEARCH_MAX)
#define PLANE_W (BLOCK_W + 2 * MARGIN_MAX)
#define PLANE_H (BLOCK_H + 2 * MARGIN_MAX)

struct block {
    int width, height;     /* of the output, at most BLOCK_W x BLOCK_H */
    int patch, margin;     /* margin: patch + search; pixel (0, 0) is at (margin, margin) */
    float free_difference; /* sum of squared differences that costs no weight */
    float falloff;         /* log2 of the weight lost per unit of the sum above that */
    float plane[3][PLANE_H][PLANE_W];
    float difference[BLOCK_W + SEARCH_MAX + 2 * PATCH_MAX];
    float row_sum[BLOCK_H + SEARCH_MAX + 2 * PATCH_MAX][BLOCK_W + SEARCH_MAX];
    float weight[BLOCK_H + SEARCH_MAX][BLOCK_W + SEARCH_MAX];
    float weight_sum[BLOCK_H][BLOCK_W];
    float sum[3][BLOCK_H][BLOCK_W];
};

/* What all blocks of a job share. */
struct denoise {
    const struct gpu_job *job;
    const struct vgpu_denoise *body;
    const uint8_t *in;
    uint8_t *out;
    float scale; /* a power of two */
};

/*
 * 2^-t for t >= 0, relative error below 3e-7; exactly 1 for 0; 0 above 126; NaN stays. The integer
 * part is taken off by adding 1.5 * 2^23, which leaves it in the low bits; the polynomial is the
 * best one of degree 5 for the rest.
 */
SIMD_BODY float exp2_minus(float t)
{
    const float magic = 12582912.0f;
    float z = t > 126.0f ? 126.0f : t;
    float shifted = magic - z;
    float f = (magic - shifted) - z;
    float p = 1.32764715e-3f;
    uint32_t bits;
    float power;

    p = p * f + 9.67554133e-3f;
    p = p * f + 5.55071327e-2f;
    p = p * f + 2.40221197e-1f;
    p = p * f + 6.93146967e-1f;
    p = p * f + 1.0f;
    memcpy(&bits, &shifted, sizeof(bits));
    bits = (bits + 127) << 23;
    memcpy(&power, &bits, sizeof(power));
    return t > 126.0f ? 0.0f : p * power;
}

/* An offset (dx, dy), dy >= 0, and the area of p for which its weights are needed: the block and
 * the block moved by (-dx, -dy), or rather the smallest rectangle around both. */
struct offset {
    int dx, dy;
    int x0, y0; /* first pixel of the area, from the block's first pixel, <= 0 */
    int width, height;
};

static struct offset make_offset(const struct block *b, int dx, int dy)
{
    return (struct offset){
        .dx = dx,
        .dy = dy,
        .x0 = dx > 0 ? -dx : 0,
        .y0 = -dy,
        .width = b->width + (dx > 0 ? dx : -dx),
        .height = b->height + dy,
    };
}

/* Squared differences, summed over the patch's width. */
SIMD_BODY void sum_rows(struct block *b, const struct offset *o, int channels, int patch)
{
    int left = b->margin + o->x0 - patch, top = b->margin + o->y0 - patch;
    int span = o->width + 2 * patch;

    for (int r = 0; r < o->height + 2 * patch; r++) {
        float *restrict difference = b->difference;
        float *restrict sum = b->row_sum[r];
        for (int x = 0; x < span; x++) {
            float s = 0;
            for (int c = 0; c < channels; c++) {
                float d =
                    b->plane[c][top + r][left + x] - b->plane[c][top + r + o->dy][left + x + o->dx];
                s += d * d;
            }
            difference[x] = s;
        }
        for (int x = 0; x < o->width; x++) {
            float s = difference[x];
            for (int i = 1; i <= 2 * patch; i++) {
                s += difference[x + i];
            }
            sum[x] = s;
        }
    }
}

SIMD_BODY void make_weights(struct block *b, const struct offset *o, int patch)
{
    for (int y = 0; y < o->height; y++) {
        for (int x = 0; x < o->width; x++) {
            float s = b->row_sum[y][x];
            for (int i = 1; i <= 2 * patch; i++) {
                s += b->row_sum[y + i][x];
            }
            s -= b->free_difference;
            b->weight[y][x] = exp2_minus((s < 0 ? 0 : s) * b->falloff);
        }
    }
}

/* The pixel itself, once. */
SIMD_BODY void add_center(struct block *b, int channels)
{
    for (int y = 0; y < b->height; y++) {
        for (int x = 0; x < b->width; x++) {
            float weight = b->weight[y][x];
            b->weight_sum[y][x] = weight;
            for (int c = 0; c < channels; c++) {
                b->sum[c][y][x] = weight * b->plane[c][b->margin + y][b->margin + x];
            }
        }
    }
}

SIMD_BODY void add_pair(struct block *b, const struct offset *o, int channels)
{
    for (int y = 0; y < b->height; y++) {
        const float *restrict after = &b->weight[y - o->y0][-o->x0];
        const float *restrict before = &b->weight[y - o->y0 - o->dy][-o->x0 - o->dx];
        int row = b->margin + y, left = b->margin;
        for (int x = 0; x < b->width; x++) {
            b->weight_sum[y][x] += after[x] + before[x];
            for (int c = 0; c < channels; c++) {
                b->sum[c][y][x] += after[x] * b->plane[c][row + o->dy][left + x + o->dx] +
                                   before[x] * b->plane[c][row - o->dy][left + x - o->dx];
            }
        }
    }
}

SIMD_BODY void add_offset_of(struct block *b, int dx, int dy, int channels, int patch)
{
    struct offset o = make_offset(b, dx, dy);

    sum_rows(b, &o, channels, patch);
    make_weights(b, &o, patch);
    if (dx == 0 && dy == 0) {
        add_center(b, channels);
    } else {
        add_pair(b, &o, channels);
    }
}

/* The usual patches with their loops unrolled. */
SIMD_BODY void add_offset_channels(struct block *b, int dx, int dy, int channels)
{
    switch (b->patch) {
    case 1:
        add_offset_of(b, dx, dy, channels, 1);
        break;
    case 2:
        add_offset_of(b, dx, dy, channels, 2);
        break;
    case 3:
        add_offset_of(b, dx, dy, channels, 3);
        break;
    default:
        add_offset_of(b, dx, dy, channels, b->patch);
    }
}

SIMD_CLONES static void add_offset_gray(struct block *b, int dx, int dy)
{
    add_offset_channels(b, dx, dy, 1);
}

SIMD_CLONES static void add_offset_rgb(struct block *b, int dx, int dy)
{
    add_offset_channels(b, dx, dy, 3);
}

static int64_t clamp(int64_t v, int64_t max)
{
    return v < 0 ? 0 : v > max ? max : v;
}

static float load_sample(const struct denoise *d, const uint8_t *row, size_t index)
{
    if (d->body->dtype == VGPU_DTYPE_U8) {
        return row[index] * d->scale;
    }
    return ((const float *)(const void *)row)[index] * d->scale;
}

/* Copy the surroundings of the block whose first pixel is (x0, y0) of the input. */
static void load_block(const struct denoise *d, struct block *b, int64_t x0, int64_t y0)
{
    const struct vgpu_denoise *body = d->body;

    for (int y = 0; y < b->height + 2 * b->margin; y++) {
        int64_t from_y = clamp(y0 - b->margin + y, (int64_t)body->height - 1);
        const uint8_t *row = d->in + from_y * body->stride;
        for (int x = 0; x < b->width + 2 * b->margin; x++) {
            int64_t from_x = clamp(x0 - b->margin + x, (int64_t)body->width - 1);
            for (int c = 0; c < body->channels; c++) {
                b->plane[c][y][x] = load_sample(d, row, (size_t)from_x * body->channels + c);
            }
        }
    }
}

static void store_sample(const struct denoise *d, uint8_t *row, size_t index, float value)
{
    if (d->body->dtype == VGPU_DTYPE_U8) {
        row[index] = (uint8_t)(value / d->scale + 0.5f);
    } else {
        ((float *)(void *)row)[index] = value / d->scale;
    }
}

/* (x0, y0): the block's first pixel in the output. */
static void store_block(const struct denoise *d, const struct block *b, size_t x0, size_t y0)
{
    size_t channels = d->body->channels;
    size_t row_bytes = d->body->w * channels * vgpu_dtype_size(d->body->dtype);

    for (int y = 0; y < b->height; y++) {
        uint8_t *row = d->out + (y0 + y) * row_bytes;
        for (int x = 0; x < b->width; x++) {
            for (size_t c = 0; c < channels; c++) {
                float value = b->sum[c][y][x] / b->weight_sum[y][x];
                store_sample(d, row, (x0 + x) * channels + c, value);
            }
        }
    }
}

static uint32_t run_block(const struct denoise *d, struct block *b, uint32_t x0, uint32_t y0)
{
    const struct vgpu_denoise *body = d->body;
    int search = body->search;

    b->width = (int)(body->w - x0 < BLOCK_W ? body->w - x0 : BLOCK_W);
    b->height = (int)(body->h_out - y0 < BLOCK_H ? body->h_out - y0 : BLOCK_H);
    load_block(d, b, (int64_t)body->x + x0, (int64_t)body->y + y0);
    for (int dy = 0; dy <= search; dy++) {
        uint32_t stop = cpu_stop(d->job);
        if (stop) {
            return stop;
        }
        for (int dx = dy ? -search : 0; dx <= search; dx++) { /* (0, 0) first */
            if (body->channels == 1) {
                add_offset_gray(b, dx, dy);
            } else {
                add_offset_rgb(b, dx, dy);
            }
        }
    }
    store_block(d, b, x0, y0);
    return VGPU_E_OK;
}

static float to_float(double v)
{
    return (float)fmax(fmin(v, FLT_MAX), FLT_MIN);
}

/* weight = exp(-max(sum / n - 2 sigma^2, 0) / h^2) = 2^-(max(sum - 2 sigma^2 n, 0) * falloff) */
static void prepare(struct denoise *d, struct block *b)
{
    const struct vgpu_denoise *body = d->body;
    int side = 2 * body->patch + 1;
    double n = (double)side * side * body->channels;
    int exponent;

    frexp(body->h, &exponent);
    d->scale = (float)ldexp(1.0, exponent > 126 ? -126 : exponent < -126 ? 126 : -exponent);
    double sigma = (double)body->sigma * d->scale, h = (double)body->h * d->scale;
    b->patch = body->patch;
    b->margin = body->patch + body->search;
    b->free_difference = (float)fmin(2 * sigma * sigma * n, FLT_MAX);
    b->falloff = to_float(M_LOG2E / (n * h * h));
}

static uint32_t run_blocks(const struct denoise *d, struct block *b)
{
    for (uint32_t y0 = 0; y0 < d->body->h_out; y0 += BLOCK_H) {
        for (uint32_t x0 = 0; x0 < d->body->w; x0 += BLOCK_W) {
            uint32_t e = run_block(d, b, x0, y0);
            if (e) {
                return e;
            }
        }
    }
    return VGPU_E_OK;
}

uint32_t run_denoise(struct cpu_context *context, const struct gpu_job *job, char *why)
{
    struct denoise d = {
        .job = job,
        .body = ops_body(job->request),
        .in = job->bufs[0].host,
        .out = job->bufs[1].host,
    };
    struct block *b = calloc(1, sizeof(*b));
    uint32_t e;

    (void)context;
    if (!b) {
        return cpu_no_memory(why, sizeof(*b));
    }
    prepare(&d, b);
    e = run_blocks(&d, b);
    free(b);
    return e;
}

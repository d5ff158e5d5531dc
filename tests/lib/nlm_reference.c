/* SPDX-License-Identifier: MIT */
/*
 * nlm_reference - non-local means of a whole picture, to check what came out of the device
 *
 *   nlm-reference make NOISY.ppm EXPECTED.ppm PATCH SEARCH SIGMA H
 *   nlm-reference compare EXPECTED.ppm RESULT.ppm
 *
 * Computes the definition of op DENOISE (proto/vgpu_regs.h) another way than the worker does: the
 * whole picture, a strip of rows at a time, one shift of the search window after the other, patch
 * distances as running sums of exact integers. Shares no code with the worker.
 *
 * compare prints how many samples differ and by how much; exits 0 if none differs by more than 1 and
 * at most one in a thousand differs at all (floating point sums in another order may round a sample
 * the other way), 1 if the result is wrong, 2 if it cannot be checked.
 */
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHANNELS = 3,
    STRIP = 24 /* rows whose sums stay in the cache */,
    EXIT_WRONG = 1,
    EXIT_UNCHECKED = 2
};

struct picture {
    int width, height;
    uint8_t *samples; /* height x width x CHANNELS */
};

static void fail(const char *what, const char *object)
{
    fprintf(stderr, "nlm-reference: %s: %s\n", object, what);
    exit(EXIT_UNCHECKED);
}

static void *allocate(size_t count, size_t size)
{
    void *p = calloc(count, size);
    if (!p) {
        fail("out of memory", "picture");
    }
    return p;
}

static size_t picture_bytes(const struct picture *p)
{
    return (size_t)p->width * (size_t)p->height * CHANNELS;
}

static struct picture picture_read(const char *path)
{
    struct picture p = {0};
    char magic[3] = "", end = 0;
    FILE *f = fopen(path, "rb");
    if (!f) {
        fail(strerror(errno), path);
    }
    if (fscanf(f, "%2s %5d %5d 255%c", magic, &p.width, &p.height, &end) != 4 ||
        strcmp(magic, "P6") != 0 || end != '\n' || p.width < 1 || p.height < 1) {
        fail("not an 8-bit P6 file", path);
    }
    p.samples = allocate(picture_bytes(&p), 1);
    if (fread(p.samples, 1, picture_bytes(&p), f) != picture_bytes(&p)) {
        fail("shorter than its header says", path);
    }
    fclose(f);
    return p;
}

static void picture_write(const char *path, const struct picture *p)
{
    FILE *f = fopen(path, "wb");
    if (!f) {
        fail(strerror(errno), path);
    }
    fprintf(f, "P6\n%d %d\n255\n", p->width, p->height);
    fwrite(p->samples, 1, picture_bytes(p), f);
    if (fclose(f) != 0) {
        fail(strerror(errno), path);
    }
}

/* One colour of the picture, its border repeated on every side so that every shift lies inside. */
struct plane {
    int16_t *exact;
    float *value;
};

struct nlm {
    int width, height; /* of the picture */
    int patch, search, margin;
    int stride;                   /* width + 2 * margin */
    float free_distance, falloff; /* weight = exp(-falloff * max(distance - free_distance, 0)) */
    struct plane plane[CHANNELS];
    float *sum[CHANNELS]; /* weighted samples */
    float *total;         /* weights */
    int32_t *rows;        /* the last 2 * patch + 1 rows of squared differences */
    int32_t *column;      /* their sum */
    int32_t *before;      /* sum of column[0 .. x-1] */
    float *weight;        /* of one row */
};

static void plane_fill(const struct nlm *n, const struct picture *in, int channel)
{
    const struct plane *p = &n->plane[channel];
    for (int y = 0; y < n->height + 2 * n->margin; y++) {
        int from_y = y < n->margin ? 0 : y - n->margin;
        from_y = from_y < n->height ? from_y : n->height - 1;
        for (int x = 0; x < n->stride; x++) {
            int from_x = x < n->margin ? 0 : x - n->margin;
            from_x = from_x < n->width ? from_x : n->width - 1;
            size_t from = (size_t)from_y * (size_t)n->width + (size_t)from_x;
            size_t to = (size_t)y * (size_t)n->stride + (size_t)x;
            p->exact[to] = in->samples[from * CHANNELS + (size_t)channel];
            p->value[to] = p->exact[to];
        }
    }
}

static struct nlm *nlm_new(const struct picture *in, int patch, int search, double sigma, double h)
{
    struct nlm *n = allocate(1, sizeof(*n));
    double samples = (2.0 * patch + 1) * (2.0 * patch + 1) * CHANNELS;
    *n = (struct nlm){
        .width = in->width,
        .height = in->height,
        .patch = patch,
        .search = search,
        .margin = patch + search,
        .stride = in->width + 2 * (patch + search),
        .free_distance = (float)(2 * sigma * sigma * samples),
        .falloff = (float)(1 / (h * h * samples)),
    };
    size_t pixels = (size_t)n->width * (size_t)n->height;
    size_t padded = (size_t)n->stride * (size_t)(n->height + 2 * n->margin);
    size_t span = (size_t)n->width + 2 * (size_t)patch + 1;
    for (int c = 0; c < CHANNELS; c++) {
        n->plane[c].exact = allocate(padded, sizeof(*n->plane[c].exact));
        n->plane[c].value = allocate(padded, sizeof(*n->plane[c].value));
        n->sum[c] = allocate(pixels, sizeof(*n->sum[c]));
        plane_fill(n, in, c);
    }
    n->total = allocate(pixels, sizeof(*n->total));
    n->rows = allocate(span * (2 * (size_t)patch + 1), sizeof(*n->rows));
    n->column = allocate(span, sizeof(*n->column));
    n->before = allocate(span, sizeof(*n->before));
    n->weight = allocate(span, sizeof(*n->weight));
    return n;
}

static void nlm_free(struct nlm *n)
{
    for (int c = 0; c < CHANNELS; c++) {
        free(n->plane[c].exact);
        free(n->plane[c].value);
        free(n->sum[c]);
    }
    free(n->total);
    free(n->rows);
    free(n->column);
    free(n->before);
    free(n->weight);
    free(n);
}

/* Squared differences of a row, added to the column sums in place of the row that leaves them. */
__attribute__((target_clones("avx2", "default"))) static void
square_row(const int16_t *const p[CHANNELS], const int16_t *const q[CHANNELS], int span,
           int32_t *restrict oldest, int32_t *restrict column)
{
    for (int x = 0; x < span; x++) {
        int a = p[0][x] - q[0][x], b = p[1][x] - q[1][x], c = p[2][x] - q[2][x];
        int32_t square = a * a + b * b + c * c;
        column[x] += square - oldest[x];
        oldest[x] = square;
    }
}

/* Patch distances of a row: differences of running sums, exact in 32 bits for rows below 2^31 /
 * (255^2 * CHANNELS * 17) pixels modulo 2^32, which is where differences are taken. */
static void running_sums(const int32_t *column, int span, int32_t *ret_before)
{
    uint32_t sum = 0;
    for (int x = 0; x < span; x++) {
        ret_before[x] = (int32_t)sum;
        sum += (uint32_t)column[x];
    }
    ret_before[span] = (int32_t)sum;
}

__attribute__((target_clones("avx2", "default"))) static void
add_row(const int32_t *restrict before, int side, int width, float free_distance, float falloff,
        const float *const q[CHANNELS], float *restrict weight, float *restrict total,
        float *const sum[CHANNELS])
{
    for (int x = 0; x < width; x++) {
        float distance = (float)(int32_t)((uint32_t)before[x + side] - (uint32_t)before[x]);
        float above = distance - free_distance;
        weight[x] = expf(-falloff * (above > 0 ? above : 0));
        total[x] += weight[x];
    }
    for (int c = 0; c < CHANNELS; c++) {
        float *restrict s = sum[c];
        const float *restrict v = q[c];
        for (int x = 0; x < width; x++) {
            s[x] += weight[x] * v[x];
        }
    }
}

/* One shift of the rows from first to before last. */
static void nlm_add_shift(struct nlm *n, int first, int last, int dx, int dy)
{
    int span = n->width + 2 * n->patch, side = 2 * n->patch + 1;
    ptrdiff_t shift = (ptrdiff_t)dy * n->stride + dx;
    memset(n->rows, 0, (size_t)side * (size_t)span * sizeof(*n->rows));
    memset(n->column, 0, (size_t)span * sizeof(*n->column));
    for (int y = first - n->patch; y < last + n->patch; y++) {
        size_t at = (size_t)(y + n->margin) * (size_t)n->stride + (size_t)n->search;
        const int16_t *p[CHANNELS], *q[CHANNELS];
        for (int c = 0; c < CHANNELS; c++) {
            p[c] = n->plane[c].exact + at;
            q[c] = n->plane[c].exact + at + shift;
        }
        square_row(p, q, span, n->rows + (size_t)((y - first + n->patch) % side) * (size_t)span,
                   n->column);
        if (y < first + n->patch) {
            continue;
        }
        /* The patches around row y - patch are complete. */
        size_t out = (size_t)(y - n->patch) * (size_t)n->width;
        at = (size_t)(y - n->patch + n->margin) * (size_t)n->stride + (size_t)n->margin;
        const float *value[CHANNELS];
        float *sum[CHANNELS];
        for (int c = 0; c < CHANNELS; c++) {
            value[c] = n->plane[c].value + at + shift;
            sum[c] = n->sum[c] + out;
        }
        running_sums(n->column, span, n->before);
        add_row(n->before, side, n->width, n->free_distance, n->falloff, value, n->weight,
                n->total + out, sum);
    }
}

static double parse(const char *text, double min, double max, const char *what)
{
    char *end;
    double value = strtod(text, &end);
    if (*end || end == text || !(value >= min && value <= max)) {
        fail("out of range", what);
    }
    return value;
}

static int make(char **argument)
{
    struct picture picture = picture_read(argument[0]);
    struct nlm *n = nlm_new(&picture, (int)parse(argument[2], 0, 8, "PATCH"),
                            (int)parse(argument[3], 1, 32, "SEARCH"),
                            parse(argument[4], 0, 255, "SIGMA"), parse(argument[5], 0.1, 255, "H"));
    for (int first = 0; first < n->height; first += STRIP) {
        int last = first + STRIP < n->height ? first + STRIP : n->height;
        for (int dy = -n->search; dy <= n->search; dy++) {
            for (int dx = -n->search; dx <= n->search; dx++) {
                nlm_add_shift(n, first, last, dx, dy);
            }
        }
        printf("%s: %d of %d rows\n", argument[0], last, n->height);
        fflush(stdout);
    }
    for (size_t i = 0; i < picture_bytes(&picture) / CHANNELS; i++) {
        for (size_t c = 0; c < CHANNELS; c++) {
            picture.samples[i * CHANNELS + c] = (uint8_t)(n->sum[c][i] / n->total[i] + 0.5f);
        }
    }
    picture_write(argument[1], &picture);
    nlm_free(n);
    free(picture.samples);
    return EXIT_SUCCESS;
}

static int compare(char **argument)
{
    struct picture expected = picture_read(argument[0]), result = picture_read(argument[1]);
    size_t bytes = picture_bytes(&expected), differ = 0;
    int worst = 0;
    bool same_size = expected.width == result.width && expected.height == result.height;
    for (size_t i = 0; i < bytes && same_size; i++) {
        int difference = abs(expected.samples[i] - result.samples[i]);
        worst = difference > worst ? difference : worst;
        differ += difference != 0;
    }
    bool ok = same_size && worst <= 1 && differ <= bytes / 1000;
    if (same_size) {
        printf("%s: %zu of %zu samples differ, by at most %d\n", ok ? "equal" : "WRONG", differ,
               bytes, worst);
    } else {
        printf("WRONG: %d x %d pixels instead of %d x %d\n", result.width, result.height,
               expected.width, expected.height);
    }
    free(expected.samples);
    free(result.samples);
    return ok ? EXIT_SUCCESS : EXIT_WRONG;
}

int main(int argc, char **argv)
{
    if (argc == 8 && strcmp(argv[1], "make") == 0) {
        return make(argv + 2);
    }
    if (argc == 4 && strcmp(argv[1], "compare") == 0) {
        return compare(argv + 2);
    }
    fprintf(stderr, "usage: nlm-reference make NOISY.ppm EXPECTED.ppm PATCH SEARCH SIGMA H\n"
                    "       nlm-reference compare EXPECTED.ppm RESULT.ppm\n");
    return EXIT_UNCHECKED;
}

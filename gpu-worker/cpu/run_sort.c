/* SPDX-License-Identifier: MIT */
/*
 * run_sort.c - SORT on the CPU: stable, by least significant digit
 *
 * Keys become unsigned integers that sort the same way ("ranks"): the sign bit of signed integers
 * is flipped, floats are mapped by their bits, all NaNs to one rank above all numbers and -0 to the
 * rank of +0, and for a descending sort all bits are flipped (which keeps equal keys in order).
 *
 * Ranks are sorted in private memory together with the index of their element; in the end keys and
 * values are gathered from the input by index. Where every rank names one key and there are no
 * values, the index is left out and the keys are made from the ranks.
 *
 * Inputs may change while we read them (a hostile guest). Digits are therefore counted on the
 * private copies, never on the input, and only indices that we made ourselves are followed.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "gpu-worker/cpu/cpu.h"
#include "gpu-worker/cpu/simd.h"
#include "gpu-worker/ops/ops.h"

#define DIGITS 256u
#define SORT_PIECE (UINT64_C(1) << 20) /* elements between looks at the stop flag */

struct pair32 {
    uint32_t rank, index;
};

struct pair64 {
    uint64_t rank;
    uint32_t index;
    uint32_t unused;
};

/* Which of the four layouts the working memory has. */
enum layout { KEYS32, KEYS64, PAIRS32, PAIRS64 };

static const uint8_t layout_bytes[] = {4, 8, sizeof(struct pair32), sizeof(struct pair64)};

#define AT(array, type, i) (((type *)(void *)(array))[i])
#define IN_AT(array, type, i) (((const type *)(const void *)(array))[i])

struct sort {
    const struct gpu_job *job;
    const struct vgpu_sort *body;
    uint32_t key_bytes;
    uint64_t flip; /* all bits of a key for descending, else 0 */
    enum layout layout;
    uint8_t *from, *to; /* working memory, n elements each */
};

/* ---- ranks --------------------------------------------------------------------------------- */

SIMD_BODY uint64_t rank_f32(uint32_t bits)
{
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return UINT32_MAX;
    }
    bits = bits == 0x80000000u ? 0 : bits;
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

SIMD_BODY uint64_t rank_f64(uint64_t bits)
{
    const uint64_t sign = UINT64_C(1) << 63;

    if ((bits & ~sign) > UINT64_C(0x7ff0000000000000)) {
        return UINT64_MAX;
    }
    bits = bits == sign ? 0 : bits;
    return bits & sign ? ~bits : bits | sign;
}

SIMD_BODY uint64_t load_bits(const uint8_t *keys, uint64_t i, uint32_t key_bytes)
{
    switch (key_bytes) {
    case 1:
        return keys[i];
    case 4:
        return IN_AT(keys, uint32_t, i);
    default:
        return IN_AT(keys, uint64_t, i);
    }
}

/* Ascending rank of the bits of a key. Return: a number of 8 * key_bytes bits. */
SIMD_BODY uint64_t rank_of(uint8_t dtype, uint64_t bits)
{
    switch (dtype) {
    case VGPU_DTYPE_F32:
        return rank_f32((uint32_t)bits);
    case VGPU_DTYPE_F64:
        return rank_f64(bits);
    case VGPU_DTYPE_I8:
        return bits ^ 0x80;
    case VGPU_DTYPE_I32:
        return bits ^ 0x80000000u;
    case VGPU_DTYPE_I64:
        return bits ^ (UINT64_C(1) << 63);
    default:
        return bits;
    }
}

/* The bits of the key of a rank, where every rank names one key. */
SIMD_BODY uint64_t bits_of(uint8_t dtype, uint64_t rank)
{
    switch (dtype) {
    case VGPU_DTYPE_F32:
        return rank & 0x80000000u ? rank ^ 0x80000000u : (uint32_t)~rank;
    case VGPU_DTYPE_F64:
        return rank >> 63 ? rank ^ (UINT64_C(1) << 63) : ~rank;
    default:
        return rank_of(dtype, rank);
    }
}

/* ---- load: from the input to ranks in working memory --------------------------------------- */

SIMD_BODY void load_as(const struct sort *s, uint8_t dtype, uint32_t key_bytes, uint64_t start,
                       uint64_t end)
{
    const uint8_t *keys = s->job->bufs[0].host;
    uint64_t flip = s->flip;

    for (uint64_t i = start; i < end; i++) {
        uint64_t rank = rank_of(dtype, load_bits(keys, i, key_bytes)) ^ flip;
        switch (s->layout) {
        case KEYS32:
            AT(s->from, uint32_t, i) = (uint32_t)rank;
            break;
        case KEYS64:
            AT(s->from, uint64_t, i) = rank;
            break;
        case PAIRS32:
            AT(s->from, struct pair32, i) = (struct pair32){(uint32_t)rank, (uint32_t)i};
            break;
        default:
            AT(s->from, struct pair64, i) = (struct pair64){rank, (uint32_t)i, 0};
        }
    }
}

static void load_piece(const struct sort *s, uint64_t start, uint64_t end)
{
    switch (s->body->dtype) {
    case VGPU_DTYPE_F32:
        load_as(s, VGPU_DTYPE_F32, 4, start, end);
        break;
    case VGPU_DTYPE_F64:
        load_as(s, VGPU_DTYPE_F64, 8, start, end);
        break;
    default:
        load_as(s, s->body->dtype, s->key_bytes, start, end);
    }
}

/* ---- sort ---------------------------------------------------------------------------------- */

SIMD_BODY uint64_t rank_at(const uint8_t *elements, enum layout layout, uint64_t i)
{
    switch (layout) {
    case KEYS32:
        return IN_AT(elements, uint32_t, i);
    case KEYS64:
        return IN_AT(elements, uint64_t, i);
    case PAIRS32:
        return IN_AT(elements, struct pair32, i).rank;
    default:
        return IN_AT(elements, struct pair64, i).rank;
    }
}

SIMD_BODY void count_as(const struct sort *s, enum layout layout, unsigned shift,
                        uint32_t *restrict counts, uint64_t start, uint64_t end)
{
    for (uint64_t i = start; i < end; i++) {
        counts[rank_at(s->from, layout, i) >> shift & (DIGITS - 1)]++;
    }
}

SIMD_BODY void move_as(const struct sort *s, enum layout layout, unsigned shift,
                       uint32_t *restrict places, uint64_t start, uint64_t end)
{
    for (uint64_t i = start; i < end; i++) {
        uint32_t to = places[rank_at(s->from, layout, i) >> shift & (DIGITS - 1)]++;
        memcpy(s->to + (uint64_t)to * layout_bytes[layout], s->from + i * layout_bytes[layout],
               layout_bytes[layout]);
    }
}

/* One body per layout, so that the sizes are constants in it. */
typedef void (*sort_piece)(const struct sort *s, unsigned shift, uint32_t *restrict digits,
                           uint64_t start, uint64_t end);

#define SORT_LAYOUT(layout)                                                                     \
    static void count_##layout(const struct sort *s, unsigned shift, uint32_t *restrict digits, \
                               uint64_t start, uint64_t end)                                    \
    {                                                                                           \
        count_as(s, layout, shift, digits, start, end);                                         \
    }                                                                                           \
    static void move_##layout(const struct sort *s, unsigned shift, uint32_t *restrict digits,  \
                              uint64_t start, uint64_t end)                                     \
    {                                                                                           \
        move_as(s, layout, shift, digits, start, end);                                          \
    }

SORT_LAYOUT(KEYS32)
SORT_LAYOUT(KEYS64)
SORT_LAYOUT(PAIRS32)
SORT_LAYOUT(PAIRS64)

static const sort_piece count_pieces[] = {count_KEYS32, count_KEYS64, count_PAIRS32, count_PAIRS64};
static const sort_piece move_pieces[] = {move_KEYS32, move_KEYS64, move_PAIRS32, move_PAIRS64};

/* Do something to all elements, piece by piece. Return: VGPU_E_OK, or the error to end with. */
static uint32_t for_pieces(const struct sort *s, sort_piece piece, unsigned shift, uint32_t *digits)
{
    uint64_t n = s->body->n;

    for (uint64_t start = 0; start < n; start += SORT_PIECE) {
        uint32_t stop = cpu_stop(s->job);
        if (stop) {
            return stop;
        }
        piece(s, shift, digits, start, n - start < SORT_PIECE ? n : start + SORT_PIECE);
    }
    return VGPU_E_OK;
}

/* From counts to the place of each digit's first element. Return: whether any element moves. */
static bool make_places(uint32_t *digits, uint64_t n)
{
    uint32_t place = 0;

    for (unsigned d = 0; d < DIGITS; d++) {
        uint32_t count = digits[d];
        if (count == n) {
            return false;
        }
        digits[d] = place;
        place += count;
    }
    return true;
}

static uint32_t sort_ranks(struct sort *s)
{
    uint32_t e = VGPU_E_OK;

    for (unsigned shift = 0; shift < s->key_bytes * 8 && !e; shift += 8) {
        uint32_t digits[DIGITS] = {0};
        e = for_pieces(s, count_pieces[s->layout], shift, digits);
        if (!e && make_places(digits, s->body->n)) {
            e = for_pieces(s, move_pieces[s->layout], shift, digits);
            uint8_t *swap = s->from;
            s->from = s->to;
            s->to = swap;
        }
    }
    return e;
}

/* ---- store: from working memory to the output ---------------------------------------------- */

static void store_bits(uint8_t *keys, uint64_t i, uint32_t bytes, uint64_t bits)
{
    switch (bytes) {
    case 1:
        keys[i] = (uint8_t)bits;
        break;
    case 2:
        AT(keys, uint16_t, i) = (uint16_t)bits;
        break;
    case 4:
        AT(keys, uint32_t, i) = (uint32_t)bits;
        break;
    default:
        AT(keys, uint64_t, i) = bits;
    }
}

static void store_keys(const struct sort *s, unsigned shift, uint32_t *restrict digits,
                       uint64_t start, uint64_t end)
{
    uint8_t *out = s->job->bufs[1].host;

    (void)shift, (void)digits;
    for (uint64_t i = start; i < end; i++) {
        uint64_t rank = rank_at(s->from, s->layout, i) ^ s->flip;
        store_bits(out, i, s->key_bytes, bits_of(s->body->dtype, rank));
    }
}

static uint32_t index_at(const struct sort *s, uint64_t i)
{
    return s->layout == PAIRS32 ? IN_AT(s->from, struct pair32, i).index
                                : IN_AT(s->from, struct pair64, i).index;
}

SIMD_BODY void gather_as(const struct sort *s, const uint8_t *in, uint8_t *out, uint32_t bytes,
                         uint64_t start, uint64_t end)
{
    for (uint64_t i = start; i < end; i++) {
        memcpy(out + i * bytes, in + (uint64_t)index_at(s, i) * bytes, bytes);
    }
}

static void gather(const struct sort *s, const uint8_t *in, uint8_t *out, uint32_t bytes,
                   uint64_t start, uint64_t end)
{
    switch (bytes) {
    case 1:
        gather_as(s, in, out, 1, start, end);
        break;
    case 2:
        gather_as(s, in, out, 2, start, end);
        break;
    case 4:
        gather_as(s, in, out, 4, start, end);
        break;
    default:
        gather_as(s, in, out, 8, start, end);
    }
}

static void store_pairs(const struct sort *s, unsigned shift, uint32_t *restrict digits,
                        uint64_t start, uint64_t end)
{
    const struct gpu_buf *bufs = s->job->bufs;
    uint32_t value_size = s->body->value_size;

    (void)shift, (void)digits;
    if (value_size) {
        gather(s, bufs[0].host, bufs[2].host, s->key_bytes, start, end);
        gather(s, bufs[1].host, bufs[3].host, value_size, start, end);
    } else {
        gather(s, bufs[0].host, bufs[1].host, s->key_bytes, start, end);
    }
}

/* ---- the whole ----------------------------------------------------------------------------- */

static void load_keys(const struct sort *s, unsigned shift, uint32_t *restrict digits,
                      uint64_t start, uint64_t end)
{
    (void)shift, (void)digits;
    load_piece(s, start, end);
}

/* Sets digits[0] when two different keys have the same rank: NaNs, or -0 (beside +0). */
static void find_ambiguous(const struct sort *s, unsigned shift, uint32_t *restrict digits,
                           uint64_t start, uint64_t end)
{
    const uint8_t *keys = s->job->bufs[0].host;
    uint8_t dtype = s->body->dtype;

    (void)shift;
    for (uint64_t i = start; i < end; i++) {
        uint64_t bits = load_bits(keys, i, s->key_bytes);
        digits[0] |= bits_of(dtype, rank_of(dtype, bits)) != bits;
    }
}

static uint32_t choose_layout(struct sort *s)
{
    bool is_float = s->body->dtype == VGPU_DTYPE_F32 || s->body->dtype == VGPU_DTYPE_F64;
    bool wide = s->key_bytes == 8;
    uint32_t ambiguous[1] = {0};
    uint32_t e = VGPU_E_OK;

    if (is_float && !s->body->value_size) {
        e = for_pieces(s, find_ambiguous, 0, ambiguous);
    }
    if (s->body->value_size || ambiguous[0]) {
        s->layout = wide ? PAIRS64 : PAIRS32;
    } else {
        s->layout = wide ? KEYS64 : KEYS32;
    }
    return e;
}

static uint32_t run(struct sort *s)
{
    uint32_t e = for_pieces(s, load_keys, 0, NULL);

    if (!e) {
        e = sort_ranks(s);
    }
    if (!e) {
        bool pairs = s->layout == PAIRS32 || s->layout == PAIRS64;
        e = for_pieces(s, pairs ? store_pairs : store_keys, 0, NULL);
    }
    return e;
}

static uint64_t all_bits(uint32_t bytes)
{
    return (bytes < 8 ? UINT64_C(1) << (8 * bytes) : 0) - 1;
}

uint32_t run_sort(struct cpu_context *context, const struct gpu_job *job, char *why)
{
    struct sort s = {.job = job, .body = ops_body(job->request)};

    (void)context;
    s.key_bytes = vgpu_dtype_size(s.body->dtype);
    s.flip = s.body->descending ? all_bits(s.key_bytes) : 0;
    uint32_t e = choose_layout(&s);
    if (e) {
        return e;
    }
    uint64_t bytes = s.body->n * layout_bytes[s.layout];
    uint8_t *work = malloc(2 * bytes);
    if (!work) {
        return cpu_no_memory(why, 2 * bytes);
    }
    s.from = work;
    s.to = work + bytes;
    e = run(&s);
    free(work);
    return e;
}

/* SPDX-License-Identifier: MIT */
/*
 * test_request_builder.c - what the library makes is a request that the product's own parser
 * accepts, with every buffer where it belongs and every length as proto/vgpu_regs.h says
 */
#include <errno.h>
#include <string.h>

#include "common/core/request.h"
#include "guest/lib/client.h"
#include "tests/lib/fakedev/fake.h"
#include "tests/unit/unit.h"

/* ---- placement, without a device ---- */

#define ARENA 65536u
static uint8_t arena[ARENA + 64] __attribute__((aligned(64)));
static uint8_t elsewhere[8192];

#define IN VGPU_BUF_IN
#define OUT VGPU_BUF_OUT
#define NONE 99

struct want {
    uint8_t dir;
    uint8_t *memory;
    uint64_t length;
    uint8_t place;   /* expected */
    uint64_t offset; /* expected, unless staged */
};

/* clang-format off */
static const struct placement {
    const char *name;
    bool has_arena;
    uint32_t body_len;
    int result;
    struct want bufs[4];
} placements[] = {
    { "no buffers", true, 0, 0, { { 0 } } },
    { "small ones go inline", true, 8, 0,
      { { IN, elsewhere, 100, ENCODE_INLINE, 104 }, { OUT, elsewhere, 100, ENCODE_INLINE, 0 } } },
    { "inline ones are aligned to 8", true, 0, 0,
      { { IN, elsewhere, 3, ENCODE_INLINE, 144 }, { IN, elsewhere, 5, ENCODE_INLINE, 152 },
        { OUT, elsewhere, 9, ENCODE_INLINE, 0 }, { OUT, elsewhere, 1, ENCODE_INLINE, 16 } } },
    { "the arena's own memory stays there", true, 0, 0,
      { { IN, arena, 64, ENCODE_ARENA, 0 }, { OUT, arena + 128, 5000, ENCODE_ARENA, 128 } } },
    { "up to the very end of the arena", true, 0, 0,
      { { IN, arena + 65536 - 64, 64, ENCODE_ARENA, 65472 } } },
    { "but not beyond", true, 0, 0, { { IN, arena + 65536 - 64, 65, ENCODE_INLINE, 72 } } },
    { "misaligned memory of the arena is copied", true, 0, 0,
      { { IN, arena + 8, 1000, ENCODE_STAGED, 0 } } },
    { "long ones are staged", true, 0, 0,
      { { IN, elsewhere, 257, ENCODE_STAGED, 0 }, { OUT, elsewhere, 8192, ENCODE_STAGED, 0 } } },
    { "short but no room left in the request", true, 0, 0,
      { { IN, elsewhere, 256, ENCODE_INLINE, 144 }, { IN, elsewhere, 256, ENCODE_INLINE, 400 },
        { IN, elsewhere, 256, ENCODE_INLINE, 656 }, { IN, elsewhere, 256, ENCODE_STAGED, 0 } } },
    { "without an arena longer ones go inline", false, 0, 0,
      { { IN, elsewhere, 928, ENCODE_INLINE, 96 }, { OUT, elsewhere, 960, ENCODE_INLINE, 0 } } },
    { "until nothing fits: input", false, 0, -EMSGSIZE,
      { { IN, elsewhere, 953, ENCODE_INLINE, 0 } } },
    { "until nothing fits: output", false, 0, -EMSGSIZE,
      { { OUT, elsewhere, 961, ENCODE_INLINE, 0 } } },
    { "a length that wraps around", false, 0, -EMSGSIZE,
      { { IN, elsewhere, UINT64_MAX, ENCODE_INLINE, 0 } } },
};
/* clang-format on */

static struct transport_limits limits_of(const struct placement *c)
{
    return (struct transport_limits){
        .depth = 1,
        .request_max = VGPU_WINDOW_SIZE,
        .payload_max = VGPU_PAYLOAD_MAX,
        .inline_best = 256,
        .arena = c->has_arena ? arena : NULL,
        .arena_bytes = c->has_arena ? ARENA : 0,
    };
}

static void fill(struct encode_spec *s, const struct placement *c)
{
    memset(s, 0, sizeof(*s));
    s->hdr.op = VGPU_OP_ECHO;
    s->hdr.band = VGPU_BAND_DEFAULT;
    s->hdr.tag = 0x1122334455667788;
    s->body_len = c->body_len;
    while (s->nbufs < 4 && c->bufs[s->nbufs].dir) {
        const struct want *w = &c->bufs[s->nbufs];

        s->bufs[s->nbufs++] =
            (struct encode_buf){.memory = w->memory, .length = w->length, .dir = w->dir};
    }
}

/* Staged buffers get places of their own, as the arena would give them. */
static void place_staged(struct encode_spec *s)
{
    uint64_t at = 16384;

    for (unsigned i = 0; i < s->nbufs; i++) {
        if (s->bufs[i].place == ENCODE_STAGED) {
            s->bufs[i].offset = at;
            at += 16384;
        }
    }
}

START_TEST(placement)
{
    const struct placement *c = &placements[_i];
    struct transport_limits limits = limits_of(c);
    struct request_limits parse = {.max_size = VGPU_WINDOW_SIZE,
                                   .payload_max = VGPU_PAYLOAD_MAX,
                                   .arena_size = limits.arena_bytes};
    struct encode_spec s;
    struct request r;
    uint8_t bytes[VGPU_WINDOW_SIZE];
    char why[REQUEST_WHY_MAX] = "";
    uint32_t len;

    fill(&s, c);
    ck_assert_msg(encode_place(&s, &limits) == c->result, "%s", c->name);
    if (c->result) {
        return;
    }
    for (unsigned i = 0; i < s.nbufs; i++) {
        ck_assert_msg(s.bufs[i].place == c->bufs[i].place, "%s: buffer %u", c->name, i);
        ck_assert_msg(s.bufs[i].place == ENCODE_STAGED || s.bufs[i].offset == c->bufs[i].offset,
                      "%s: buffer %u is at %lu", c->name, i, (unsigned long)s.bufs[i].offset);
    }
    place_staged(&s);
    memset(bytes, 0xee, sizeof(bytes));
    len = encode_write(&s, bytes);
    ck_assert_uint_le(len, sizeof(bytes));
    ck_assert_msg(request_parse(bytes, len, &parse, &r, why) == VGPU_E_OK, "%s: %s", c->name, why);
    ck_assert_uint_eq(r.hdr.tag, s.hdr.tag);
    ck_assert_uint_eq(r.hdr.nbufs, s.nbufs);
}
END_TEST

START_TEST(inline_data)
{
    struct placement c = {.has_arena = true,
                          .bufs = {{IN, elsewhere, 5, 0, 0}, {IN, elsewhere + 8, 4, 0, 0}}};
    struct transport_limits limits = limits_of(&c);
    struct encode_spec s;
    uint8_t bytes[VGPU_WINDOW_SIZE];
    uint32_t len;

    memcpy(elsewhere, "hello...abcd", sizeof("hello...abcd"));
    memset(bytes, 0xee, sizeof(bytes));
    fill(&s, &c);
    ck_assert_int_eq(encode_place(&s, &limits), 0);
    len = encode_write(&s, bytes);
    ck_assert_uint_eq(len, 96 + 12);
    ck_assert_mem_eq(bytes + 96, "hello\0\0\0abcd", 12); /* gaps carry nothing of older data */
}
END_TEST

/* ---- the operations ---- */

static struct fake *fake;
static struct vgpu *gpu;
static struct vgpu_request *req;

static void setup(void)
{
    struct fake_config config = {.shm_bytes = 1 << 20};
    struct place place;
    struct transport *t;
    struct vgpu_err err;

    fake = fake_new(&config);
    place = fake_place(fake);
    ck_assert_int_eq(path_open(&place, VGPU_PATH_AUTO, &t, &err), 0);
    ck_assert_int_eq(client_new(t, NULL, &gpu), 0);
    req = vgpu_request_new(gpu);
    ck_assert_ptr_nonnull(req);
}

static void teardown(void)
{
    vgpu_request_free(req);
    vgpu_close(gpu);
    fake_free(fake);
}

static void lengths(const char *name, unsigned n, const uint64_t *want)
{
    ck_assert_msg(req->spec.nbufs == n, "%s: %u buffers", name, req->spec.nbufs);
    for (unsigned i = 0; i < n; i++) {
        ck_assert_msg(req->spec.bufs[i].length == want[i], "%s: buffer %u has %lu bytes", name, i,
                      (unsigned long)req->spec.bufs[i].length);
    }
}
#define LENGTHS(name, ...) \
    lengths(name, sizeof((uint64_t[]){__VA_ARGS__}) / 8, (uint64_t[]){__VA_ARGS__})

static uint8_t m[64]; /* memory that is never touched */

START_TEST(axpy_lengths)
{
    struct vgpu_axpy op = {.dtype = VGPU_DTYPE_F64, .n = 10, .incx = 3, .incy = 1};

    ck_assert_int_eq(vgpu_axpy(req, &op, m, m, m), 0);
    LENGTHS("axpy", 28 * 8, 10 * 8, 10 * 8);
    op.incx = UINT64_MAX;
    ck_assert_int_eq(vgpu_axpy(req, &op, m, m, m), -EOVERFLOW);
    ck_assert_int_eq(vgpu_submit(req), -EOVERFLOW);
    op.n = 0;
    ck_assert_int_eq(vgpu_axpy(req, &op, m, m, m), -EINVAL);
    op = (struct vgpu_axpy){.dtype = 77, .n = 1, .incx = 1, .incy = 1};
    ck_assert_int_eq(vgpu_axpy(req, &op, m, m, m), -EINVAL);
    ck_assert_ptr_nonnull(strstr(vgpu_result_text(req), "data type is unknown"));
}
END_TEST

START_TEST(reduce_types)
{
    static const struct {
        uint8_t dtype, kind;
        unsigned result;
    } cases[] = {
        {VGPU_DTYPE_F32, VGPU_REDUCE_SUM, VGPU_DTYPE_F64},
        {VGPU_DTYPE_I8, VGPU_REDUCE_SUM, VGPU_DTYPE_I64},
        {VGPU_DTYPE_U32, VGPU_REDUCE_SUM, VGPU_DTYPE_U64},
        {VGPU_DTYPE_U8, VGPU_REDUCE_MIN, VGPU_DTYPE_U8},
        {VGPU_DTYPE_F64, VGPU_REDUCE_MAX, VGPU_DTYPE_F64},
        {VGPU_DTYPE_F32, VGPU_REDUCE_ARGMAX, VGPU_DTYPE_U64},
        {VGPU_DTYPE_F16, VGPU_REDUCE_SUM, 0},
        {VGPU_DTYPE_F32, 9, 0},
    };

    for (size_t i = 0; i < N_ELEMS(cases); i++) {
        struct vgpu_reduce op = {
            .dtype = cases[i].dtype, .kind = cases[i].kind, .n = 5, .stride = 2};
        uint64_t e = vgpu_dtype_size(op.dtype), r = vgpu_dtype_size(cases[i].result);

        ck_assert_uint_eq(vgpu_reduce_dtype(&op), cases[i].result);
        ck_assert_int_eq(vgpu_reduce(req, &op, m, m), 0);
        LENGTHS("reduce", 9 * e, r ? r : 8);
    }
}
END_TEST

START_TEST(gemm_lengths)
{
    struct vgpu_gemm op = {
        .dtype = VGPU_DTYPE_F32, .m = 2, .n = 3, .k = 4, .lda = 4, .ldb = 3, .alpha = 1};

    ck_assert_int_eq(vgpu_gemm(req, &op, m, m, NULL, m), 0);
    LENGTHS("plain", 8 * 4, 12 * 4, 6 * 4);
    op.lda = 10; /* a part of a wider matrix: the last row ends early */
    op.beta = 0.5;
    op.ldc = 3;
    ck_assert_int_eq(vgpu_gemm(req, &op, m, m, m, m), 0);
    LENGTHS("strided, with C", 14 * 4, 12 * 4, 6 * 4, 6 * 4);
    ck_assert_int_eq(vgpu_gemm(req, &op, m, m, NULL, m), -EINVAL);
    op = (struct vgpu_gemm){.dtype = VGPU_DTYPE_F32,
                            .trans_a = 1,
                            .trans_b = 1,
                            .m = 2,
                            .n = 3,
                            .k = 4,
                            .lda = 2,
                            .ldb = 4,
                            .alpha = 1};
    ck_assert_int_eq(vgpu_gemm(req, &op, m, m, NULL, m), 0);
    LENGTHS("transposed", 8 * 4, 12 * 4, 6 * 4);
    op.m = op.n = UINT64_C(1) << 40;
    op.lda = 0;
    ck_assert_int_eq(vgpu_gemm(req, &op, m, m, NULL, m), -EOVERFLOW);
}
END_TEST

START_TEST(fft_lengths)
{
    struct vgpu_fft op = {.dtype = VGPU_DTYPE_F32, .rank = 1, .n0 = 9, .batch = 2};

    ck_assert_int_eq(vgpu_fft(req, &op, m, m), 0);
    LENGTHS("c2c", 2 * 9 * 8, 2 * 9 * 8);
    op.kind = VGPU_FFT_R2C;
    ck_assert_int_eq(vgpu_fft(req, &op, m, m), 0);
    LENGTHS("r2c", 2 * 9 * 4, 2 * 5 * 8);
    op = (struct vgpu_fft){.dtype = VGPU_DTYPE_F64,
                           .kind = VGPU_FFT_C2R,
                           .direction = VGPU_FFT_INVERSE,
                           .rank = 2,
                           .n0 = 3,
                           .n1 = 8,
                           .batch = 1};
    ck_assert_int_eq(vgpu_fft(req, &op, m, m), 0);
    LENGTHS("c2r, 2-D", 3 * 5 * 16, 3 * 8 * 8);
    op.n0 = op.n1 = UINT64_C(1) << 31;
    op.batch = 8;
    ck_assert_int_eq(vgpu_fft(req, &op, m, m), -EOVERFLOW);
    op.batch = 0;
    ck_assert_int_eq(vgpu_fft(req, &op, m, m), -EINVAL);
}
END_TEST

START_TEST(sort_and_denoise_lengths)
{
    struct vgpu_sort sort = {.dtype = VGPU_DTYPE_U8, .n = 10};
    struct vgpu_denoise denoise = {.dtype = VGPU_DTYPE_U8,
                                   .channels = 3,
                                   .width = 10,
                                   .height = 4,
                                   .stride = 64,
                                   .w = 6,
                                   .h_out = 2};

    ck_assert_int_eq(vgpu_sort(req, &sort, m, NULL, m, NULL), 0);
    LENGTHS("keys", 10, 10);
    sort.value_size = 4;
    ck_assert_int_eq(vgpu_sort(req, &sort, m, m, m, m), 0);
    LENGTHS("keys and values", 10, 40, 10, 40);
    ck_assert_int_eq(vgpu_denoise(req, &denoise, m, m), 0);
    LENGTHS("denoise", 3 * 64 + 30, 6 * 2 * 3);
    denoise.h_out = 0;
    ck_assert_int_eq(vgpu_denoise(req, &denoise, m, m), -EINVAL);
}
END_TEST

START_TEST(builder_errors)
{
    ck_assert_int_eq(vgpu_request_begin(req, 1 << 16), -EINVAL);
    ck_assert_int_eq(vgpu_request_begin(req, VGPU_OP_ECHO), 0);
    ck_assert_int_eq(vgpu_request_body(req, m, 12), -EINVAL);
    ck_assert_int_eq(vgpu_request_in(req, m, 8), -EINVAL); /* what is wrong stays wrong */
    ck_assert_int_eq(vgpu_submit(req), -EINVAL);
    ck_assert_int_eq(vgpu_request_begin(req, VGPU_OP_ECHO), 0);
    ck_assert_int_eq(vgpu_request_body(req, m, 4096), -EMSGSIZE);
    ck_assert_int_eq(vgpu_request_begin(req, VGPU_OP_ECHO), 0);
    ck_assert_int_eq(vgpu_request_in(req, m, 0), -EINVAL);
    ck_assert_int_eq(vgpu_request_begin(req, VGPU_OP_ECHO), 0);
    for (unsigned i = 0; i < VGPU_BUFS_MAX; i++) {
        ck_assert_int_eq(vgpu_request_in(req, m, 8), 0);
    }
    ck_assert_int_eq(vgpu_request_out(req, m, 8), -E2BIG);
    ck_assert_ptr_nonnull(strstr(vgpu_result_text(req), "buffer number 17"));
    ck_assert_int_eq(vgpu_request_begin(req, VGPU_OP_ECHO), 0);
    ck_assert_int_eq(vgpu_poll(req), -EINVAL);
}
END_TEST

static const struct {
    int code;
    const char *name;
    const char *says;
} texts[] = {
    {0, "OK", "done"},
    {VGPU_E_BAD_SHAPE, "BAD_SHAPE", "sizes"},
    {VGPU_E_INTERNAL, "INTERNAL", "fault"},
    {9999, "UNKNOWN", "does not know"},
    {-ENOMEM, "ENOMEM", "arena"},
    {-EACCES, "EACCES", "root"},
    {-EXDEV, "EXDEV", "link"},
    {-99999, "UNKNOWN", "unknown"},
};

START_TEST(code_texts)
{
    ck_assert_str_eq(vgpu_code_name(texts[_i].code), texts[_i].name);
    ck_assert_msg(strstr(vgpu_code_text(texts[_i].code), texts[_i].says) != NULL, "%s: %s",
                  texts[_i].name, vgpu_code_text(texts[_i].code));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("request_builder");
    TCase *place = tcase_create("place"), *ops = tcase_create("ops");

    tcase_add_loop_test(place, placement, 0, (int)N_ELEMS(placements));
    tcase_add_test(place, inline_data);
    tcase_add_loop_test(place, code_texts, 0, (int)N_ELEMS(texts));
    tcase_add_checked_fixture(ops, setup, teardown);
    tcase_add_test(ops, axpy_lengths);
    tcase_add_test(ops, reduce_types);
    tcase_add_test(ops, gemm_lengths);
    tcase_add_test(ops, fft_lengths);
    tcase_add_test(ops, sort_and_denoise_lengths);
    tcase_add_test(ops, builder_errors);
    suite_add_tcase(s, place);
    suite_add_tcase(s, ops);
    return unit_run(s);
}

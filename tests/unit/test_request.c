/* SPDX-License-Identifier: MIT */
/* test_request.c - which requests and responses are well formed, and with which code others end */
#include <string.h>

#include "common/core/request.h"
#include "tests/unit/unit.h"

/* An ECHO of 16 bytes inline, with 32 bytes of inline data: the base of every case. */
struct image {
    struct vgpu_req_hdr h;
    struct vgpu_buf b[VGPU_BUFS_MAX];
    uint8_t tail[512];
};

static const struct request_limits limits = {
    .max_size = 1024, .payload_max = VGPU_PAYLOAD_MAX, .arena_size = 1 << 20};

static uint32_t inline_start(const struct image *m)
{
    return (uint32_t)(sizeof(m->h) + m->h.nbufs * sizeof(m->b[0]) + m->h.body_len);
}

static struct image base(void)
{
    struct image m = {.h = {.version = 1,
                            .op = VGPU_OP_ECHO,
                            .band = VGPU_BAND_DEFAULT,
                            .nbufs = 2,
                            .tag = 0x1122334455667788}};

    m.h.size = inline_start(&m) + 32;
    m.b[0] = (struct vgpu_buf){
        .kind = VGPU_BUF_INLINE, .dir = VGPU_BUF_IN, .offset = inline_start(&m), .length = 16};
    m.b[1] = (struct vgpu_buf){.kind = VGPU_BUF_INLINE, .dir = VGPU_BUF_OUT, .length = 16};
    return m;
}

static size_t encode(const struct image *m, uint8_t *out)
{
    size_t list = (m->h.nbufs < VGPU_BUFS_MAX ? m->h.nbufs : VGPU_BUFS_MAX) * sizeof(m->b[0]);

    memcpy(out, &m->h, sizeof(m->h));
    memcpy(out + sizeof(m->h), m->b, list);
    memcpy(out + sizeof(m->h) + list, m->tail, sizeof(m->tail));
    return m->h.size;
}

static void arena(struct image *m, unsigned i, uint8_t dir, uint64_t offset, uint64_t length)
{
    m->b[i] =
        (struct vgpu_buf){.kind = VGPU_BUF_ARENA, .dir = dir, .offset = offset, .length = length};
}

/* clang-format off */
static void ok(struct image *m) { (void)m; }
static void version(struct image *m) { m->h.version = 2; }
static void size_small(struct image *m) { m->h.size = 40; }
static void flags(struct image *m) { m->h.flags = 1u << 31; }
static void reserved(struct image *m) { m->h.reserved[3] = 1; }
static void band(struct image *m) { m->h.band = 4; }
static void many(struct image *m) { m->h.nbufs = 17; }
static void body_odd(struct image *m) { m->h.body_len = 4; }
static void body_long(struct image *m) { m->h.body_len = 1000; }
static void kind_gpa(struct image *m) { m->b[0].kind = VGPU_BUF_GPA; }
static void dir_none(struct image *m) { m->b[0].dir = 0; }
static void dir_both(struct image *m) { m->b[0].dir = 3; }
static void object_off(struct image *m) { m->b[0].kind = VGPU_BUF_OBJECT; }
static void temp_off(struct image *m) { m->b[0].kind = VGPU_BUF_TEMP; m->b[0].dir = 0; }
static void buf_reserved(struct image *m) { m->b[1].reserved = 1; }
static void buf_aux(struct image *m) { m->b[1].aux = 8; }
static void len_zero(struct image *m) { m->b[1].length = 0; }
static void inline_early(struct image *m) { m->b[0].offset -= 8; }
static void inline_odd(struct image *m) { m->b[0].offset += 4; }
static void inline_past(struct image *m) { m->b[0].length = 33; }
static void inline_wraps(struct image *m) { m->b[0].length = UINT64_MAX; }
static void payload_past(struct image *m) { m->b[1].offset = 952; m->b[1].length = 16; }
static void arena_ok(struct image *m) { arena(m, 1, VGPU_BUF_OUT, (1 << 20) - 64, 64); }
static void arena_odd(struct image *m) { arena(m, 1, VGPU_BUF_OUT, 32, 16); }
static void arena_past(struct image *m) { arena(m, 1, VGPU_BUF_OUT, (1 << 20) - 64, 65); }
static void arena_wraps(struct image *m) { arena(m, 1, VGPU_BUF_OUT, UINT64_MAX - 63, 128); }
static void arena_lap(struct image *m)
{
    arena(m, 0, VGPU_BUF_IN, 64, 128);
    arena(m, 1, VGPU_BUF_OUT, 128, 64);
}
static void arena_meet(struct image *m)
{
    arena(m, 0, VGPU_BUF_IN, 64, 64);
    arena(m, 1, VGPU_BUF_OUT, 128, 64);
}
static void arena_in_in(struct image *m)
{
    arena(m, 0, VGPU_BUF_IN, 64, 64);
    arena(m, 1, VGPU_BUF_IN, 64, 64);
}
static void payload_lap(struct image *m) { m->b[0] = m->b[1]; m->b[0].offset = 8; }
static void info_bufs(struct image *m) { m->h.op = VGPU_OP_INFO; }
static void unknown_op(struct image *m) { m->h.op = 63; }

static const struct {
    const char *name;
    void (*change)(struct image *m);
    uint32_t error;
} requests[] = {
    { "a plain echo is fine", ok, VGPU_E_OK },
    { "an op that only a worker can judge is passed on", unknown_op, VGPU_E_OK },
    { "another version is refused", version, VGPU_E_BAD_VERSION },
    { "a size that is not what was submitted", size_small, VGPU_E_BAD_LENGTH },
    { "an unknown flag", flags, VGPU_E_RESERVED_SET },
    { "a reserved field of the header", reserved, VGPU_E_RESERVED_SET },
    { "a band that does not exist", band, VGPU_E_BAD_PARAM },
    { "17 buffers", many, VGPU_E_TOO_MANY_BUFFERS },
    { "a body of 4 bytes", body_odd, VGPU_E_BAD_LENGTH },
    { "a body longer than the request", body_long, VGPU_E_BAD_LENGTH },
    { "guest-physical buffers are reserved", kind_gpa, VGPU_E_BAD_BUFFER },
    { "a buffer without direction", dir_none, VGPU_E_BAD_BUFFER },
    { "a buffer of both directions", dir_both, VGPU_E_BAD_BUFFER },
    { "objects where they are not offered", object_off, VGPU_E_UNSUPPORTED },
    { "TEMP where it is not offered", temp_off, VGPU_E_UNSUPPORTED },
    { "a reserved field of a buffer", buf_reserved, VGPU_E_RESERVED_SET },
    { "aux of a buffer that has none", buf_aux, VGPU_E_RESERVED_SET },
    { "an empty buffer", len_zero, VGPU_E_BAD_LENGTH },
    { "inline data that starts inside the list", inline_early, VGPU_E_BAD_BUFFER },
    { "inline data at 4 modulo 8", inline_odd, VGPU_E_MISALIGNED },
    { "inline data past the request", inline_past, VGPU_E_BAD_BUFFER },
    { "inline data whose end wraps around", inline_wraps, VGPU_E_BAD_BUFFER },
    { "inline output past the window", payload_past, VGPU_E_BAD_BUFFER },
    { "an output in the arena's last 64 bytes", arena_ok, VGPU_E_OK },
    { "an arena offset of 32", arena_odd, VGPU_E_MISALIGNED },
    { "a byte past the arena", arena_past, VGPU_E_BAD_BUFFER },
    { "an arena offset whose end wraps around", arena_wraps, VGPU_E_BAD_BUFFER },
    { "an output inside an input", arena_lap, VGPU_E_OVERLAP },
    { "an output right behind an input", arena_meet, VGPU_E_OK },
    { "two inputs in one place", arena_in_in, VGPU_E_OK },
    { "two outputs in one place of the payload", payload_lap, VGPU_E_OVERLAP },
    { "INFO with buffers", info_bufs, VGPU_E_BAD_LENGTH },
};
/* clang-format on */

START_TEST(parse)
{
    struct image m = base();
    uint8_t bytes[sizeof(m)];
    struct request r;
    char why[REQUEST_WHY_MAX] = "";
    size_t len = encode(&m, bytes);
    uint32_t e;

    requests[_i].change(&m);
    encode(&m, bytes);
    e = request_parse(bytes, len, &limits, &r, why);
    ck_assert_msg(e == requests[_i].error, "%s: got %s: %s", requests[_i].name, vgpu_error_name(e),
                  why);
    ck_assert_msg((e != 0) == (why[0] != 0), "%s: a sentence exactly on an error",
                  requests[_i].name);
}
END_TEST

START_TEST(parse_sums)
{
    struct image m = base();
    uint8_t bytes[sizeof(m)];
    struct request r;
    char why[REQUEST_WHY_MAX];
    uint64_t offsets[2] = {4096, 8192};

    arena(&m, 0, VGPU_BUF_IN, 64, 100);
    arena(&m, 1, VGPU_BUF_OUT, 192, 200);
    ck_assert_uint_eq(request_parse(bytes, encode(&m, bytes), &limits, &r, why), VGPU_E_OK);
    ck_assert_uint_eq(r.arena_in, 100);
    ck_assert_uint_eq(r.arena_out, 200);
    ck_assert_uint_eq(r.payload_len, 0);
    request_rebase(bytes, &r, offsets);
    ck_assert_uint_eq(request_parse(bytes, m.h.size, &limits, &r, why), VGPU_E_OK);
    ck_assert_uint_eq(r.bufs[0].offset, 4096);
    ck_assert_uint_eq(r.bufs[1].offset, 8192);
}
END_TEST

START_TEST(parse_objects)
{
    struct request_limits with = limits;
    struct image m = base();
    uint8_t bytes[sizeof(m)];
    struct request r;
    char why[REQUEST_WHY_MAX];

    with.features = VGPU_FEATURE_OBJECT;
    m.b[0] = (struct vgpu_buf){.kind = VGPU_BUF_OBJECT,
                               .dir = VGPU_BUF_IN,
                               .aux = inline_start(&m),
                               .offset = 100,
                               .length = 16};
    ck_assert_uint_eq(request_parse(bytes, encode(&m, bytes), &with, &r, why), VGPU_E_OK);
    m.b[0].aux += 1; /* 32 bytes of name no longer fit */
    ck_assert_uint_eq(request_parse(bytes, encode(&m, bytes), &with, &r, why), VGPU_E_BAD_BUFFER);
    m.b[0].aux = inline_start(&m);
    m.b[0].length = UINT64_MAX;
    ck_assert_uint_eq(request_parse(bytes, encode(&m, bytes), &with, &r, why), VGPU_E_BAD_BUFFER);
}
END_TEST

/* Whatever a guest writes, a request that is accepted keeps inside its spaces. */
START_TEST(parse_random)
{
    uint64_t seed = 0x9e3779b97f4a7c15u + (uint64_t)_i;
    unsigned accepted = 0;

    for (int n = 0; n < 20000; n++) {
        struct image m = base();
        uint8_t bytes[sizeof(m)];
        struct request r;
        char why[REQUEST_WHY_MAX];
        size_t len = encode(&m, bytes);

        for (uint64_t k = unit_below(&seed, 4); k > 0; k--) {
            bytes[unit_below(&seed, len)] ^= (uint8_t)(1u << unit_below(&seed, 8));
        }
        if (request_parse(bytes, len, &limits, &r, why) != VGPU_E_OK) {
            continue;
        }
        accepted++;
        for (unsigned i = 0; i < r.hdr.nbufs; i++) {
            uint64_t space = r.bufs[i].kind == VGPU_BUF_ARENA ? limits.arena_size : 1024;

            ck_assert_uint_le(r.bufs[i].offset, space);
            ck_assert_uint_le(r.bufs[i].length, space - r.bufs[i].offset);
        }
        ck_assert_uint_le(r.payload_len, limits.payload_max);
    }
    ck_assert_uint_gt(accepted, 100);
}
END_TEST

START_TEST(truncated)
{
    struct image m = base();
    uint8_t bytes[sizeof(m)];
    struct request r;
    char why[REQUEST_WHY_MAX];
    size_t len = encode(&m, bytes);

    for (size_t n = 0; n < len; n++) {
        ck_assert_uint_eq(request_parse(bytes, n, &limits, &r, why), VGPU_E_BAD_LENGTH);
        ck_assert_uint_eq(request_peek_tag(bytes, n), n < sizeof(m.h) ? 0 : m.h.tag);
    }
}
END_TEST

START_TEST(responses)
{
    uint8_t buf[128];
    struct vgpu_resp_hdr h;
    char why[REQUEST_WHY_MAX];
    uint32_t len = response_error(buf, sizeof(buf), VGPU_OP_GEMM, 7, VGPU_E_BAD_SHAPE, NULL);

    ck_assert_uint_eq(response_check(buf, len, VGPU_OP_GEMM, 7, 960, &h, why), VGPU_E_OK);
    ck_assert_uint_eq(h.error, VGPU_E_BAD_SHAPE);
    ck_assert_mem_eq(buf + sizeof(h), vgpu_error_text(VGPU_E_BAD_SHAPE), len - sizeof(h));
    ck_assert_uint_eq(response_check(buf, len, VGPU_OP_FFT, 7, 960, &h, why), VGPU_E_INTERNAL);
    ck_assert_uint_eq(response_check(buf, len, VGPU_OP_GEMM, 8, 960, &h, why), VGPU_E_INTERNAL);
    ck_assert_uint_eq(response_check(buf, len - 1, VGPU_OP_GEMM, 7, 960, &h, why), VGPU_E_INTERNAL);
    ck_assert_uint_eq(response_check(buf, 63, VGPU_OP_GEMM, 7, 960, &h, why), VGPU_E_INTERNAL);
    ck_assert_uint_eq(response_check(buf, len, VGPU_OP_GEMM, 7, 4, &h, why), VGPU_E_INTERNAL);
    len = response_error(buf, 66, VGPU_OP_GEMM, 7, VGPU_E_INTERNAL, "a long sentence");
    ck_assert_uint_eq(len, 66);
}
END_TEST

START_TEST(names)
{
    ck_assert_str_eq(vgpu_error_name(VGPU_E_OVERLAP), "OVERLAP");
    ck_assert_str_eq(vgpu_error_name(VGPU_E_INTERNAL), "INTERNAL");
    ck_assert_str_eq(vgpu_error_name(VGPU_E_INTERNAL + 1), "UNKNOWN");
    ck_assert_str_eq(vgpu_op_name(VGPU_OP_DENOISE), "denoise");
    ck_assert_str_eq(vgpu_op_name(5), "unknown");
    ck_assert_str_eq(vgpu_band_name(VGPU_BAND_REALTIME), "realtime");
    ck_assert_str_eq(vgpu_band_name(4), "unknown");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("request");
    TCase *tc = tcase_create("request");

    tcase_add_loop_test(tc, parse, 0, N_ELEMS(requests));
    tcase_add_test(tc, parse_sums);
    tcase_add_test(tc, parse_objects);
    tcase_add_loop_test(tc, parse_random, 0, 4);
    tcase_add_test(tc, truncated);
    tcase_add_test(tc, responses);
    tcase_add_test(tc, names);
    suite_add_tcase(s, tc);
    return unit_run(s);
}

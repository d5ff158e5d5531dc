/* SPDX-License-Identifier: MIT */
/* What ops_check() demands of every op: body length, reserved fields, data type; all of ECHO. */
#include <stdbool.h>

#include "test_ops.h"

/* A valid request of each op with its body and its data types. */
static const struct vgpu_axpy axpy = {.dtype = VGPU_DTYPE_F32, .n = 1, .incx = 1, .incy = 1};
static const struct vgpu_reduce reduce = {.dtype = VGPU_DTYPE_F32, .n = 1, .stride = 1};
static const struct vgpu_gemm gemm = {
    .dtype = VGPU_DTYPE_F32, .m = 1, .n = 1, .k = 1, .lda = 1, .ldb = 1, .alpha = 1};
static const struct vgpu_fft fft = {.dtype = VGPU_DTYPE_F32, .rank = 1, .n0 = 1, .batch = 1};
static const struct vgpu_sort sort = {.dtype = VGPU_DTYPE_F32, .n = 1};
static const struct vgpu_denoise denoise = {.dtype = VGPU_DTYPE_F32,
                                            .channels = 1,
                                            .search = 1,
                                            .h = 1,
                                            .width = 1,
                                            .height = 1,
                                            .stride = 4,
                                            .w = 1,
                                            .h_out = 1};

#define BITS(x) (UINT64_C(1) << VGPU_DTYPE_##x)

static const struct form {
    uint16_t op;
    const void *body;
    uint16_t body_bytes;
    struct test_bufs bufs;
    uint64_t dtypes;
    uint8_t reserved[8]; /* offsets of bytes that must be zero; 0 ends */
} forms[] = {
    {VGPU_OP_ECHO, "", 0, {"io", {9, 9}}, 0, {0}},
    {VGPU_OP_AXPY, &axpy, sizeof(axpy), {"iio", {4, 4, 4}}, BITS(F32) | BITS(F64), {1, 4, 7}},
    {VGPU_OP_REDUCE,
     &reduce,
     sizeof(reduce),
     {"io", {4, 8}},
     BITS(F32) | BITS(F64) | BITS(U8) | BITS(I8) | BITS(U32) | BITS(I32),
     {2, 7}},
    {VGPU_OP_GEMM,
     &gemm,
     sizeof(gemm),
     {"iio", {4, 4, 4}},
     BITS(F32) | BITS(F64) | BITS(F16) | BITS(BF16),
     {4, 7}},
    {VGPU_OP_FFT, &fft, sizeof(fft), {"io", {8, 8}}, BITS(F32) | BITS(F64), {4, 7}},
    {VGPU_OP_SORT,
     &sort,
     sizeof(sort),
     {"io", {4, 4}},
     BITS(F32) | BITS(F64) | BITS(U8) | BITS(I8) | BITS(U32) | BITS(I32) | BITS(U64) | BITS(I64),
     {3, 7}},
    {VGPU_OP_DENOISE,
     &denoise,
     sizeof(denoise),
     {"io", {4, 4}},
     BITS(F32) | BITS(U8),
     {12, 15, 44, 47}},
};

START_TEST(the_smallest_request_is_accepted)
{
    const struct form *f = &forms[_i];

    test_ops_case("smallest", f->op, f->body, f->body_bytes, &f->bufs, VGPU_E_OK);
}
END_TEST

START_TEST(the_body_has_exactly_its_length)
{
    const struct form *f = &forms[_i];
    uint8_t body[TEST_OPS_BODY] = {0};

    memcpy(body, f->body, f->body_bytes);
    test_ops_case("longer", f->op, body, f->body_bytes + 8, &f->bufs, VGPU_E_BAD_LENGTH);
    if (f->body_bytes) {
        test_ops_case("shorter", f->op, body, f->body_bytes - 8, &f->bufs, VGPU_E_BAD_LENGTH);
        test_ops_case("none", f->op, body, 0, &f->bufs, VGPU_E_BAD_LENGTH);
    }
}
END_TEST

START_TEST(reserved_fields_are_zero)
{
    const struct form *f = &forms[_i];

    for (unsigned i = 0; i < 8 && f->reserved[i]; i++) {
        uint8_t body[TEST_OPS_BODY];
        memcpy(body, f->body, f->body_bytes);
        body[f->reserved[i]] = 0x80;
        test_ops_case("reserved", f->op, body, f->body_bytes, &f->bufs, VGPU_E_RESERVED_SET);
    }
}
END_TEST

/* Every number of a data type: those of the op pass this step (and may fail a later one). */
START_TEST(data_types_are_those_of_the_op)
{
    const struct form *f = &forms[_i];

    for (unsigned dtype = 0; f->dtypes && dtype < 256; dtype++) {
        struct test_request t;
        uint8_t body[TEST_OPS_BODY];
        memcpy(body, f->body, f->body_bytes);
        body[0] = (uint8_t)dtype;
        test_ops_fill(&t, f->op, body, f->body_bytes, &f->bufs);
        bool refused = ops_check(&t.request, t.why) == VGPU_E_BAD_DTYPE;
        bool known = dtype < 64 && (f->dtypes >> dtype & 1);
        ck_assert_msg(refused == !known, "op %u, dtype %u", f->op, dtype);
        ck_assert_uint_eq(ops_dtype(&t.request), dtype);
    }
}
END_TEST

START_TEST(number_and_directions_of_buffers)
{
    const struct form *f = &forms[_i];
    static const char *const patterns[] = {"",   "i",   "o",   "ii",   "oo",   "oi",
                                           "io", "iio", "ioo", "iiio", "iioo", "iiiio"};

    for (unsigned i = 0; i < N_ELEMS(patterns); i++) {
        struct test_bufs bufs = f->bufs;
        if (strcmp(patterns[i], bufs.dirs) != 0) {
            bufs.dirs = patterns[i];
            test_ops_case(patterns[i], f->op, f->body, f->body_bytes, &bufs, VGPU_E_BAD_BUFFER);
        }
    }
}
END_TEST

START_TEST(every_buffer_has_its_length)
{
    const struct form *f = &forms[_i];

    for (unsigned i = 0; i < strlen(f->bufs.dirs); i++) {
        struct test_bufs bufs = f->bufs;
        bufs.lengths[i]++;
        test_ops_case("longer", f->op, f->body, f->body_bytes, &bufs, VGPU_E_BAD_SHAPE);
        bufs.lengths[i] -= 2;
        test_ops_case("shorter", f->op, f->body, f->body_bytes, &bufs, VGPU_E_BAD_SHAPE);
        bufs.lengths[i] = UINT64_MAX;
        test_ops_case("huge", f->op, f->body, f->body_bytes, &bufs, VGPU_E_BAD_SHAPE);
    }
}
END_TEST

START_TEST(unknown_operations)
{
    static const uint16_t ops[] = {0, 1, 2, 3, 4, 15, 23, 63, 64, 65535};
    struct test_bufs bufs = {"io", {8, 8}};

    test_ops_case("unknown", ops[_i], "", 0, &bufs, VGPU_E_UNSUPPORTED);
    ck_assert_ptr_null(ops_find(ops[_i]));
}
END_TEST

/* Any body at all: no crash, no undefined behaviour, an error of the table. */
START_TEST(random_bodies)
{
    const struct form *f = &forms[_i];
    uint64_t seed = 1 + (uint64_t)_i;

    for (unsigned round = 0; round < 20000; round++) {
        struct test_request t;
        uint8_t body[TEST_OPS_BODY];
        struct test_bufs bufs = f->bufs;
        memcpy(body, f->body, f->body_bytes);
        for (unsigned n = unit_below(&seed, 6); n && f->body_bytes; n--) {
            static const uint8_t values[] = {0, 1, 0x7f, 0x80, 0xff};
            body[unit_below(&seed, f->body_bytes)] = values[unit_below(&seed, 5)];
        }
        bufs.lengths[unit_below(&seed, 3)] = unit_random(&seed) >> unit_below(&seed, 64);
        test_ops_fill(&t, f->op, body, f->body_bytes, &bufs);
        uint32_t e = ops_check(&t.request, t.why);
        ck_assert_uint_le(e, VGPU_E_BAD_PARAM);
        ck_assert(e == VGPU_E_OK || memchr(t.why, 0, sizeof(t.why)));
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ops: form");
    TCase *tc = tcase_create("every op");

    tcase_add_loop_test(tc, the_smallest_request_is_accepted, 0, N_ELEMS(forms));
    tcase_add_loop_test(tc, the_body_has_exactly_its_length, 0, N_ELEMS(forms));
    tcase_add_loop_test(tc, reserved_fields_are_zero, 0, N_ELEMS(forms));
    tcase_add_loop_test(tc, data_types_are_those_of_the_op, 0, N_ELEMS(forms));
    tcase_add_loop_test(tc, number_and_directions_of_buffers, 0, N_ELEMS(forms));
    tcase_add_loop_test(tc, every_buffer_has_its_length, 0, N_ELEMS(forms));
    tcase_add_loop_test(tc, unknown_operations, 0, 10);
    tcase_add_loop_test(tc, random_bodies, 0, N_ELEMS(forms));
    suite_add_tcase(suite, tc);
    return unit_run(suite);
}

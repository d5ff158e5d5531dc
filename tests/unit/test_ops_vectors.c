/* SPDX-License-Identifier: MIT */
/* AXPY, REDUCE, SORT: sizes, strides, parameters. */
#include "test_ops.h"

#define F32 VGPU_DTYPE_F32
#define F64 VGPU_DTYPE_F64
#define U8 VGPU_DTYPE_U8
#define I32 VGPU_DTYPE_I32
#define U64 VGPU_DTYPE_U64
#define BIG (UINT64_C(1) << 62)

static const struct axpy_case {
    const char *name;
    struct vgpu_axpy body;
    struct test_bufs bufs;
    uint32_t want;
} axpy_cases[] = {
    {"contiguous", {.dtype = F32, .n = 10, .incx = 1, .incy = 1}, {"iio", {40, 40, 40}}, VGPU_E_OK},
    {"strides leave the end open",
     {.dtype = F64, .n = 4, .incx = 3, .incy = 2},
     {"iio", {80, 56, 32}},
     VGPU_E_OK},
    {"a NaN for alpha is a number like any other",
     {.dtype = F64, .alpha = __builtin_nan(""), .n = 1, .incx = 1, .incy = 1},
     {"iio", {8, 8, 8}},
     VGPU_E_OK},
    {"n is zero",
     {.dtype = F32, .n = 0, .incx = 1, .incy = 1},
     {"iio", {4, 4, 4}},
     VGPU_E_BAD_SHAPE},
    {"incx is zero",
     {.dtype = F32, .n = 1, .incx = 0, .incy = 1},
     {"iio", {4, 4, 4}},
     VGPU_E_BAD_SHAPE},
    {"incy is zero",
     {.dtype = F32, .n = 1, .incx = 1, .incy = 0},
     {"iio", {4, 4, 4}},
     VGPU_E_BAD_SHAPE},
    {"a stride does not matter for one element",
     {.dtype = F32, .n = 1, .incx = BIG, .incy = BIG},
     {"iio", {4, 4, 4}},
     VGPU_E_OK},
    {"elements overflow",
     {.dtype = F32, .n = 5, .incx = BIG, .incy = 1},
     {"iio", {4, 20, 20}},
     VGPU_E_OVERFLOW},
    {"bytes overflow",
     {.dtype = F32, .n = 2, .incx = 1, .incy = BIG},
     {"iio", {8, 8, 8}},
     VGPU_E_OVERFLOW},
    {"the output overflows",
     {.dtype = F64, .n = UINT64_MAX / 4, .incx = 1, .incy = 1},
     {"iio", {8, 8, 8}},
     VGPU_E_OVERFLOW},
    {"elements + 1 overflow",
     {.dtype = F32, .n = UINT64_MAX, .incx = 1, .incy = 1},
     {"iio", {8, 8, 8}},
     VGPU_E_OVERFLOW},
    {"x with the last stride",
     {.dtype = F32, .n = 2, .incx = 2, .incy = 1},
     {"iio", {16, 8, 8}},
     VGPU_E_BAD_SHAPE},
};

START_TEST(axpy)
{
    const struct axpy_case *c = &axpy_cases[_i];

    test_ops_case(c->name, VGPU_OP_AXPY, &c->body, sizeof(c->body), &c->bufs, c->want);
}
END_TEST

#define SUM VGPU_REDUCE_SUM
#define MIN VGPU_REDUCE_MIN
#define MAX VGPU_REDUCE_MAX
#define ARGMAX VGPU_REDUCE_ARGMAX

static const struct reduce_case {
    const char *name;
    struct vgpu_reduce body;
    struct test_bufs bufs;
    uint32_t want;
} reduce_cases[] = {
    {"sum of bytes is wide", {U8, SUM, {0}, 100, 1}, {"io", {100, 8}}, VGPU_E_OK},
    {"minimum of bytes is a byte", {U8, MIN, {0}, 100, 1}, {"io", {100, 1}}, VGPU_E_OK},
    {"maximum of words is a word", {I32, MAX, {0}, 7, 2}, {"io", {52, 4}}, VGPU_E_OK},
    {"argmax is an index", {F32, ARGMAX, {0}, 3, 1}, {"io", {12, 8}}, VGPU_E_OK},
    {"sum of F32 is F64", {F32, SUM, {0}, 3, 1}, {"io", {12, 4}}, VGPU_E_BAD_SHAPE},
    {"maximum of F32 is not F64", {F32, MAX, {0}, 3, 1}, {"io", {12, 8}}, VGPU_E_BAD_SHAPE},
    {"unknown kind", {F32, 4, {0}, 3, 1}, {"io", {12, 8}}, VGPU_E_BAD_PARAM},
    {"n is zero", {F32, SUM, {0}, 0, 1}, {"io", {4, 8}}, VGPU_E_BAD_SHAPE},
    {"stride is zero", {F32, SUM, {0}, 1, 0}, {"io", {4, 8}}, VGPU_E_BAD_SHAPE},
    {"bytes overflow", {F64, SUM, {0}, 3, BIG}, {"io", {4, 8}}, VGPU_E_OVERFLOW},
    {"no output", {F32, SUM, {0}, 1, 1}, {"i", {4}}, VGPU_E_BAD_BUFFER},
    {"no sums of U64", {U64, SUM, {0}, 1, 1}, {"io", {8, 8}}, VGPU_E_BAD_DTYPE},
};

START_TEST(reduce)
{
    const struct reduce_case *c = &reduce_cases[_i];

    test_ops_case(c->name, VGPU_OP_REDUCE, &c->body, sizeof(c->body), &c->bufs, c->want);
}
END_TEST

static const struct sort_case {
    const char *name;
    struct vgpu_sort body;
    struct test_bufs bufs;
    uint32_t want;
} sort_cases[] = {
    {"keys", {F32, 0, 0, {0}, 10}, {"io", {40, 40}}, VGPU_E_OK},
    {"descending", {U8, 1, 0, {0}, 10}, {"io", {10, 10}}, VGPU_E_OK},
    {"values of 1 byte", {U64, 0, 1, {0}, 10}, {"iioo", {80, 10, 80, 10}}, VGPU_E_OK},
    {"values of 2 bytes", {U64, 0, 2, {0}, 10}, {"iioo", {80, 20, 80, 20}}, VGPU_E_OK},
    {"values of 4 bytes", {U8, 0, 4, {0}, 10}, {"iioo", {10, 40, 10, 40}}, VGPU_E_OK},
    {"values of 8 bytes", {U8, 0, 8, {0}, 10}, {"iioo", {10, 80, 10, 80}}, VGPU_E_OK},
    {"values of 3 bytes", {U8, 0, 3, {0}, 10}, {"iioo", {10, 30, 10, 30}}, VGPU_E_BAD_PARAM},
    {"values of 16 bytes", {U8, 0, 16, {0}, 10}, {"iioo", {10, 160, 10, 160}}, VGPU_E_BAD_PARAM},
    {"descending twice", {U8, 2, 0, {0}, 10}, {"io", {10, 10}}, VGPU_E_BAD_PARAM},
    {"n is zero", {U8, 0, 0, {0}, 0}, {"io", {1, 1}}, VGPU_E_BAD_SHAPE},
    {"the most elements", {U8, 0, 0, {0}, UINT32_MAX}, {"io", {UINT32_MAX, UINT32_MAX}}, VGPU_E_OK},
    {"one more",
     {U8, 0, 0, {0}, UINT64_C(1) << 32},
     {"io", {UINT64_C(1) << 32, UINT64_C(1) << 32}},
     VGPU_E_BAD_SHAPE},
    {"far more", {U64, 0, 8, {0}, UINT64_MAX}, {"iioo", {8, 8, 8, 8}}, VGPU_E_BAD_SHAPE},
    {"values without room for them", {U8, 0, 4, {0}, 10}, {"io", {10, 10}}, VGPU_E_BAD_BUFFER},
    {"buffers of values that are not there",
     {U8, 0, 0, {0}, 10},
     {"iioo", {10, 10, 10, 10}},
     VGPU_E_BAD_BUFFER},
    {"outputs in the wrong order",
     {U8, 0, 4, {0}, 10},
     {"iioo", {10, 40, 40, 10}},
     VGPU_E_BAD_SHAPE},
};

START_TEST(sort)
{
    const struct sort_case *c = &sort_cases[_i];

    test_ops_case(c->name, VGPU_OP_SORT, &c->body, sizeof(c->body), &c->bufs, c->want);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ops: vectors");
    TCase *tc = tcase_create("tables");

    tcase_add_loop_test(tc, axpy, 0, N_ELEMS(axpy_cases));
    tcase_add_loop_test(tc, reduce, 0, N_ELEMS(reduce_cases));
    tcase_add_loop_test(tc, sort, 0, N_ELEMS(sort_cases));
    suite_add_tcase(suite, tc);
    return unit_run(suite);
}

/* SPDX-License-Identifier: MIT */
/* GEMM, FFT, DENOISE: sizes, strides, parameters. */
#include <math.h>

#include "test_ops.h"

#define F32 VGPU_DTYPE_F32
#define F64 VGPU_DTYPE_F64
#define U8 VGPU_DTYPE_U8
#define MAX31 INT32_MAX

/* 2 x 3 times 3 x 4; the fields of a case differ from that. */
#define G(...)                                                                            \
    {                                                                                     \
        .dtype = F32, .m = 2, .n = 4, .k = 3, .lda = 3, .ldb = 4, .alpha = 1, __VA_ARGS__ \
    }

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverride-init"
#ifdef __clang__
#pragma clang diagnostic ignored "-Winitializer-overrides"
#endif
static const struct gemm_case {
    const char *name;
    struct vgpu_gemm body;
    struct test_bufs bufs;
    uint32_t want;
} gemm_cases[] = {
    {"without C", G(), {"iio", {24, 48, 32}}, VGPU_E_OK},
    {"with C", G(.beta = 2, .ldc = 4), {"iiio", {24, 48, 32, 32}}, VGPU_E_OK},
    {"beta -0 has no C", G(.beta = -0.0), {"iio", {24, 48, 32}}, VGPU_E_OK},
    {"beta NaN has a C", G(.beta = NAN, .ldc = 4), {"iiio", {24, 48, 32, 32}}, VGPU_E_OK},
    {"A transposed", G(.trans_a = 1, .lda = 2), {"iio", {24, 48, 32}}, VGPU_E_OK},
    {"B transposed", G(.trans_b = 1, .ldb = 3), {"iio", {24, 48, 32}}, VGPU_E_OK},
    {"TF32", G(.math = VGPU_MATH_TF32), {"iio", {24, 48, 32}}, VGPU_E_OK},
    {"rows with padding", G(.lda = 5), {"iio", {40, 48, 32}}, VGPU_E_OK},
    {"no padding behind the last row", G(.lda = 5), {"iio", {32, 48, 32}}, VGPU_E_OK},
    {"part of that padding", G(.lda = 5), {"iio", {36, 48, 32}}, VGPU_E_OK},
    {"less than the last row", G(.lda = 5), {"iio", {28, 48, 32}}, VGPU_E_BAD_SHAPE},
    {"D has no padding", G(), {"iio", {24, 48, 36}}, VGPU_E_BAD_SHAPE},
    {"TF32 of doubles",
     G(.dtype = F64, .math = VGPU_MATH_TF32),
     {"iio", {48, 96, 64}},
     VGPU_E_BAD_PARAM},
    {"trans_a 2", G(.trans_a = 2), {"iio", {24, 48, 32}}, VGPU_E_BAD_PARAM},
    {"trans_b 2", G(.trans_b = 2), {"iio", {24, 48, 32}}, VGPU_E_BAD_PARAM},
    {"math 2", G(.math = 2), {"iio", {24, 48, 32}}, VGPU_E_BAD_PARAM},
    {"m is zero", G(.m = 0), {"iio", {24, 48, 32}}, VGPU_E_BAD_SHAPE},
    {"n is zero", G(.n = 0), {"iio", {24, 48, 32}}, VGPU_E_BAD_SHAPE},
    {"k is zero", G(.k = 0), {"iio", {24, 48, 32}}, VGPU_E_BAD_SHAPE},
    {"m is 2^31", G(.m = MAX31 + 1ull), {"iio", {24, 48, 32}}, VGPU_E_BAD_SHAPE},
    {"lda below a row", G(.lda = 2), {"iio", {24, 48, 32}}, VGPU_E_BAD_SHAPE},
    {"ldb below a row", G(.ldb = 3), {"iio", {24, 48, 32}}, VGPU_E_BAD_SHAPE},
    {"ldc below a row", G(.beta = 1, .ldc = 3), {"iiio", {24, 48, 32, 32}}, VGPU_E_BAD_SHAPE},
    {"lda is 2^31", G(.lda = MAX31 + 1ull), {"iio", {24, 48, 32}}, VGPU_E_BAD_SHAPE},
    {"ldc without C", G(.ldc = 4), {"iio", {24, 48, 32}}, VGPU_E_BAD_SHAPE},
    {"C is missing", G(.beta = 1, .ldc = 4), {"iio", {24, 48, 32}}, VGPU_E_BAD_BUFFER},
    {"C is too many", G(), {"iiio", {24, 48, 32, 32}}, VGPU_E_BAD_BUFFER},
    {"bytes overflow",
     G(.dtype = F64, .m = MAX31, .k = MAX31, .lda = MAX31),
     {"iio", {24, 48, 32}},
     VGPU_E_OVERFLOW},
};

START_TEST(gemm)
{
    const struct gemm_case *c = &gemm_cases[_i];

    test_ops_case(c->name, VGPU_OP_GEMM, &c->body, sizeof(c->body), &c->bufs, c->want);
}
END_TEST

#define C2C VGPU_FFT_C2C
#define R2C VGPU_FFT_R2C
#define C2R VGPU_FFT_C2R
#define T(...)                                                    \
    {                                                             \
        .dtype = F32, .rank = 1, .n0 = 8, .batch = 1, __VA_ARGS__ \
    }

static const struct fft_case {
    const char *name;
    struct vgpu_fft body;
    struct test_bufs bufs;
    uint32_t want;
} fft_cases[] = {
    {"complex", T(), {"io", {64, 64}}, VGPU_E_OK},
    {"inverse", T(.direction = 1), {"io", {64, 64}}, VGPU_E_OK},
    {"batch", T(.batch = 3), {"io", {192, 192}}, VGPU_E_OK},
    {"2-D", T(.rank = 2, .n1 = 5), {"io", {320, 320}}, VGPU_E_OK},
    {"real", T(.kind = R2C), {"io", {32, 40}}, VGPU_E_OK},
    {"real of an odd length", T(.kind = R2C, .n0 = 7), {"io", {28, 32}}, VGPU_E_OK},
    {"to real", T(.kind = C2R, .direction = 1), {"io", {40, 32}}, VGPU_E_OK},
    {"2-D to real",
     T(.kind = C2R, .direction = 1, .rank = 2, .n1 = 6, .dtype = F64),
     {"io", {8 * 4 * 16, 8 * 6 * 8}},
     VGPU_E_OK},
    {"real, inverse", T(.kind = R2C, .direction = 1), {"io", {32, 40}}, VGPU_E_BAD_PARAM},
    {"to real, forward", T(.kind = C2R), {"io", {40, 32}}, VGPU_E_BAD_PARAM},
    {"kind 3", T(.kind = 3), {"io", {64, 64}}, VGPU_E_BAD_PARAM},
    {"direction 2", T(.direction = 2), {"io", {64, 64}}, VGPU_E_BAD_PARAM},
    {"rank 0", T(.rank = 0), {"io", {64, 64}}, VGPU_E_BAD_PARAM},
    {"rank 3", T(.rank = 3, .n1 = 1), {"io", {64, 64}}, VGPU_E_BAD_PARAM},
    {"n0 is zero", T(.n0 = 0), {"io", {64, 64}}, VGPU_E_BAD_SHAPE},
    {"n1 is zero", T(.rank = 2), {"io", {64, 64}}, VGPU_E_BAD_SHAPE},
    {"n1 for rank 1", T(.n1 = 1), {"io", {64, 64}}, VGPU_E_BAD_SHAPE},
    {"batch is zero", T(.batch = 0), {"io", {64, 64}}, VGPU_E_BAD_SHAPE},
    {"batch is 2^31", T(.batch = MAX31 + 1ull), {"io", {64, 64}}, VGPU_E_BAD_SHAPE},
    {"n0 is 2^31", T(.n0 = MAX31 + 1ull), {"io", {64, 64}}, VGPU_E_BAD_SHAPE},
    {"bytes overflow",
     T(.rank = 2, .n0 = MAX31, .n1 = MAX31, .batch = 2),
     {"io", {64, 64}},
     VGPU_E_OVERFLOW},
    {"real as complex", T(.kind = R2C), {"io", {64, 64}}, VGPU_E_BAD_SHAPE},
};

START_TEST(fft)
{
    const struct fft_case *c = &fft_cases[_i];

    test_ops_case(c->name, VGPU_OP_FFT, &c->body, sizeof(c->body), &c->bufs, c->want);
}
END_TEST

/* 20 x 10 pixels, the whole of it. */
#define N(...)                                                                                \
    {                                                                                         \
        .dtype = U8, .channels = 3, .patch = 2, .search = 5, .sigma = 1, .h = 1, .width = 20, \
        .height = 10, .stride = 60, .w = 20, .h_out = 10, __VA_ARGS__                         \
    }

static const struct denoise_case {
    const char *name;
    struct vgpu_denoise body;
    struct test_bufs bufs;
    uint32_t want;
} denoise_cases[] = {
    {"whole picture", N(), {"io", {600, 600}}, VGPU_E_OK},
    {"gray", N(.channels = 1, .stride = 20), {"io", {200, 200}}, VGPU_E_OK},
    {"floats", N(.dtype = F32, .stride = 240), {"io", {2400, 2400}}, VGPU_E_OK},
    {"rows with padding", N(.stride = 64), {"io", {640, 600}}, VGPU_E_OK},
    {"no padding behind the last row", N(.stride = 64), {"io", {636, 600}}, VGPU_E_OK},
    {"less than the last row", N(.stride = 64), {"io", {635, 600}}, VGPU_E_BAD_SHAPE},
    {"a rectangle", N(.x = 19, .y = 9, .w = 1, .h_out = 1), {"io", {600, 3}}, VGPU_E_OK},
    {"the limits", N(.patch = 8, .search = 32, .sigma = 0), {"io", {600, 600}}, VGPU_E_OK},
    {"patch 0", N(.patch = 0), {"io", {600, 600}}, VGPU_E_OK},
    {"patch 9", N(.patch = 9), {"io", {600, 600}}, VGPU_E_BAD_PARAM},
    {"search 0", N(.search = 0), {"io", {600, 600}}, VGPU_E_BAD_PARAM},
    {"search 33", N(.search = 33), {"io", {600, 600}}, VGPU_E_BAD_PARAM},
    {"channels 2", N(.channels = 2), {"io", {600, 600}}, VGPU_E_BAD_PARAM},
    {"sigma below 0", N(.sigma = -1), {"io", {600, 600}}, VGPU_E_BAD_PARAM},
    {"sigma NaN", N(.sigma = NAN), {"io", {600, 600}}, VGPU_E_BAD_PARAM},
    {"sigma infinite", N(.sigma = INFINITY), {"io", {600, 600}}, VGPU_E_BAD_PARAM},
    {"h 0", N(.h = 0), {"io", {600, 600}}, VGPU_E_BAD_PARAM},
    {"h NaN", N(.h = NAN), {"io", {600, 600}}, VGPU_E_BAD_PARAM},
    {"width 0", N(.width = 0), {"io", {600, 600}}, VGPU_E_BAD_SHAPE},
    {"height 0", N(.height = 0), {"io", {600, 600}}, VGPU_E_BAD_SHAPE},
    {"width 65536", N(.width = 65536, .stride = 65536 * 3), {"io", {600, 600}}, VGPU_E_BAD_SHAPE},
    {"stride below a row", N(.stride = 59), {"io", {600, 600}}, VGPU_E_BAD_SHAPE},
    {"stride within a sample",
     N(.dtype = F32, .stride = 241),
     {"io", {2410, 2400}},
     VGPU_E_BAD_SHAPE},
    {"w 0", N(.w = 0), {"io", {600, 600}}, VGPU_E_BAD_SHAPE},
    {"h_out 0", N(.h_out = 0), {"io", {600, 600}}, VGPU_E_BAD_SHAPE},
    {"a rectangle that leaves to the right", N(.x = 1), {"io", {600, 600}}, VGPU_E_BAD_SHAPE},
    {"a rectangle that leaves below", N(.y = 1), {"io", {600, 600}}, VGPU_E_BAD_SHAPE},
    {"a rectangle whose end overflows",
     N(.x = UINT32_MAX, .w = 2),
     {"io", {600, 600}},
     VGPU_E_BAD_SHAPE},
    {"the largest picture",
     N(.dtype = F32, .width = 65535, .height = 65535, .stride = 65535 * 12, .w = 65535,
       .h_out = 65535),
     {"io", {65535ull * 65535 * 12, 65535ull * 65535 * 12}},
     VGPU_E_OK},
    {"the largest stride",
     N(.width = 20, .height = 65535, .stride = UINT32_MAX - 3, .h_out = 1),
     {"io", {65535ull * (UINT32_MAX - 3), 60}},
     VGPU_E_OK},
};
#pragma GCC diagnostic pop

START_TEST(denoise)
{
    const struct denoise_case *c = &denoise_cases[_i];

    test_ops_case(c->name, VGPU_OP_DENOISE, &c->body, sizeof(c->body), &c->bufs, c->want);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ops: matrices and images");
    TCase *tc = tcase_create("tables");

    tcase_add_loop_test(tc, gemm, 0, N_ELEMS(gemm_cases));
    tcase_add_loop_test(tc, fft, 0, N_ELEMS(fft_cases));
    tcase_add_loop_test(tc, denoise, 0, N_ELEMS(denoise_cases));
    suite_add_tcase(suite, tc);
    return unit_run(suite);
}

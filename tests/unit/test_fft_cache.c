/* SPDX-License-Identifier: MIT */
/* The plan cache: same plan for the same shape, a bound, plans in use outlive their eviction. */
#include "gpu-worker/cpu/fft_cache.h"

#include <math.h>

#include "proto/vgpu_regs.h"
#include "unit.h"

#define POINTS_MAX 512

static _Alignas(64) double in[2 * POINTS_MAX];
static _Alignas(64) double out[2 * POINTS_MAX];

static struct fft_shape shape_of(uint64_t n)
{
    return (struct fft_shape){
        .n0 = n, .count = 1, .dtype = VGPU_DTYPE_F64, .kind = VGPU_FFT_C2C, .aligned = 1};
}

START_TEST(one_plan_per_shape)
{
    struct fft_cache *cache = fft_cache_new();
    struct fft_shape a = shape_of(8), b = shape_of(8);

    b.inverse = 1;
    struct fft_plan *first = fft_cache_get(cache, &a, in, out);
    struct fft_plan *second = fft_cache_get(cache, &a, in, out);
    struct fft_plan *other = fft_cache_get(cache, &b, in, out);
    ck_assert_ptr_nonnull(first);
    ck_assert_ptr_eq(first, second);
    ck_assert_ptr_ne(first, other);
    ck_assert_uint_eq(fft_cache_count(cache), 2);
    fft_cache_put(cache, first);
    fft_cache_put(cache, second);
    fft_cache_put(cache, other);
    fft_cache_free(cache);
}
END_TEST

START_TEST(the_number_of_plans_is_bounded)
{
    struct fft_cache *cache = fft_cache_new();
    struct fft_shape first = shape_of(2);
    struct fft_plan *held = fft_cache_get(cache, &first, in, out);

    for (uint64_t n = 3; n < 3 + 3 * FFT_CACHE_MAX; n++) {
        struct fft_shape shape = shape_of(n);
        struct fft_plan *plan = fft_cache_get(cache, &shape, in, out);
        ck_assert_ptr_nonnull(plan);
        fft_cache_put(cache, plan);
        ck_assert_uint_le(fft_cache_count(cache), FFT_CACHE_MAX);
    }
    in[0] = 3, in[1] = 0, in[2] = 1, in[3] = 0;
    fft_plan_run(held, in, out); /* evicted long ago, still ours */
    ck_assert(fabs(out[0] - 4) < 1e-12 && fabs(out[2] - 2) < 1e-12);
    fft_cache_put(cache, held);
    fft_cache_free(cache);
}
END_TEST

START_TEST(a_recently_used_plan_stays)
{
    struct fft_cache *cache = fft_cache_new();
    struct fft_shape first = shape_of(2);
    struct fft_plan *plan = fft_cache_get(cache, &first, in, out);

    fft_cache_put(cache, plan);
    for (uint64_t n = 3; n < 3 + 2 * FFT_CACHE_MAX; n++) {
        struct fft_shape shape = shape_of(n);
        fft_cache_put(cache, fft_cache_get(cache, &shape, in, out));
        struct fft_plan *again = fft_cache_get(cache, &first, in, out);
        ck_assert_ptr_eq(again, plan);
        fft_cache_put(cache, again);
    }
    fft_cache_free(cache);
}
END_TEST

START_TEST(freeing_nothing_is_fine)
{
    fft_cache_free(NULL);
    fft_cache_free(fft_cache_new());
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fft_cache");
    TCase *tc = tcase_create("cache");

    tcase_add_test(tc, one_plan_per_shape);
    tcase_add_test(tc, the_number_of_plans_is_bounded);
    tcase_add_test(tc, a_recently_used_plan_stays);
    tcase_add_test(tc, freeing_nothing_is_fine);
    suite_add_tcase(suite, tc);
    return unit_run(suite);
}

/* SPDX-License-Identifier: MIT */
/* test_ranges.c - the range allocator never hands out a byte twice and loses none */
#include <errno.h>
#include <string.h>

#include "common/core/ranges.h"
#include "tests/unit/unit.h"

START_TEST(first_fit)
{
    struct ranges r;
    uint64_t a;
    uint64_t b;
    uint64_t c;

    ck_assert_int_eq(ranges_init(&r, 4096, 64), 0);
    ck_assert_int_eq(ranges_alloc(&r, 100, &a), 0);
    ck_assert_int_eq(ranges_alloc(&r, 64, &b), 0);
    ck_assert_int_eq(ranges_alloc(&r, 3840, &c), 0);
    ck_assert_uint_eq(a, 0);
    ck_assert_uint_eq(b, 128);
    ck_assert_uint_eq(c, 192);
    ck_assert_int_eq(ranges_alloc(&r, 128, &b), RANGES_E_FULL);
    ck_assert_int_eq(ranges_alloc(&r, 4097, &b), RANGES_E_NEVER);
    ck_assert_int_eq(ranges_alloc(&r, 0, &b), -EINVAL);
    ck_assert_int_eq(ranges_free(&r, a, 100), 0);
    ck_assert_int_eq(ranges_check(&r), 0);
    ck_assert_int_eq(ranges_alloc(&r, 128, &b), 0);
    ck_assert_uint_eq(b, 0);
    ranges_fini(&r);
}
END_TEST

START_TEST(wrong_frees)
{
    struct ranges r;
    uint64_t a;

    ck_assert_int_eq(ranges_init(&r, 4096, 64), 0);
    ck_assert_int_eq(ranges_alloc(&r, 256, &a), 0);
    ck_assert_int_eq(ranges_free(&r, 1, 256), -EINVAL);
    ck_assert_int_eq(ranges_free(&r, 4096, 64), -EINVAL);
    ck_assert_int_eq(ranges_free(&r, 64, UINT64_MAX), -EINVAL);
    ck_assert_int_eq(ranges_free(&r, 192, 128), -EINVAL);
    ck_assert_int_eq(ranges_free(&r, 0, 0), -EINVAL);
    ck_assert_int_eq(ranges_free(&r, a, 256), 0);
    ck_assert_int_eq(ranges_free(&r, a, 256), -EINVAL);
    ck_assert_uint_eq(ranges_largest(&r), 4096);
    ranges_fini(&r);
    ck_assert_int_eq(ranges_init(&r, 100, 64), -EINVAL);
    ck_assert_int_eq(ranges_init(&r, 128, 48), -EINVAL);
}
END_TEST

#define SPACE 65536u
#define LIVE 200u

/* A byte map is the model: every handed-out unit is free before and belongs to one range after. */
START_TEST(random_operations)
{
    struct ranges r;
    static uint8_t map[SPACE / 64];
    struct ranges_span live[LIVE];
    unsigned n = 0;
    uint64_t seed = 77 + (uint64_t)_i;

    memset(map, 0, sizeof(map));
    ck_assert_int_eq(ranges_init(&r, SPACE, 64), 0);
    for (int step = 0; step < 20000; step++) {
        if (n < LIVE && unit_below(&seed, 2)) {
            uint64_t length = 1 + unit_below(&seed, 1500);

            if (ranges_alloc(&r, length, &live[n].offset) == 0) {
                live[n].length = length;
                for (uint64_t u = live[n].offset / 64; u * 64 < live[n].offset + length; u++) {
                    ck_assert_uint_eq(map[u]++, 0);
                }
                n++;
            }
        } else if (n > 0) {
            unsigned i = (unsigned)unit_below(&seed, n);

            for (uint64_t u = live[i].offset / 64; u * 64 < live[i].offset + live[i].length; u++) {
                map[u]--;
            }
            ck_assert_int_eq(ranges_free(&r, live[i].offset, live[i].length), 0);
            live[i] = live[--n];
        }
        ck_assert_int_eq(ranges_check(&r), 0);
    }
    while (n > 0) {
        n--;
        ck_assert_int_eq(ranges_free(&r, live[n].offset, live[n].length), 0);
    }
    ck_assert_uint_eq(ranges_largest(&r), SPACE);
    ranges_fini(&r);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("ranges");
    TCase *tc = tcase_create("ranges");

    tcase_add_test(tc, first_fit);
    tcase_add_test(tc, wrong_frees);
    tcase_add_loop_test(tc, random_operations, 0, 3);
    suite_add_tcase(s, tc);
    return unit_run(s);
}

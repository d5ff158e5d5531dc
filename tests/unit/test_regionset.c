/* SPDX-License-Identifier: MIT */
/* Which regions an executor has: holds, the idle ones by age, leaving and coming back. */
#include "local-mediator/core/regionset.h"

#include <stdlib.h>

#include "unit.h"

static struct regionset set;

START_TEST(the_one_idle_for_longest_goes_first)
{
    ck_assert_uint_eq(regionset_idle(&set), 0);
    for (uint32_t n = 1; n <= 3; n++) {
        ck_assert(!regionset_has(&set, n));
        ck_assert_int_eq(regionset_add(&set, n), 0);
        ck_assert(regionset_has(&set, n));
    }
    ck_assert_uint_eq(regionset_idle(&set), 1);
    regionset_hold(&set, 1);
    ck_assert_uint_eq(regionset_idle(&set), 2);
    regionset_hold(&set, 1);
    regionset_release(&set, 1);
    ck_assert_uint_eq(regionset_idle(&set), 2);
    regionset_release(&set, 1);
    regionset_hold(&set, 2);
    ck_assert_uint_eq(regionset_idle(&set), 3);
    regionset_hold(&set, 3);
    ck_assert_uint_eq(regionset_idle(&set), 1);
    regionset_hold(&set, 1);
    ck_assert_uint_eq(regionset_idle(&set), 0);
    regionset_fini(&set);
}
END_TEST

START_TEST(leaving_and_coming_back)
{
    regionset_add(&set, 7);
    ck_assert(regionset_leave(&set, 7));
    ck_assert(!regionset_leave(&set, 7));
    ck_assert(!regionset_has(&set, 7));
    ck_assert_uint_eq(set.count, 0);
    ck_assert_int_eq(regionset_add(&set, 7), 0); /* before the executor said that it is gone */
    regionset_hold(&set, 7);
    ck_assert_msg(!regionset_gone(&set, 7), "this was the answer to what it was told");
    ck_assert(regionset_has(&set, 7));
    ck_assert_msg(regionset_gone(&set, 7), "this was not");
    ck_assert(!regionset_has(&set, 7));
    regionset_release(&set, 7);
    ck_assert(!regionset_gone(&set, 7));
    ck_assert(!regionset_gone(&set, 8));
    ck_assert_uint_eq(regionset_idle(&set), 0);
    regionset_fini(&set);
}
END_TEST

/* Against a plain table, many numbers and many steps. */
START_TEST(random_steps)
{
    enum { N = 600 };
    static unsigned users[N], leaving[N];
    static bool attached[N];
    uint32_t count = 0;

    srand(4711);
    for (unsigned step = 0; step < 200000; step++) {
        uint32_t n = (uint32_t)rand() % N;

        ck_assert_int_eq(regionset_has(&set, n + 1), attached[n]);
        switch (rand() % 6) {
        case 0:
        case 1:
            if (!attached[n]) {
                ck_assert_int_eq(regionset_add(&set, n + 1), 0);
                attached[n] = true;
                users[n] = 0;
                count++;
            }
            break;
        case 2:
            regionset_hold(&set, n + 1);
            users[n] += attached[n];
            break;
        case 3:
            regionset_release(&set, n + 1);
            users[n] -= attached[n] && users[n];
            break;
        case 4:
            ck_assert_int_eq(regionset_leave(&set, n + 1), attached[n]);
            leaving[n] += attached[n];
            count -= attached[n];
            attached[n] = false;
            break;
        default:
            if (leaving[n]) {
                ck_assert(!regionset_gone(&set, n + 1));
                leaving[n]--;
            } else {
                ck_assert_int_eq(regionset_gone(&set, n + 1), attached[n]);
                count -= attached[n];
                attached[n] = false;
            }
        }
        uint32_t idle = regionset_idle(&set);
        ck_assert_uint_eq(set.count, count);
        ck_assert(!idle || (attached[idle - 1] && !users[idle - 1]));
    }
    regionset_fini(&set);
    regionset_fini(&set);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("regionset");
    TCase *tc = tcase_create("regions of an executor");

    tcase_add_test(tc, the_one_idle_for_longest_goes_first);
    tcase_add_test(tc, leaving_and_coming_back);
    tcase_add_test(tc, random_steps);
    suite_add_tcase(suite, tc);
    return unit_run(suite);
}

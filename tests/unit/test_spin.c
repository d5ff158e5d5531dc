/* SPDX-License-Identifier: MIT */
/* test_spin.c - when to poll on and when to sleep */
#include "common/core/spin.h"
#include "tests/unit/unit.h"

#define CAP UINT64_C(50000)
#define START UINT64_C(1000000000) /* of the clock: anything but 0 */

/* Find work @n times, @gap_ns apart, from @now_ns on. Return: the time of the last one. */
static uint64_t work(struct spin *s, uint64_t now_ns, unsigned n, uint64_t gap_ns)
{
    while (n-- > 0) {
        now_ns += gap_ns;
        spin_found(s, now_ns);
    }
    return now_ns;
}

START_TEST(sleeps_at_first)
{
    struct spin s;

    spin_init(&s, CAP);
    ck_assert(!spin_on(&s, START));
    spin_found(&s, START); /* one piece of work is no stream */
    ck_assert(!spin_on(&s, START));
}
END_TEST

START_TEST(never_polls_with_cap_0)
{
    struct spin s;

    spin_init(&s, 0);
    ck_assert(!spin_on(&s, work(&s, START, 1000, 1)));
}
END_TEST

static const struct {
    const char *what;
    uint64_t gap_ns;
    bool polls;
} streams[] = {
    {"back to back", 0, true},
    {"1 us apart", 1000, true},
    {"a little closer than the cap", 45000, true},
    {"a little wider than the cap", 55000, false},
    {"1 ms apart", 1000000, false},
    {"1 s apart", 1000000000, false},
    {"so far apart that sums could overflow", UINT64_MAX / 300, false},
};

START_TEST(polls_for_streams)
{
    struct spin s;
    uint64_t now_ns;

    spin_init(&s, CAP);
    now_ns = work(&s, START, 200, streams[_i].gap_ns);
    ck_assert_msg(spin_on(&s, now_ns) == streams[_i].polls, "%s: mean gap %lu ns", streams[_i].what,
                  (unsigned long)s.gap_ns);
}
END_TEST

START_TEST(gives_up_after_the_cap)
{
    struct spin s;
    uint64_t now_ns;

    spin_init(&s, CAP);
    now_ns = work(&s, START, 200, 1000);
    ck_assert(spin_on(&s, now_ns + CAP - 1));
    ck_assert(!spin_on(&s, now_ns + CAP));
    ck_assert(!spin_on(&s, now_ns + UINT64_C(1000000000)));
}
END_TEST

/* However long the pause was, a stream is recognised again after some 20 pieces. */
START_TEST(a_pause_is_forgotten)
{
    struct spin s;
    uint64_t now_ns;
    unsigned pieces = 0;

    spin_init(&s, CAP);
    now_ns = work(&s, START, 200, 1000);
    for (unsigned i = 0; i < 50; i++) {
        now_ns = work(&s, now_ns, 1, UINT64_C(3600000000000));
    }
    ck_assert(!spin_on(&s, now_ns));
    while (!spin_on(&s, now_ns)) {
        now_ns = work(&s, now_ns, 1, 1000);
        ck_assert_uint_lt(++pieces, 25);
    }
    ck_assert_uint_gt(pieces, 5);
}
END_TEST

/* Time is an argument: nonsense must not make a poller spin for ever. */
START_TEST(a_clock_that_stands_or_goes_back)
{
    struct spin s;

    spin_init(&s, CAP);
    work(&s, START, 200, 1000);
    spin_found(&s, START); /* earlier than the last */
    ck_assert(spin_on(&s, START));
    ck_assert(spin_on(&s, START - 1000));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("spin");
    TCase *tc = tcase_create("spin");

    tcase_add_test(tc, sleeps_at_first);
    tcase_add_test(tc, never_polls_with_cap_0);
    tcase_add_loop_test(tc, polls_for_streams, 0, N_ELEMS(streams));
    tcase_add_test(tc, gives_up_after_the_cap);
    tcase_add_test(tc, a_pause_is_forgotten);
    tcase_add_test(tc, a_clock_that_stands_or_goes_back);
    suite_add_tcase(s, tc);
    return unit_run(s);
}

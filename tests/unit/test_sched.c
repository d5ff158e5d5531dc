/* SPDX-License-Identifier: MIT */
/* test_sched.c - order, eligibility, caps, deadlines and counters of the scheduling core */
#include <errno.h>
#include <string.h>

#include "common/core/sched.h"
#include "tests/unit/unit.h"

static const struct sched_worker any = {.classes = UINT64_MAX, .band_min = 0};

static struct sched *make(uint32_t max_jobs)
{
    struct sched_caps caps = {.max_jobs = max_jobs, .max_bytes = 1u << 30};
    struct sched_tenant_config t = {.weight = 1, .caps = caps};
    struct sched *s;

    ck_assert_int_eq(sched_new(&caps, &s), 0);
    for (uint32_t i = 0; i < 4; i++) {
        ck_assert_int_eq(sched_tenant_set(s, i, &t), 0);
    }
    return s;
}

static struct sched_job job(uint32_t tenant, uint8_t band, uint8_t klass)
{
    return (struct sched_job){.tenant = tenant,
                              .band = band,
                              .klass = klass,
                              .bytes = 10,
                              .deadline_ns = SCHED_NO_DEADLINE};
}

START_TEST(bands_then_order)
{
    struct sched *s = make(100);
    struct sched_job a = job(0, VGPU_BAND_NORMAL, 0);
    struct sched_job b = job(1, VGPU_BAND_REALTIME, 5);
    struct sched_job c = job(2, VGPU_BAND_NORMAL, 1);

    ck_assert_int_eq(sched_submit(s, &a, 1), 0);
    ck_assert_int_eq(sched_submit(s, &b, 2), 0);
    ck_assert_int_eq(sched_submit(s, &c, 3), 0);
    ck_assert_uint_eq(sched_ahead(s, &c), 2);
    ck_assert_ptr_eq(sched_pick(s, &any, 4), &b);
    ck_assert_ptr_eq(sched_pick(s, &any, 4), &a);
    ck_assert_ptr_eq(sched_pick(s, &any, 4), &c);
    ck_assert_ptr_null(sched_pick(s, &any, 4));
    ck_assert_int_eq(sched_check(s), 0);
    sched_free(s);
}
END_TEST

START_TEST(ineligible_never_blocks)
{
    struct sched *s = make(100);
    struct sched_worker only_1 = {.classes = 1u << 1, .band_min = 0};
    struct sched_job a = job(0, VGPU_BAND_REALTIME, 0);
    struct sched_job b = job(0, VGPU_BAND_BATCH, 1);

    ck_assert_int_eq(sched_submit(s, &a, 1), 0);
    ck_assert_int_eq(sched_submit(s, &b, 2), 0);
    ck_assert_ptr_eq(sched_pick(s, &only_1, 3), &b);
    ck_assert_ptr_null(sched_pick(s, &only_1, 3));
    ck_assert_int_eq(sched_check(s), 0);
    sched_free(s);
}
END_TEST

START_TEST(express_credit)
{
    struct sched *s = make(100);
    struct sched_worker express = {.classes = UINT64_MAX, .band_min = VGPU_BAND_REALTIME};
    struct sched_job a = job(0, VGPU_BAND_HIGH, 0);

    ck_assert_int_eq(sched_submit(s, &a, 1), 0);
    ck_assert_ptr_null(sched_pick(s, &express, 2));
    sched_free(s);
}
END_TEST

START_TEST(requeued_keeps_its_place)
{
    struct sched *s = make(100);
    struct sched_job j[4];

    for (int i = 0; i < 4; i++) {
        j[i] = job(0, VGPU_BAND_NORMAL, 0);
        ck_assert_int_eq(sched_submit(s, &j[i], (uint64_t)i), 0);
    }
    ck_assert_ptr_eq(sched_pick(s, &any, 5), &j[0]);
    ck_assert_ptr_eq(sched_pick(s, &any, 5), &j[1]);
    sched_requeue(s, &j[1]);
    sched_requeue(s, &j[0]);
    ck_assert_int_eq(sched_check(s), 0);
    for (int i = 0; i < 4; i++) {
        ck_assert_ptr_eq(sched_pick(s, &any, 6), &j[i]);
    }
    sched_free(s);
}
END_TEST

START_TEST(caps)
{
    struct sched *s = make(3);
    struct sched_tenant_config small = {.weight = 1, .caps = {.max_jobs = 1, .max_bytes = 15}};
    struct sched_job a = job(0, 1, 0);
    struct sched_job b = job(0, 1, 0);
    struct sched_job c = job(1, 1, 0);
    struct sched_job d = job(1, 1, 0);
    struct sched_job e = job(1, 1, 0);
    struct sched_count n;

    ck_assert_int_eq(sched_tenant_set(s, 0, &small), 0);
    ck_assert_int_eq(sched_submit(s, &a, 1), 0);
    ck_assert_int_eq(sched_submit(s, &b, 1), SCHED_E_TENANT_JOBS);
    small.caps.max_jobs = 9;
    ck_assert_int_eq(sched_tenant_set(s, 0, &small), 0);
    ck_assert_int_eq(sched_submit(s, &b, 1), SCHED_E_TENANT_BYTES);
    ck_assert_int_eq(sched_submit(s, &c, 1), 0);
    ck_assert_int_eq(sched_submit(s, &d, 1), 0);
    ck_assert_int_eq(sched_submit(s, &e, 1), SCHED_E_POOL_JOBS);
    sched_count_tenant(s, 0, &n);
    ck_assert_uint_eq(n.refused, 2);
    ck_assert_ptr_eq(sched_pick(s, &any, 2), &a);
    ck_assert_int_eq(sched_submit(s, &e, 1), SCHED_E_POOL_JOBS); /* a bound job still counts */
    sched_done(s, &a, 500);
    ck_assert_int_eq(sched_submit(s, &e, 1), 0);
    sched_count_tenant(s, 0, &n);
    ck_assert_uint_eq(n.done, 1);
    ck_assert_uint_eq(n.busy_ns, 500);
    ck_assert_int_eq(sched_check(s), 0);
    sched_free(s);
}
END_TEST

START_TEST(deadlines)
{
    struct sched *s = make(10);
    struct sched_job a = job(0, 1, 0);
    struct sched_job b = job(0, 3, 0);

    a.deadline_ns = 100;
    b.deadline_ns = 50;
    ck_assert_uint_eq(sched_next_deadline(s), SCHED_NO_DEADLINE);
    ck_assert_int_eq(sched_submit(s, &a, 1), 0);
    ck_assert_int_eq(sched_submit(s, &b, 1), 0);
    ck_assert_uint_eq(sched_next_deadline(s), 50);
    ck_assert_ptr_null(sched_expire(s, 49));
    ck_assert_ptr_eq(sched_expire(s, 100), &b);
    ck_assert_ptr_eq(sched_expire(s, 100), &a);
    ck_assert_ptr_null(sched_expire(s, 100));
    ck_assert_int_eq(sched_check(s), 0);
    sched_free(s);
}
END_TEST

START_TEST(refuses_nonsense)
{
    struct sched *s = make(10);
    struct sched_tenant_config zero = {.weight = 0};
    struct sched_tenant_config one = {.weight = 1};
    struct sched_job a = job(9, 1, 0);
    struct sched_job b = job(0, 4, 0);
    struct sched_job c = job(0, 1, 64);
    struct sched_job d = job(0, 1, 0);

    ck_assert_int_eq(sched_tenant_set(s, 1, &zero), -EINVAL);
    ck_assert_int_eq(sched_tenant_set(s, 65536, &one), -EINVAL);
    ck_assert_int_eq(sched_submit(s, &a, 1), -EINVAL);
    ck_assert_int_eq(sched_submit(s, &b, 1), -EINVAL);
    ck_assert_int_eq(sched_submit(s, &c, 1), -EINVAL);
    ck_assert_int_eq(sched_submit(s, &d, 1), 0);
    ck_assert_int_eq(sched_submit(s, &d, 1), -EINVAL);
    sched_free(s);
}
END_TEST

#define JOBS 300

/* Against a plain array searched from end to end. */
static struct sched_job *model_pick(struct sched_job *j, const struct sched_worker *w)
{
    struct sched_job *best = NULL;

    for (int i = 0; i < JOBS; i++) {
        if (j[i].state != SCHED_QUEUED || !(w->classes >> j[i].klass & 1) ||
            j[i].band < w->band_min) {
            continue;
        }
        if (!best || j[i].band > best->band ||
            (j[i].band == best->band && j[i].order < best->order)) {
            best = &j[i];
        }
    }
    return best;
}

static void random_step(struct sched *s, struct sched_job *j, uint64_t *seed, uint64_t now)
{
    struct sched_job *one = &j[unit_below(seed, JOBS)];
    struct sched_worker w = {.classes = unit_random(seed),
                             .band_min = (uint8_t)unit_below(seed, 4)};
    struct sched_job *want;

    if (one->state == SCHED_OUT) {
        *one = job((uint32_t)unit_below(seed, 4), (uint8_t)unit_below(seed, 4),
                   (uint8_t)unit_below(seed, 64));
        one->deadline_ns = now + unit_below(seed, 400);
        ck_assert_int_ge(sched_submit(s, one, now), 0);
    } else if (one->state == SCHED_QUEUED) {
        if (unit_below(seed, 4) == 0) {
            sched_remove(s, one);
        } else {
            want = model_pick(j, &w);
            ck_assert_ptr_eq(sched_pick(s, &w, now), want);
        }
    } else if (unit_below(seed, 2)) {
        sched_requeue(s, one);
    } else {
        sched_done(s, one, 1000);
    }
    while (sched_expire(s, now)) {
    }
    ck_assert_uint_gt(sched_next_deadline(s), now);
}

START_TEST(random_operations)
{
    static struct sched_job j[JOBS];
    struct sched *s = make(200);
    uint64_t seed = 11 + (uint64_t)_i;

    memset(j, 0, sizeof(j));
    for (uint64_t now = 1; now < 20000; now++) {
        random_step(s, j, &seed, now);
        ck_assert_int_eq(sched_check(s), 0);
    }
    sched_free(s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sched");
    TCase *tc = tcase_create("sched");

    tcase_add_test(tc, bands_then_order);
    tcase_add_test(tc, ineligible_never_blocks);
    tcase_add_test(tc, express_credit);
    tcase_add_test(tc, requeued_keeps_its_place);
    tcase_add_test(tc, caps);
    tcase_add_test(tc, deadlines);
    tcase_add_test(tc, refuses_nonsense);
    tcase_add_loop_test(tc, random_operations, 0, 3);
    suite_add_tcase(suite, tc);
    return unit_run(suite);
}

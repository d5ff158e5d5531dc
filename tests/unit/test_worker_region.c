/* SPDX-License-Identifier: MIT */
/* The region table: what is refused, holds, detaching, many of them. */
#include "gpu-worker/region.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "unit.h"

#define PAGE 4096u

/* A backend that counts. */
static unsigned attached;

static int fake_attach(struct gpu *gpu, void *base, uint64_t bytes, struct gpu_region **ret)
{
    (void)gpu, (void)bytes;
    *ret = base;
    attached++;
    return 0;
}

static int fake_detach(struct gpu *gpu, struct gpu_region *region)
{
    (void)gpu, (void)region;
    attached--;
    return 0;
}

static const struct gpu_backend fake = {.region_attach = fake_attach, .region_detach = fake_detach};

static struct region_table table;

static void reset(void)
{
    memset(&table, 0, sizeof(table));
    table.backend = &fake;
    attached = 0;
}

static int memfd(off_t bytes, int seals)
{
    int fd = memfd_create("test", MFD_ALLOW_SEALING | MFD_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, bytes), 0);
    ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

static const struct refusal {
    const char *name;
    uint32_t id;
    off_t bytes;
    int seals;
    uint64_t announced;
    int want;
} refusals[] = {
    {"number 0", 0, PAGE, F_SEAL_SHRINK, PAGE, -EINVAL},
    {"not sealed", 1, PAGE, 0, PAGE, -EPERM},
    {"sealed against growing only", 1, PAGE, F_SEAL_GROW, PAGE, -EPERM},
    {"too small", 1, PAGE, F_SEAL_SHRINK, PAGE + 1, -EINVAL},
    {"empty", 1, PAGE, F_SEAL_SHRINK, 0, -EINVAL},
    {"a size that no file has", 1, PAGE, F_SEAL_SHRINK, UINT64_MAX, -EINVAL},
    {"sealed against writing", 1, PAGE, F_SEAL_SHRINK | F_SEAL_WRITE, PAGE, -EPERM},
};

START_TEST(refused)
{
    const struct refusal *c = &refusals[_i];
    char why[GPU_WHY_MAX] = "";
    int fd = memfd(c->bytes, c->seals);

    reset();
    ck_assert_msg(region_attach(&table, c->id, fd, c->announced, why) == c->want, "%s", c->name);
    ck_assert_msg(strlen(why) > 10, "%s: no sentence", c->name);
    ck_assert_uint_eq(table.count, 0);
    ck_assert_uint_eq(attached, 0);
    close(fd);
}
END_TEST

START_TEST(a_file_that_is_no_memfd)
{
    char why[GPU_WHY_MAX];

    reset();
    ck_assert_int_eq(region_attach(&table, 1, STDERR_FILENO, PAGE, why), -EPERM);
    ck_assert_int_eq(region_attach(&table, 1, -1, PAGE, why), -EPERM);
}
END_TEST

START_TEST(a_number_is_used_once)
{
    char why[GPU_WHY_MAX];
    int fd = memfd(PAGE, F_SEAL_SHRINK);

    reset();
    ck_assert_int_eq(region_attach(&table, 7, fd, PAGE, why), 0);
    ck_assert_int_eq(region_attach(&table, 7, fd, PAGE, why), -EINVAL);
    struct region *r = region_find(&table, 7);
    region_hold(r);
    ck_assert(!region_detach(&table, r));
    ck_assert_ptr_null(region_find(&table, 7));
    ck_assert_int_eq(region_attach(&table, 7, fd, PAGE, why), -EINVAL);
    ck_assert(region_release(&table, r));
    ck_assert_int_eq(region_attach(&table, 7, fd, PAGE, why), 0);
    region_detach_all(&table);
    ck_assert_uint_eq(attached, 0);
    close(fd);
}
END_TEST

START_TEST(it_is_unmapped_with_its_last_job)
{
    char why[GPU_WHY_MAX];
    int fd = memfd(PAGE, F_SEAL_SHRINK);

    reset();
    region_attach(&table, 1, fd, PAGE, why);
    struct region *r = region_find(&table, 1);
    region_hold(r);
    region_hold(r);
    ck_assert(!region_release(&table, r));
    ck_assert(!region_detach(&table, r));
    r->base[0] = 1; /* still mapped */
    ck_assert(region_release(&table, r));
    ck_assert_uint_eq(table.count, 0);
    region_hold(NULL);
    ck_assert(!region_release(&table, NULL));
    close(fd);
}
END_TEST

START_TEST(as_many_as_there_may_be)
{
    char why[GPU_WHY_MAX];
    int fd = memfd(PAGE, F_SEAL_SHRINK);

    reset();
    for (uint32_t id = 1; id <= REGIONS_MAX; id++) {
        ck_assert_int_eq(region_attach(&table, id * 3, fd, PAGE, why), 0);
    }
    ck_assert_int_eq(region_attach(&table, 1, fd, PAGE, why), -ENOSPC);
    for (uint32_t id = 1; id <= REGIONS_MAX; id += 2) {
        ck_assert(region_detach(&table, region_find(&table, id * 3)));
    }
    ck_assert_uint_eq(table.count, REGIONS_MAX / 2);
    ck_assert_ptr_null(region_find(&table, 3));
    ck_assert_uint_eq(region_find(&table, 6)->id, 6);
    region_detach_all(&table);
    ck_assert_uint_eq(table.count, 0);
    ck_assert_uint_eq(attached, 0);
    close(fd);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("region");
    TCase *tc = tcase_create("table");

    tcase_add_loop_test(tc, refused, 0, N_ELEMS(refusals));
    tcase_add_test(tc, a_file_that_is_no_memfd);
    tcase_add_test(tc, a_number_is_used_once);
    tcase_add_test(tc, it_is_unmapped_with_its_last_job);
    tcase_add_test(tc, as_many_as_there_may_be);
    suite_add_tcase(suite, tc);
    return unit_run(suite);
}

/* SPDX-License-Identifier: MIT */
/* The region table: what is refused, holds, detaching, many of them. */
#include "gpu-worker/region.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
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
    table.most = REGIONS_MAX;
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

static int attach_at(uint32_t id, int fd, uint64_t offset, uint64_t size, int writers, char *why)
{
    const struct vgpu_attach attach = {.region = id, .offset = offset, .size = size};

    return region_attach(&table, &attach, fd, writers, why);
}

static int attach(uint32_t id, int fd, uint64_t size, char *why)
{
    return attach_at(id, fd, 0, size, -1, why);
}

static const struct refusal {
    const char *name;
    uint32_t id;
    off_t bytes;
    int seals;
    uint64_t announced;
    int want;
    uint64_t offset;
} refusals[] = {
    {"number 0", 0, PAGE, F_SEAL_SHRINK, PAGE, -EINVAL, 0},
    {"not sealed", 1, PAGE, 0, PAGE, -EPERM, 0},
    {"sealed against growing only", 1, PAGE, F_SEAL_GROW, PAGE, -EPERM, 0},
    {"too small", 1, PAGE, F_SEAL_SHRINK, PAGE + 1, -EINVAL, 0},
    {"empty", 1, PAGE, F_SEAL_SHRINK, 0, -EINVAL, 0},
    {"a size that no file has", 1, PAGE, F_SEAL_SHRINK, UINT64_MAX, -EINVAL, 0},
    {"an offset inside a page", 1, 2 * PAGE, F_SEAL_SHRINK, 64, -EINVAL, 64},
    {"beyond the end by its offset", 1, 2 * PAGE, F_SEAL_SHRINK, 2 * PAGE, -EINVAL, PAGE},
    {"an offset beyond the end", 1, PAGE, F_SEAL_SHRINK, PAGE, -EINVAL, 2 * PAGE},
    {"an end that wraps", 1, PAGE, F_SEAL_SHRINK, UINT64_MAX - PAGE + 1, -EINVAL, PAGE},
    {"sealed against writing", 1, PAGE, F_SEAL_SHRINK | F_SEAL_WRITE, PAGE, -EPERM, 0},
};

START_TEST(refused)
{
    const struct refusal *c = &refusals[_i];
    char why[GPU_WHY_MAX] = "";
    int fd = memfd(c->bytes, c->seals);

    reset();
    ck_assert_msg(attach_at(c->id, fd, c->offset, c->announced, -1, why) == c->want, "%s", c->name);
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
    ck_assert_int_eq(attach(1, STDERR_FILENO, PAGE, why), -EPERM);
    ck_assert_int_eq(attach(1, -1, PAGE, why), -EPERM);
}
END_TEST

START_TEST(a_number_is_used_once)
{
    char why[GPU_WHY_MAX];
    int fd = memfd(PAGE, F_SEAL_SHRINK);

    reset();
    ck_assert_int_eq(attach(7, fd, PAGE, why), 0);
    ck_assert_int_eq(attach(7, fd, PAGE, why), -EINVAL);
    struct region *r = region_find(&table, 7);
    region_hold(r);
    ck_assert(!region_detach(&table, r));
    ck_assert_ptr_null(region_find(&table, 7));
    ck_assert_int_eq(attach(7, fd, PAGE, why), -EINVAL);
    ck_assert(region_release(&table, r));
    ck_assert_int_eq(attach(7, fd, PAGE, why), 0);
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
    attach(1, fd, PAGE, why);
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

START_TEST(it_starts_at_its_offset)
{
    char why[GPU_WHY_MAX];
    int fd = memfd(4 * PAGE, F_SEAL_SHRINK);
    uint8_t byte = 0;

    reset();
    ck_assert_int_eq(attach_at(1, fd, 3 * PAGE, PAGE, -1, why), 0);
    region_find(&table, 1)->base[5] = 77;
    ck_assert_int_eq(pread(fd, &byte, 1, 3 * PAGE + 5), 1);
    ck_assert_uint_eq(byte, 77);
    region_detach_all(&table);
    close(fd);
}
END_TEST

/* Whether somebody still has the write end. */
static bool has_writers(int read_end)
{
    struct pollfd p = {.fd = read_end, .events = POLLIN};

    return !(poll(&p, 1, 0) == 1 && (p.revents & POLLHUP));
}

START_TEST(the_writers_pipe_is_open_as_long_as_it_is_mapped)
{
    char why[GPU_WHY_MAX];
    int fd = memfd(PAGE, F_SEAL_SHRINK);
    int pipes[2][2];

    reset();
    ck_assert_int_eq(pipe(pipes[0]) | pipe(pipes[1]), 0);
    ck_assert_int_eq(attach_at(1, fd, 0, PAGE, pipes[0][1], why), 0);
    struct region *r = region_find(&table, 1);
    region_hold(r);
    ck_assert(!region_detach(&table, r));
    ck_assert(has_writers(pipes[0][0]));
    ck_assert(region_release(&table, r));
    ck_assert(!has_writers(pipes[0][0]));
    ck_assert_int_eq(attach_at(2, fd, 0, 2 * PAGE, pipes[1][1], why), -EINVAL);
    ck_assert_msg(!has_writers(pipes[1][0]), "refused: nothing is mapped");
    close(pipes[0][0]);
    close(pipes[1][0]);
    close(fd);
}
END_TEST

START_TEST(as_many_as_there_may_be)
{
    char why[GPU_WHY_MAX];
    int fd = memfd(PAGE, F_SEAL_SHRINK);

    reset();
    for (uint32_t id = 1; id <= REGIONS_MAX; id++) {
        ck_assert_int_eq(attach(id * 3, fd, PAGE, why), 0);
    }
    ck_assert_int_eq(attach(1, fd, PAGE, why), -ENOSPC);
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
    tcase_add_test(tc, it_starts_at_its_offset);
    tcase_add_test(tc, the_writers_pipe_is_open_as_long_as_it_is_mapped);
    tcase_add_test(tc, as_many_as_there_may_be);
    suite_add_tcase(suite, tc);
    return unit_run(suite);
}

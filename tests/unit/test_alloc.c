/* SPDX-License-Identifier: MIT */
/*
 * test_alloc.c - the arena between requests, threads and processes: no byte is handed out twice, a
 * dead process leaves nothing behind, and the device's lock goes round
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest/lib/arena.h"
#include "guest/lib/claims.h"
#include "guest/lib/devlock.h"
#include "tests/unit/unit.h"

#define SIZE (UINT64_C(64) << 20)
#define START UINT64_C(0x10000) /* of the arena in the file */

static char path[] = "/tmp/test_alloc.XXXXXX";

static void make_file(void)
{
    int fd = mkstemp(path);

    ck_assert_int_ge(fd, 0);
    close(fd);
}

static void remove_file(void)
{
    unlink(path);
}

/* Every open file is as another process. */
static struct claims open_claims(void)
{
    struct claims c = {.fd = open(path, O_RDWR | O_CLOEXEC), .start = START, .size = SIZE};

    ck_assert_int_ge(c.fd, 0);
    return c;
}

START_TEST(claims_of_two)
{
    struct claims a = open_claims(), b = open_claims();
    struct ranges_span s1, s2, s3, s4;

    ck_assert_int_eq(claims_take(&a, 10000, &s1), 0);
    ck_assert_uint_eq(s1.offset, 0);
    ck_assert_uint_eq(s1.length, 12288);
    ck_assert_int_eq(claims_take(&b, 1 << 20, &s2), 0);
    ck_assert_uint_eq(s2.offset, 12288);
    ck_assert_int_eq(claims_take(&a, 4096, &s3), 0); /* behind b's */
    ck_assert_uint_eq(s3.offset, 12288 + (1 << 20));
    claims_give(&a, &s1);
    ck_assert_int_eq(claims_take(&b, 16384, &s4), 0); /* the gap is too small */
    ck_assert_uint_eq(s4.offset, s3.offset + 4096);
    ck_assert_int_eq(claims_take(&b, 12288, &s4), 0);
    ck_assert_uint_eq(s4.offset, 0);
    ck_assert_int_eq(claims_take(&a, SIZE, &s1), RANGES_E_FULL);
    ck_assert_int_eq(claims_take(&a, SIZE + 1, &s1), RANGES_E_FULL);
    ck_assert_int_eq(claims_take(&a, 0, &s1), RANGES_E_FULL);
    ck_assert_int_eq(claims_take(&a, UINT64_MAX, &s1), RANGES_E_FULL);
    close(b.fd); /* as if its process had died */
    b.n = 0;
    claims_give(&a, &s3);
    ck_assert_int_eq(claims_take(&a, SIZE, &s1), 0);
    ck_assert_uint_eq(s1.offset, 0);
    close(a.fd);
}
END_TEST

START_TEST(claims_without_others)
{
    struct claims c = {.fd = -1, .size = 100 * 4096};
    struct ranges_span s;
    unsigned n = 0;

    while (claims_take(&c, 4096, &s) == 0) {
        ck_assert_uint_eq(s.offset, n++ * 4096);
    }
    ck_assert_uint_eq(n, 100);
}
END_TEST

START_TEST(claims_of_a_killed_process)
{
    struct claims mine = open_claims();
    struct ranges_span s;
    int pipe_fds[2], status;
    char c;
    pid_t pid;

    ck_assert_int_eq(pipe(pipe_fds), 0);
    pid = fork();
    if (pid == 0) {
        struct claims theirs = open_claims();

        close(mine.fd);
        if (claims_take(&theirs, SIZE, &s) == 0 && write(pipe_fds[1], "x", 1) == 1) {
            pause();
        }
        _exit(1);
    }
    ck_assert_int_eq(read(pipe_fds[0], &c, 1), 1);
    ck_assert_int_eq(claims_take(&mine, 4096, &s), RANGES_E_FULL);
    kill(pid, SIGKILL);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(claims_take(&mine, SIZE, &s), 0);
    close(mine.fd);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
}
END_TEST

/* ---- the lock ---- */

START_TEST(lock_goes_round)
{
    struct devlock a = {.fd = open(path, O_RDWR)}, b = {.fd = open(path, O_RDWR)};

    ck_assert_int_eq(devlock_try(&a), 0);
    ck_assert_int_eq(devlock_try(&a), 0); /* has it already */
    ck_assert_int_eq(devlock_try(&b), DEVLOCK_E_WAIT);
    devlock_release(&a);
    ck_assert_int_eq(devlock_try(&a), DEVLOCK_E_WAIT); /* b was first in line */
    ck_assert_int_eq(devlock_try(&b), 0);
    ck_assert_int_eq(devlock_try(&a), DEVLOCK_E_WAIT);
    devlock_release(&b);
    ck_assert_int_eq(devlock_try(&b), DEVLOCK_E_WAIT);
    ck_assert_int_eq(devlock_try(&a), 0);
    /* Who no longer wants it is in nobody's way. */
    ck_assert_int_eq(devlock_try(&b), DEVLOCK_E_WAIT);
    devlock_pause(&b);
    devlock_release(&a);
    ck_assert_int_eq(devlock_try(&a), 0);
    close(a.fd);
    ck_assert_int_eq(devlock_try(&b), 0);
    close(b.fd);
}
END_TEST

START_TEST(lock_without_others)
{
    struct devlock a = {.fd = -1};

    ck_assert_int_eq(devlock_try(&a), 0);
    devlock_release(&a);
    ck_assert(!a.held);
}
END_TEST

/* ---- the allocator ---- */

/* A transport that has nothing but an arena. */
struct only_arena {
    struct transport t;
    struct claims claims;
};

static int only_claim(struct transport *t, uint64_t want_bytes, struct ranges_span *ret)
{
    return claims_take(&((struct only_arena *)t)->claims, want_bytes, ret);
}

static void only_unclaim(struct transport *t, const struct ranges_span *span)
{
    claims_give(&((struct only_arena *)t)->claims, span);
}

static const struct transport_ops only_ops = {.claim = only_claim, .unclaim = only_unclaim};
static uint8_t not_used[1];

static struct only_arena make_arena(int fd)
{
    return (struct only_arena){
        .t = {.ops = &only_ops, .limits = {.arena = not_used, .arena_bytes = SIZE}},
        .claims = {.fd = fd, .start = START, .size = SIZE},
    };
}

START_TEST(alloc_and_free)
{
    struct only_arena t = make_arena(-1);
    struct arena a;
    uint64_t x, y;

    arena_init(&a, &t.t);
    ck_assert_uint_eq(arena_largest(&a), SIZE);
    ck_assert_int_eq(arena_alloc(&a, 0, &x), -EINVAL);
    ck_assert_int_eq(arena_alloc(&a, SIZE + 1, &x), -ENOMEM);
    ck_assert_int_eq(arena_alloc(&a, UINT64_MAX, &x), -ENOMEM);
    ck_assert_int_eq(arena_alloc(&a, 1, &x), 0);
    ck_assert_int_eq(arena_alloc(&a, 1, &y), 0);
    ck_assert_uint_eq(y - x, 64);
    ck_assert_int_eq(arena_free(&a, 4242), -EINVAL);
    ck_assert_int_eq(arena_free(&a, x), 0);
    ck_assert_int_eq(arena_free(&a, x), -EINVAL);
    ck_assert_int_eq(arena_alloc(&a, 20 << 20, &x), 0); /* a part of its own */
    ck_assert_uint_eq(a.nparts, 2);
    ck_assert_int_eq(arena_free(&a, x), 0);
    ck_assert_uint_eq(a.nparts, 1); /* and given back */
    ck_assert_int_eq(arena_free(&a, y), 0);
    ck_assert_uint_eq(a.nparts, 1); /* the first small one stays */
    ck_assert_int_eq(arena_alloc(&a, SIZE, &x), -ENOMEM);
    ck_assert_int_eq(arena_alloc(&a, SIZE - ARENA_PART_BYTES, &x), 0);
    ck_assert_int_eq(arena_alloc(&a, ARENA_PART_BYTES, &y), 0);
    ck_assert_int_eq(arena_alloc(&a, 1, &y), -ENOMEM);
    ck_assert_uint_eq(arena_largest(&a), 0);
    arena_fini(&a);
}
END_TEST

START_TEST(put_off)
{
    struct only_arena t = make_arena(-1);
    struct arena a;
    uint64_t x, y;

    arena_init(&a, &t.t);
    ck_assert_int_eq(arena_alloc(&a, 100, &x), 0);
    arena_hold(&a);
    arena_hold(&a);
    ck_assert_int_eq(arena_free(&a, x), 0);
    ck_assert_int_eq(arena_alloc(&a, 100, &y), 0);
    ck_assert_uint_ne(x, y); /* the device may still write there */
    arena_unhold(&a);
    ck_assert_ptr_nonnull(a.put_off);
    arena_unhold(&a);
    ck_assert_ptr_null(a.put_off);
    ck_assert_int_eq(arena_alloc(&a, 100, &y), 0);
    ck_assert_uint_eq(x, y);
    arena_fini(&a);
}
END_TEST

/* Two processes allocate and free at random: every byte belongs to one at a time. */
#define PIECES 64u

struct piece {
    unsigned arena;
    uint64_t offset, length;
};

static bool overlaps(const struct piece *pieces, const struct piece *p)
{
    for (unsigned i = 0; i < PIECES; i++) {
        if (pieces[i].length && &pieces[i] != p && pieces[i].offset < p->offset + p->length &&
            p->offset < pieces[i].offset + pieces[i].length) {
            return true;
        }
    }
    return false;
}

START_TEST(two_at_random)
{
    int fds[2] = {open(path, O_RDWR), open(path, O_RDWR)};
    struct only_arena t[2] = {make_arena(fds[0]), make_arena(fds[1])};
    struct arena a[2];
    struct piece pieces[PIECES] = {{0}};
    uint64_t random = 4711;
    unsigned full = 0;

    arena_init(&a[0], &t[0].t);
    arena_init(&a[1], &t[1].t);
    for (unsigned step = 0; step < 20000; step++) {
        struct piece *p = &pieces[unit_below(&random, PIECES)];

        if (p->length) {
            ck_assert_int_eq(arena_free(&a[p->arena], p->offset), 0);
            p->length = 0;
            continue;
        }
        p->arena = (unsigned)unit_below(&random, 2);
        uint64_t length = 1 + (unit_below(&random, 1 << 21) >> unit_below(&random, 20));

        if (arena_alloc(&a[p->arena], length, &p->offset) == 0) {
            p->length = length;
            ck_assert_uint_eq(p->offset % VGPU_ARENA_ALIGN, 0);
            ck_assert_uint_le(p->offset + p->length, SIZE);
            ck_assert_msg(!overlaps(pieces, p), "step %u", step);
        } else {
            full++;
        }
    }
    ck_assert_uint_lt(full, 2000);
    arena_fini(&a[0]);
    arena_fini(&a[1]);
    ck_assert_uint_eq(t[0].claims.n + t[1].claims.n, 0);
    close(fds[0]);
    close(fds[1]);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("alloc");
    TCase *tc = tcase_create("alloc");

    tcase_add_checked_fixture(tc, make_file, remove_file);
    tcase_add_test(tc, claims_of_two);
    tcase_add_test(tc, claims_without_others);
    tcase_add_test(tc, claims_of_a_killed_process);
    tcase_add_test(tc, lock_goes_round);
    tcase_add_test(tc, lock_without_others);
    tcase_add_test(tc, alloc_and_free);
    tcase_add_test(tc, put_off);
    tcase_add_test(tc, two_at_random);
    suite_add_tcase(s, tc);
    return unit_run(s);
}

/* SPDX-License-Identifier: MIT */
/*
 * poll - the yardstick of polling: what handing on a cache line costs, with nothing else done
 *
 * usage: bench-poll N
 *
 * Two polls, one inside the other, over three processes A -> B -> C -> B -> A, each on a CPU of its
 * own, spinning on a word of shared memory: the least that a request can cost whose way goes through
 * a mediator to a worker and back when nobody sleeps.
 */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/place.h"
#include "bench/stats.h"
#include "common/clock.h"
#include "common/core/spin.h"

/* Words, named by the way they go; each in a cache line of its own, counting round trips. */
struct lines {
    _Alignas(128) _Atomic uint64_t a_b;
    _Alignas(128) _Atomic uint64_t b_c;
    _Alignas(128) _Atomic uint64_t c_b;
    _Alignas(128) _Atomic uint64_t b_a;
};

static void await(_Atomic uint64_t *word, uint64_t value)
{
    while (atomic_load_explicit(word, memory_order_acquire) != value) {
        spin_pause();
    }
}

static void tell(_Atomic uint64_t *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_release);
}

static void serve_b(struct lines *l, uint64_t i)
{
    await(&l->a_b, i);
    tell(&l->b_c, i);
    await(&l->c_b, i);
    tell(&l->b_a, i);
}

static void serve_c(struct lines *l, uint64_t i)
{
    await(&l->b_c, i);
    tell(&l->c_b, i);
}

static pid_t start(void (*serve)(struct lines *l, uint64_t i), struct lines *l, int cpu)
{
    pid_t pid = fork();

    if (pid < 0) {
        die("fork");
    }
    if (pid > 0) {
        return pid;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    place_here(cpu);
    for (uint64_t i = 1;; i++) {
        serve(l, i);
    }
}

static void measure(struct lines *l, size_t n)
{
    struct stats s;

    stats_init(&s, n);
    for (uint64_t i = 1; i <= n + n / 10; i++) {
        uint64_t begin = clock_now_ns();

        tell(&l->a_b, i);
        await(&l->b_a, i);
        if (i > n / 10) { /* the first tenth warms up */
            stats_add(&s, clock_now_ns() - begin);
        }
    }
    stats_report(&s, "poll");
    stats_fini(&s);
}

int main(int argc, char **argv)
{
    size_t n = argc == 2 ? strtoul(argv[1], NULL, 10) : 0;
    struct lines *l;
    pid_t pids[2];

    if (n == 0) {
        fprintf(stderr, "usage: bench-poll N\n");
        return 2;
    }
    if (place_cpu(2) < 0) {
        fprintf(stderr, "bench-poll: needs three CPUs\n");
        return 1;
    }
    l = mmap(NULL, sizeof(*l), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (l == MAP_FAILED) {
        die("shared memory");
    }
    pids[0] = start(serve_b, l, place_cpu(1));
    pids[1] = start(serve_c, l, place_cpu(2));
    place_here(place_cpu(0));
    measure(l, n);
    for (int i = 0; i < 2; i++) {
        kill(pids[i], SIGKILL);
        waitpid(pids[i], NULL, 0);
    }
    return 0;
}

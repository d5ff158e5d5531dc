/* SPDX-License-Identifier: MIT */
/*
 * eventfd - the yardstick: what waking processes costs on this machine, with nothing else done
 *
 * usage: bench-eventfd N
 *
 * Two ping-pongs, one inside the other, over three processes A -> B -> C -> B -> A: the least that a
 * request can cost whose way goes through a mediator to a worker and back when all of them sleep in
 * read(). Where they run decides: `apart` has neighbours on different CPUs (A and C on the first, B
 * on the second), `together` has all on one, where a wake-up is a mere context switch. Left to
 * itself the scheduler takes now the one, now the other, which makes no yardstick.
 */
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/stats.h"
#include "common/clock.h"

/* The eventfds, named by the way of the wake-up. */
struct bells {
    int a_b, b_a, b_c, c_b;
};

static void ring(int fd)
{
    uint64_t one = 1;

    if (write(fd, &one, sizeof(one)) != sizeof(one)) {
        die("write to an eventfd");
    }
}

static void await(int fd)
{
    uint64_t n;

    if (read(fd, &n, sizeof(n)) != sizeof(n)) {
        die("read of an eventfd");
    }
}

static int make(void)
{
    int fd = eventfd(0, EFD_CLOEXEC);

    if (fd < 0) {
        die("eventfd");
    }
    return fd;
}

/* The calling process runs on the first (0) or second (1) CPU that @all has from now on. */
static void pin(const cpu_set_t *all, int which)
{
    cpu_set_t one;

    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, all) && which-- == 0) {
            CPU_SET(cpu, &one);
        }
    }
    if (sched_setaffinity(0, sizeof(one), &one)) {
        die("sched_setaffinity");
    }
}

static pid_t start(void (*serve)(const struct bells *b), const struct bells *b,
                   const cpu_set_t *all, int cpu)
{
    pid_t pid = fork();

    if (pid < 0) {
        die("fork");
    }
    if (pid > 0) {
        return pid;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pin(all, cpu);
    for (;;) {
        serve(b);
    }
}

static void serve_b(const struct bells *b)
{
    await(b->a_b);
    ring(b->b_c);
    await(b->c_b);
    ring(b->b_a);
}

static void serve_c(const struct bells *b)
{
    await(b->b_c);
    ring(b->c_b);
}

static void run(const char *name, size_t n, const cpu_set_t *all, bool apart)
{
    const struct bells b = {make(), make(), make(), make()};
    pid_t pids[2] = {start(serve_b, &b, all, apart), start(serve_c, &b, all, 0)};
    struct stats s;

    pin(all, 0);
    stats_init(&s, n);
    for (size_t i = 0; i < n + n / 10; i++) {
        uint64_t begin = clock_now_ns();

        ring(b.a_b);
        await(b.b_a);
        if (i >= n / 10) { /* the first tenth warms up */
            stats_add(&s, clock_now_ns() - begin);
        }
    }
    stats_report(&s, name);
    stats_fini(&s);
    for (int i = 0; i < 2; i++) {
        kill(pids[i], SIGKILL);
        waitpid(pids[i], NULL, 0);
    }
    close(b.a_b);
    close(b.b_a);
    close(b.b_c);
    close(b.c_b);
}

int main(int argc, char **argv)
{
    size_t n = argc == 2 ? strtoul(argv[1], NULL, 10) : 0;
    cpu_set_t all;

    if (n == 0) {
        fprintf(stderr, "usage: bench-eventfd N\n");
        return 2;
    }
    if (sched_getaffinity(0, sizeof(all), &all)) {
        die("sched_getaffinity");
    }
    if (CPU_COUNT(&all) < 2) {
        fprintf(stderr, "bench-eventfd: needs two CPUs\n");
        return 1;
    }
    run("together", n, &all, false);
    run("apart", n, &all, true);
    return 0;
}

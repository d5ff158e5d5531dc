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
 *
 * `….loop` is the same with B and C sleeping in epoll_wait() before each read(), as a process that
 * serves more than one peer has to.
 */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/place.h"
#include "bench/stats.h"
#include "common/clock.h"

/* The eventfds, named by the way of the wake-up, and what B and C wait with: -1: in read() itself. */
struct bells {
    int a_b, b_a, b_c, c_b;
    int epoll_b, epoll_c;
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

static void sleep_in(int epoll)
{
    struct epoll_event e;

    if (epoll >= 0 && epoll_wait(epoll, &e, 1, -1) != 1) {
        die("epoll_wait");
    }
}

static int make_epoll(int fd1, int fd2)
{
    struct epoll_event e = {.events = EPOLLIN};
    int epoll = epoll_create1(EPOLL_CLOEXEC);

    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd1, &e) ||
        (fd2 >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, fd2, &e))) {
        die("epoll");
    }
    return epoll;
}

static int make(void)
{
    int fd = eventfd(0, EFD_CLOEXEC);

    if (fd < 0) {
        die("eventfd");
    }
    return fd;
}

static pid_t start(void (*serve)(const struct bells *b), const struct bells *b, int cpu)
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
    for (;;) {
        serve(b);
    }
}

static void serve_b(const struct bells *b)
{
    sleep_in(b->epoll_b);
    await(b->a_b);
    ring(b->b_c);
    sleep_in(b->epoll_b);
    await(b->c_b);
    ring(b->b_a);
}

static void serve_c(const struct bells *b)
{
    sleep_in(b->epoll_c);
    await(b->b_c);
    ring(b->c_b);
}

static void measure(const char *name, size_t n, const struct bells *b)
{
    struct stats s;

    stats_init(&s, n);
    for (size_t i = 0; i < n + n / 10; i++) {
        uint64_t begin = clock_now_ns();

        ring(b->a_b);
        await(b->b_a);
        if (i >= n / 10) { /* the first tenth warms up */
            stats_add(&s, clock_now_ns() - begin);
        }
    }
    stats_report(&s, name);
    stats_fini(&s);
}

static void run(const char *name, size_t n, int cpu_b, bool loop)
{
    struct bells b = {make(), make(), make(), make(), -1, -1};
    int cpu_a = place_cpu(0);
    pid_t pids[2];

    if (loop) {
        b.epoll_b = make_epoll(b.a_b, b.c_b);
        b.epoll_c = make_epoll(b.b_c, -1);
    }
    pids[0] = start(serve_b, &b, cpu_b);
    pids[1] = start(serve_c, &b, cpu_a);
    place_here(cpu_a);
    measure(name, n, &b);
    for (int i = 0; i < 2; i++) {
        kill(pids[i], SIGKILL);
        waitpid(pids[i], NULL, 0);
    }
    close(b.a_b);
    close(b.b_a);
    close(b.b_c);
    close(b.c_b);
    if (loop) {
        close(b.epoll_b);
        close(b.epoll_c);
    }
}

int main(int argc, char **argv)
{
    size_t n = argc == 2 ? strtoul(argv[1], NULL, 10) : 0;

    if (n == 0) {
        fprintf(stderr, "usage: bench-eventfd N\n");
        return 2;
    }
    if (place_cpu(1) < 0) {
        fprintf(stderr, "bench-eventfd: needs two CPUs\n");
        return 1;
    }
    run("apart", n, place_cpu(1), false);
    run("together", n, place_cpu(0), false);
    run("apart.loop", n, place_cpu(1), true);
    run("together.loop", n, place_cpu(0), true);
    return 0;
}

/* SPDX-License-Identifier: MIT */
/*
 * shm - drives a mediator through shared memory, as QEMU and its guest would, and measures
 *
 * usage: bench-shm SOCKET null N [spin]            round trip of an echo of 16 bytes, one at a time
 *        bench-shm SOCKET pipeline N MEDIATOR WORKER
 *                                                  echoes with 256 bytes of request, 64 in flight
 *        bench-shm SOCKET OP N [MEDIATOR WORKER]   a typical job of OP, its data in the arena
 *
 * MEDIATOR and WORKER are process ids, of the worker its supervisor's. Prints BENCH lines, and as VALUE
 * lines what is no time. With `null` this process stays where it was put (taskset). The first tenth is
 * not counted.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/procinfo.h"
#include "bench/shmclient.h"
#include "bench/stats.h"
#include "bench/typical.h"
#include "common/clock.h"

#define MIB(n) ((uint64_t)(n) << 20)
#define DEPTH 64u

static uint8_t request[VGPU_REQ_MAX];

/* The processes whose use of resources counts. */
struct watched {
    pid_t mediator, executor;
    struct procinfo before[2], after[2];
};

static void watch_start(struct watched *w)
{
    procinfo_read(w->mediator, &w->before[0]);
    procinfo_read(w->executor, &w->before[1]);
}

static void watch_stop(struct watched *w)
{
    procinfo_read(w->mediator, &w->after[0]);
    procinfo_read(w->executor, &w->after[1]);
}

static struct watched watch_of(char **pids)
{
    struct watched w = {.mediator = (pid_t)atoi(pids[0])};

    w.executor = procinfo_child((pid_t)atoi(pids[1]));
    if (w.executor == 0) {
        fprintf(stderr, "bench-shm: worker %s has no executor\n", pids[1]);
        exit(1);
    }
    return w;
}

/* ---- one at a time ---- */

static void measure(struct shmclient *c, const char *name, uint32_t len, size_t n)
{
    struct stats all, worker;
    char label[32];

    stats_init(&all, n);
    stats_init(&worker, n);
    for (size_t i = 0; i < n + n / 10 + 1; i++) {
        uint64_t begin = clock_now_ns();
        uint64_t run_ns = shmclient_run(c, 0, request, len);

        if (i > n / 10) {
            stats_add(&all, clock_now_ns() - begin);
            stats_add(&worker, run_ns);
        }
    }
    stats_report(&all, name);
    snprintf(label, sizeof(label), "%s.run", name);
    stats_report(&worker, label);
    stats_fini(&all);
    stats_fini(&worker);
}

static int run_null(const char *path, size_t n, bool spin)
{
    const struct shmclient_shape shape = SHMCLIENT_SHAPE(MIB(64));
    static struct shmclient c;

    shmclient_open(&c, path, &shape);
    c.spin = spin;
    measure(&c, "null", typical_echo(16, request), n);
    shmclient_close(&c);
    return 0;
}

static int run_op(const char *path, const struct typical *op, size_t n, char **pids)
{
    const struct shmclient_shape shape = SHMCLIENT_SHAPE(MIB(256));
    uint32_t len = typical_request(op, 0, request);
    static struct shmclient c;
    struct watched w;
    uint64_t jobs = n + n / 10 + 1;
    uint64_t bytes = 0;

    shmclient_open(&c, path, &shape);
    typical_fill(op, c.arena);
    shmclient_run(&c, 0, request, len); /* whatever is made once is there now */
    if (pids) {
        w = watch_of(pids);
        watch_start(&w);
    }
    measure(&c, op->name, len, n);
    for (uint8_t i = 0; i < op->nbufs; i++) {
        bytes += op->lengths[i] * jobs;
    }
    for (unsigned i = 0; pids && i < 2; i++) {
        const char *who = i ? "executor" : "mediator";

        watch_stop(&w);
        printf("VALUE growth.%s %.0f\n", who,
               (double)w.after[i].rss_anon - (double)w.before[i].rss_anon);
        printf("VALUE moved.%s %.6f\n", who,
               (double)(w.after[i].io_bytes - w.before[i].io_bytes) / (double)bytes);
    }
    shmclient_close(&c);
    return 0;
}

/* ---- many in flight ---- */

static void take(struct shmclient *c, const struct vgpu_completion *done, uint64_t *inout_sum)
{
    if (done->error) {
        fprintf(stderr, "bench-shm: request %llu ended with error %u\n",
                (unsigned long long)done->tag, done->error);
        exit(1);
    }
    *inout_sum += done->tag;
    shmclient_done(c, 0, done);
}

static void submit(struct shmclient *c, uint32_t len)
{
    c->tag++;
    memcpy(request + offsetof(struct vgpu_req_hdr, tag), &c->tag, sizeof(c->tag));
    shmclient_submit(c, 0, request, len, c->tag);
}

/* @n requests, DEPTH in flight as long as there are so many left; every tag comes back once. */
static void flood(struct shmclient *c, uint32_t len, uint64_t n)
{
    uint64_t first = c->tag + 1;
    uint64_t last = c->tag + n;
    uint64_t sum = 0;
    struct vgpu_completion done;

    for (uint32_t i = 0; i < DEPTH && c->tag < last; i++) {
        submit(c, len);
    }
    for (uint64_t left = n; left > 0;) {
        shmclient_publish(c, 0);
        shmclient_wait(c, 0, &done);
        do {
            take(c, &done, &sum);
            left--;
            if (c->tag < last) {
                submit(c, len);
            }
        } while (left > 0 && shmclient_collect(c, 0, &done));
    }
    if (sum != (first + last) * n / 2) {
        fprintf(stderr, "bench-shm: an answer is missing, or came twice\n");
        exit(1);
    }
}

static void report_pipeline(const struct shmclient *c, const struct watched *w, uint64_t n,
                            uint64_t ns)
{
    double cpu_s = (double)(w->after[0].cpu_ns - w->before[0].cpu_ns) / 1e9;
    double executor_s = (double)(w->after[1].cpu_ns - w->before[1].cpu_ns) / 1e9;
    double mediator_rang = (double)(w->after[0].write_calls - w->before[0].write_calls);
    double executor_rang = (double)(w->after[1].write_calls - w->before[1].write_calls);
    double all = (double)n;

    printf("VALUE pipeline.per_cpu_second %.0f\n", all / cpu_s);
    printf("VALUE pipeline.rate %.0f\n", all * 1e9 / (double)ns);
    printf("VALUE pipeline.executor_us %.3f\n", executor_s * 1e6 / all);
    printf("VALUE pipeline.bells %.4f\n", ((double)c->kicks + mediator_rang + executor_rang) / all);
    printf("VALUE pipeline.bells.client %.4f\n", (double)c->kicks / all);
    printf("VALUE pipeline.bells.mediator %.4f\n", mediator_rang / all);
    printf("VALUE pipeline.bells.executor %.4f\n", executor_rang / all);
}

static int run_pipeline(const char *path, uint64_t n, char **pids)
{
    const struct shmclient_shape shape = SHMCLIENT_SHAPE(MIB(64));
    uint32_t len = typical_echo(256 - 96, request);
    static struct shmclient c;
    struct watched w;
    uint64_t begin;

    shmclient_open(&c, path, &shape);
    flood(&c, len, n / 10 + 1);
    w = watch_of(pids); /* there is an executor: it has answered */
    c.kicks = 0;
    watch_start(&w);
    begin = clock_now_ns();
    flood(&c, len, n);
    begin = clock_now_ns() - begin;
    watch_stop(&w);
    report_pipeline(&c, &w, n, begin);
    shmclient_close(&c);
    return 0;
}

int main(int argc, char **argv)
{
    size_t n = argc >= 4 ? strtoul(argv[3], NULL, 10) : 0;
    const struct typical *op;

    if (n && strcmp(argv[2], "null") == 0) {
        return run_null(argv[1], n, argc == 5 && strcmp(argv[4], "spin") == 0);
    }
    if (n && argc == 6 && strcmp(argv[2], "pipeline") == 0) {
        return run_pipeline(argv[1], n, argv + 4);
    }
    op = n ? typical_find(argv[2]) : NULL;
    if (!op || (argc != 4 && argc != 6)) {
        fprintf(stderr, "usage: bench-shm SOCKET null N [spin]\n"
                        "       bench-shm SOCKET pipeline N MEDIATOR WORKER\n"
                        "       bench-shm SOCKET OP N [MEDIATOR WORKER]\n");
        return 2;
    }
    return run_op(argv[1], op, n, argc == 6 ? argv + 4 : NULL);
}

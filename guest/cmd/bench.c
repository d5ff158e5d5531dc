/* SPDX-License-Identifier: MIT */
/*
 * bench.c - `vgpu bench`: the way to the device and back, by echoes of several sizes
 *
 * Latency: one request at a time. Throughput: several in flight. The null op is an echo of 8 bytes
 * that travel inside the request; larger ones lie in the arena. The floor is what the hardware path
 * costs at the least: through the windows the time of one register access, times the accesses that a
 * request without data needs; through a ring that of one doorbell.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "guest/cmd/cmd.h"

#define SAMPLES_MAX 100000u
#define SAMPLES_MIN 10u
#define WAIT_SLICE_MS 100
#define QUEUE_MAX 1024u
#define QUEUE_DEFAULT 64u
#define QUEUE_LEAST 8u /* windows: some wait in the library */
#define NULL_BYTES 8u
/* Words of an echo with two buffers in the arena, both ways, and the registers that go with it. */
#define FLOOR_ACCESSES (24u + 16u + 7u)
#define FLOOR_ACCESSES_RING 1u
#define FLOOR_READS 200u

struct bench {
    struct cmd cmd;
    double seconds;
    uint64_t queue;
    struct vgpu *gpu;
    struct vgpu_device device;
    double access_us, floor_us;
    double *samples; /* microseconds */
};

struct figure {
    uint64_t count;
    double p50_us, p99_us;
    double per_second; /* queued */
    double run_us;     /* median is not needed: of the last one */
    unsigned queue;    /* that were in flight then */
};

static const uint64_t sizes[] = {NULL_BYTES, 64, 512, 4096, 65536, 1 << 20, 8 << 20};
#define N_SIZES (sizeof(sizes) / sizeof(sizes[0]))

static const char help[] =
    "Usage: vgpu bench [OPTIONS]\n"
    "\n"
    "Measures echoes of several sizes: the time of one at a time, and how many a second when\n"
    "several are in flight. The smallest is the null op: its 8 bytes travel in the request. Says\n"
    "which path is used and how ends are waited for. Prints a table and RESULT lines.\n"
    "\n"
    "      --seconds S       time for each size and each of the two ways (default 1)\n"
    "      --queue N         requests in flight for throughput, 1..1024 (default 64, or what the\n"
    "                        path takes; more wait in this process)\n";

static const char examples[] =
    "\n"
    "Examples:\n"
    "  vgpu bench\n"
    "  vgpu bench --seconds 0.2 --json\n"
    "  vgpu bench --path windows\n"
    "  vgpu bench --spin 0 --queue 16\n"
    "\n"
    "A RESULT line: value is microseconds; floor is the time of the register accesses that the\n"
    "smallest request needs on this machine by this path; ratio is value / floor.\n";

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double percentile(double *samples, uint64_t n, double p)
{
    qsort(samples, n, sizeof(*samples), compare);
    return samples[(uint64_t)((double)(n - 1) * p)];
}

/* vgpu_describe() is nothing but register reads; their number is known. */
static void measure_floor(struct bench *b)
{
    enum { READS_OF_DESCRIBE = 14 };
    unsigned accesses = b->device.ring >= 0 ? FLOOR_ACCESSES_RING : FLOOR_ACCESSES;
    struct vgpu_device device;
    double start_ms = cmd_now_ms();

    for (unsigned i = 0; i < FLOOR_READS; i++) {
        vgpu_describe(b->gpu, &device);
    }
    b->access_us = (cmd_now_ms() - start_ms) * 1e3 / FLOOR_READS / READS_OF_DESCRIBE;
    b->floor_us = b->access_us * accesses;
}

static int failed(const struct bench *b, struct vgpu_request *req, int code)
{
    return cmd_fail(&b->cmd, cmd_exit_code(code), "echo: %s", vgpu_result_text(req));
}

static int measure_latency(struct bench *b, struct vgpu_request *req, uint8_t *in, uint8_t *out,
                           uint64_t bytes, struct figure *ret)
{
    double end_ms = cmd_now_ms() + b->seconds * 1e3;
    uint64_t n = 0;

    while (n < SAMPLES_MAX && (n < SAMPLES_MIN || cmd_now_ms() < end_ms)) {
        double start_ms = cmd_now_ms();
        int code = vgpu_echo(req, in, out, bytes);

        code = code ? code : vgpu_submit(req);
        code = code ? code : cmd_wait(req);
        if (code) {
            return failed(b, req, code);
        }
        b->samples[n++] = (cmd_now_ms() - start_ms) * 1e3;
    }
    if (memcmp(in, out, bytes) != 0) {
        return cmd_fail(&b->cmd, EXIT_REFUSED, "an echo of %" PRIu64 " bytes came back changed",
                        bytes);
    }
    ret->count = n;
    ret->run_us = (double)vgpu_result(req)->run_ns / 1e3;
    ret->p50_us = percentile(b->samples, n, 0.5);
    ret->p99_us = percentile(b->samples, n, 0.99);
    return 0;
}

/* All requests read the same input; each has an output of its own. */
static int measure_throughput(struct bench *b, struct vgpu_request **reqs, unsigned n, uint8_t *in,
                              uint8_t *out, uint64_t bytes, struct figure *ret)
{
    double start_ms = cmd_now_ms(), end_ms = start_ms + b->seconds * 1e3;
    uint64_t stride = (bytes + 63) / 64 * 64, ended = 0;
    unsigned busy = 0;
    int code = 0;

    for (unsigned i = 0; i < n && code == 0; i++, busy++) {
        code = vgpu_echo(reqs[i], in, out + i * stride, bytes);
        code = code ? code : vgpu_submit(reqs[i]);
    }
    while (busy && code == 0) {
        size_t i;

        code = vgpu_wait_any(reqs, n, WAIT_SLICE_MS, &i);
        if (code == -ETIMEDOUT) {
            code = cmd_interrupted() ? VGPU_E_CANCELLED : 0;
            continue;
        }
        code = code ? code : vgpu_poll(reqs[i]);
        if (code) {
            return failed(b, reqs[i], code);
        }
        ended++;
        if (cmd_now_ms() < end_ms && !cmd_interrupted()) {
            code = vgpu_submit(reqs[i]);
        } else {
            vgpu_request_begin(reqs[i], VGPU_OP_ECHO);
            busy--;
        }
    }
    ret->per_second = (double)ended / ((cmd_now_ms() - start_ms) / 1e3);
    return code ? cmd_fail(&b->cmd, cmd_exit_code(code), "echo: %s", vgpu_code_text(code)) : 0;
}

static void size_name(uint64_t bytes, char *ret, size_t size)
{
    if (bytes == NULL_BYTES) {
        snprintf(ret, size, "null");
    } else if (bytes >= 1 << 20) {
        snprintf(ret, size, "%" PRIu64 "MiB", bytes >> 20);
    } else if (bytes >= 1024) {
        snprintf(ret, size, "%" PRIu64 "KiB", bytes >> 10);
    } else {
        snprintf(ret, size, "%" PRIu64 "B", bytes);
    }
}

static void print_row(const struct bench *b, uint64_t bytes, const struct figure *f, bool first)
{
    char name[32];
    double mb_s = f->per_second * (double)bytes / 1e6;

    size_name(bytes, name, sizeof(name));
    if (b->cmd.json) {
        printf("%s{\"bytes\": %" PRIu64 ", \"samples\": %" PRIu64 ", \"p50_us\": %.2f, \"p99_us\": "
               "%.2f, \"run_us\": %.2f, \"in_flight\": %u, \"per_second\": %.1f, "
               "\"mb_per_second\": %.2f}",
               first ? "" : ", ", bytes, f->count, f->p50_us, f->p99_us, f->run_us, f->queue,
               f->per_second, mb_s);
        return;
    }
    printf("%8s %10.1f %10.1f %10.1f %10" PRIu64 " %9u %12.0f %10.1f\n", name, f->p50_us, f->p99_us,
           f->run_us, f->count, f->queue, f->per_second, mb_s);
}

static void print_results(const struct bench *b, const struct figure *figures, const uint64_t *done,
                          unsigned n)
{
    char name[32];

    for (unsigned i = 0; i < n; i++) {
        size_name(done[i], name, sizeof(name));
        printf("RESULT guest.echo.%s value=%.1f unit=us floor=%.1f ratio=%.2f target=-\n", name,
               figures[i].p50_us, b->floor_us, figures[i].p50_us / b->floor_us);
        printf("RESULT guest.echo.%s.p99 value=%.1f unit=us floor=%.1f ratio=%.2f target=-\n", name,
               figures[i].p99_us, b->floor_us, figures[i].p99_us / b->floor_us);
    }
}

/* Ordinary memory for the null op, so that it travels in the request; else a part of the arena. */
static uint8_t *take(struct bench *b, uint64_t bytes, uint64_t count)
{
    return bytes == NULL_BYTES ? calloc(count, (bytes + 63) / 64 * 64)
                               : vgpu_alloc(b->gpu, (bytes + 63) / 64 * 64 * count);
}

static void give(struct bench *b, uint64_t bytes, uint8_t *memory)
{
    if (bytes == NULL_BYTES) {
        free(memory);
    } else {
        vgpu_free(b->gpu, memory);
    }
}

/* Measure one size. Return: 0; an exit code; -1: the arena is too small for it. */
static int measure_size(struct bench *b, uint64_t bytes, struct figure *ret)
{
    struct vgpu_request *reqs[QUEUE_MAX] = {NULL};
    unsigned n = (unsigned)b->queue;
    uint8_t *in = take(b, bytes, 1), *out = NULL;
    int r = -1;

    while (in && !out && n) {
        out = take(b, bytes, n);
        n = out ? n : n / 2;
    }
    ret->queue = n < b->device.depth ? n : b->device.depth;
    if (out) {
        r = 0;
        memset(in, 0x5a, bytes);
        for (unsigned i = 0; i < n; i++) {
            reqs[i] = vgpu_request_new(b->gpu);
            if (!reqs[i]) {
                r = cmd_fail(&b->cmd, EXIT_REFUSED, "out of memory");
                break;
            }
            vgpu_request_set(reqs[i], &b->cmd.request);
        }
        r = r ? r : measure_latency(b, reqs[0], in, out, bytes, ret);
        r = r ? r : measure_throughput(b, reqs, n, in, out, bytes, ret);
    }
    for (unsigned i = 0; i < QUEUE_MAX; i++) {
        vgpu_request_free(reqs[i]);
    }
    give(b, bytes, in);
    give(b, bytes, out);
    return r;
}

static void print_head(const struct bench *b)
{
    const struct vgpu_device *d = &b->device;

    if (b->cmd.json) {
        printf("{\"ok\": true, \"path\": ");
        cmd_json_string(stdout, d->path);
        printf(", \"ring\": %d, \"no_ring\": ", d->ring);
        cmd_json_string(stdout, d->no_ring);
        printf(", \"depth\": %u, \"spin_us\": %u, \"arena\": ", d->depth, d->spin_us);
        cmd_json_string(stdout, d->arena);
        printf(", \"access_us\": %.3f, \"floor_us\": %.3f, \"echo\": [", b->access_us, b->floor_us);
        return;
    }
    printf("path: %s; arena: %s\n", d->path, d->arena[0] ? d->arena : "none");
    if (d->ring < 0) {
        printf("no ring: %s\n", d->no_ring);
    }
    printf("wait: %s\n", d->spin_us ? "spin while requests end fast, else nap" : "nap");
    printf("one register access %.2f us; the smallest request needs %.0f: floor %.1f us\n\n",
           b->access_us, b->floor_us / b->access_us, b->floor_us);
    printf("%8s %10s %10s %10s %10s %9s %12s %10s\n", "echo", "p50 us", "p99 us", "worker us",
           "samples", "in flight", "1/s", "MB/s");
}

static int measure_all(struct bench *b)
{
    struct figure figures[N_SIZES] = {0};
    uint64_t done[N_SIZES];
    unsigned n = 0;

    if (vgpu_describe(b->gpu, &b->device) != 0) {
        return cmd_fail(&b->cmd, EXIT_NO_DEVICE, "the device was unplugged");
    }
    if (b->device.arena_bytes == 0) {
        return cmd_fail(&b->cmd, EXIT_REFUSED, "the device has no arena to measure with");
    }
    if (b->queue == 0) {
        b->queue = b->device.depth < QUEUE_DEFAULT ? b->device.depth : QUEUE_DEFAULT;
        b->queue = b->queue < QUEUE_LEAST ? QUEUE_LEAST : b->queue;
    }
    measure_floor(b);
    for (unsigned i = 0; i < N_SIZES && !cmd_interrupted(); i++) {
        int r = measure_size(b, sizes[i], &figures[n]);

        if (r > 0) {
            return r;
        }
        if (r == 0) {
            if (n == 0) {
                print_head(b);
            }
            print_row(b, sizes[i], &figures[n], n == 0);
            done[n++] = sizes[i];
            fflush(stdout);
        }
    }
    if (cmd_interrupted()) {
        return EXIT_CANCELLED;
    }
    if (vgpu_describe(b->gpu, &b->device) != 0) {
        return cmd_fail(&b->cmd, EXIT_NO_DEVICE, "the device was unplugged");
    }
    if (b->cmd.json) {
        printf("], \"spins\": %" PRIu64 ", \"naps\": %" PRIu64 "}\n", b->device.spins,
               b->device.naps);
    } else {
        printf("\nlooks without a pause: %" PRIu64 ", naps: %" PRIu64 "\n\n", b->device.spins,
               b->device.naps);
        print_results(b, figures, done, n);
    }
    return 0;
}

enum { OPT_SECONDS = 1, OPT_QUEUE };

static const struct option long_options[] = {
    {"seconds", required_argument, NULL, OPT_SECONDS},
    {"queue", required_argument, NULL, OPT_QUEUE},
    CMD_OPTIONS,
};

static int take_option(struct bench *b, int option)
{
    switch (option) {
    case OPT_SECONDS:
        return cmd_number(&b->cmd, "--seconds", optarg, 0.01, 3600, &b->seconds);
    case OPT_QUEUE:
        return cmd_integer(&b->cmd, "--queue", optarg, 1, QUEUE_MAX, &b->queue);
    default:
        return cmd_option(&b->cmd, option);
    }
}

int bench_main(int argc, char **argv)
{
    struct bench b = {.seconds = 1};
    int option, r;

    cmd_init(&b.cmd, "vgpu bench");
    while ((option = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
        if (option == 'h') {
            printf("%s%s%s", help, cmd_options_help, examples);
            return EXIT_OK;
        }
        if ((r = take_option(&b, option)) != 0) {
            return r;
        }
    }
    if (optind < argc) {
        return cmd_fail(&b.cmd, EXIT_USAGE, "unexpected argument \"%s\" (see --help)",
                        argv[optind]);
    }
    r = cmd_open(&b.cmd, &b.gpu);
    if (r) {
        return r;
    }
    b.samples = malloc(SAMPLES_MAX * sizeof(*b.samples));
    r = b.samples ? measure_all(&b) : cmd_fail(&b.cmd, EXIT_REFUSED, "out of memory");
    free(b.samples);
    vgpu_close(b.gpu);
    return r;
}

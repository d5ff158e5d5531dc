/* SPDX-License-Identifier: MIT */
/*
 * Echo round trips, timed by the TSC. `full` is all that a driver does: 112 bytes into the window,
 * REQUEST_LEN, DOORBELL, STATUS until the end, 80 bytes out of the window. `ring` is from the
 * doorbell to the end alone, with the request still in the window.
 *
 * Through a ring, `rings` is from writing the request into its slot to its completion, polled.
 * `doorbell` is a write to a ring's doorbell with nothing submitted, which KVM turns into an eventfd;
 * `trap` is a write to a register that ignores it, which goes to QEMU and back.
 */
#include "tests/guest/cpu.h"
#include "tests/guest/ring.h"
#include "tests/guest/tests.h"

#define SAMPLES_MAX 100000u

static uint32_t samples[SAMPLES_MAX];
static uint32_t polls;

static void sift(uint32_t *v, uint32_t at, uint32_t n)
{
    for (;;) {
        uint32_t child = 2 * at + 1;
        uint32_t swap;

        if (child + 1 < n && v[child + 1] > v[child]) {
            child++;
        }
        if (child >= n || v[child] <= v[at]) {
            return;
        }
        swap = v[at];
        v[at] = v[child];
        v[child] = swap;
        at = child;
    }
}

static void sort(uint32_t *v, uint32_t n)
{
    for (uint32_t i = n / 2; i-- > 0;) {
        sift(v, i, n);
    }
    for (uint32_t i = n; i-- > 1;) {
        uint32_t swap = v[0];

        v[0] = v[i];
        v[i] = swap;
        sift(v, 0, i);
    }
}

static void report(const char *name, uint32_t n)
{
    sort(samples, n);
    say("BENCH %s n=%u min_ns=%U p50_ns=%U p99_ns=%U max_ns=%U polls=%u\n", name, n,
        cpu_ns(samples[0]), cpu_ns(samples[n / 2]), cpu_ns(samples[n - 1 - n / 100]),
        cpu_ns(samples[n - 1]), polls / n);
}

static bool wait_end(const struct device *d)
{
    uint32_t state;

    do {
        state = reg_read(d, REG_STATUS) & STATE_MASK;
        polls++;
    } while (state == STATE_BUSY);
    return state == STATE_DONE;
}

/* All of the response; the reads are what is timed. */
static void read_response(const struct device *d)
{
    uint32_t len = reg_read(d, REG_RESPONSE_LEN);

    for (uint32_t at = 0; at < len && at < WINDOW_SIZE; at += 4) {
        (void)reg_read(d, WINDOW_RESPONSE + at);
    }
}

static void write_request(const struct device *d, const uint32_t *words, uint32_t len)
{
    for (uint32_t i = 0; i < (len + 3) / 4; i++) {
        reg_write(d, WINDOW_REQUEST + 4 * i, words[i]);
    }
    reg_write(d, REG_REQUEST_LEN, len);
}

static bool measure(const struct device *d, const uint32_t *words, uint32_t len, uint32_t n,
                    bool full)
{
    polls = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t begin = cpu_tsc();
        uint64_t ticks;

        if (full) {
            write_request(d, words, len);
        }
        device_ring(d);
        if (!wait_end(d)) {
            say("BENCH failed: error %u\n", reg_read(d, REG_ERROR));
            return false;
        }
        if (full) {
            read_response(d);
        }
        ticks = cpu_tsc() - begin;
        samples[i] = ticks > 0xffffffffu ? 0xffffffffu : (uint32_t)ticks;
    }
    return true;
}

/* What one trapped access costs here: the device's part of the figures above. */
static void measure_access(const struct device *d, uint32_t n, bool write)
{
    polls = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t begin = cpu_tsc();

        if (write) {
            reg_write(d, WINDOW_REQUEST, i);
        } else {
            (void)reg_read(d, WINDOW_RESPONSE);
        }
        samples[i] = (uint32_t)(cpu_tsc() - begin);
    }
    report(write ? "write" : "read", n);
}

void bench_run(const struct device *d, uint32_t n)
{
    static uint32_t words[512];
    struct call c = call_new(OP_ECHO);
    uint32_t len;

    n = n < 1 ? 1 : n > SAMPLES_MAX ? SAMPLES_MAX : n;
    c.data = "Hello from guest";
    c.data_len = 16;
    call_buf(&c, INLINE, IN, 0, 16);
    call_buf(&c, INLINE, OUT, 0, 16);
    len = call_encode(&c, 1, (uint8_t *)words);
    say("# TSC %u kHz\n", cpu_khz());
    if (!measure(d, words, len, n < 50 ? n : 50, true)) { /* warm up */
        return;
    }
    if (measure(d, words, len, n, true)) {
        report("full", n);
    }
    if (measure(d, words, len, n, false)) {
        report("ring", n);
    }
    measure_access(d, n, false);
    measure_access(d, n, true);
}

static struct ring ring;

static struct call echo_call(void)
{
    struct call c = call_new(OP_ECHO);

    c.data = "Hello from guest";
    c.data_len = 16;
    call_buf(&c, INLINE, IN, 0, 16);
    call_buf(&c, INLINE, OUT, 0, 16);
    return c;
}

static bool open_ring(const struct device *d)
{
    const char *why = ring_open(d, 0, &ring);

    if (why) {
        say("BENCH failed: %s\n", why);
    }
    return why == NULL;
}

static void measure_write(const struct device *d, const char *name, uint32_t reg, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint64_t begin = cpu_tsc();

        reg_write(d, reg, i);
        samples[i] = (uint32_t)(cpu_tsc() - begin);
    }
    report(name, n);
}

void bench_rings(const struct device *d, uint32_t n)
{
    struct call c = echo_call();
    struct ring_completion done;

    polls = 0;
    n = n < 1 ? 1 : n > SAMPLES_MAX ? SAMPLES_MAX : n;
    if (!open_ring(d)) {
        return;
    }
    for (uint32_t i = 0; i < n + n / 10; i++) {
        uint64_t begin = cpu_tsc();
        uint64_t ticks;

        ring_put(&ring, &c, i);
        ring_publish(&ring);
        if (!ring_wait(&ring, PATIENCE_MS, &done) || done.error) {
            say("BENCH failed: request %u\n", i);
            return;
        }
        ticks = cpu_tsc() - begin;
        if (i >= n / 10) { /* the first tenth warms up */
            samples[i - n / 10] = ticks > 0xffffffffu ? 0xffffffffu : (uint32_t)ticks;
        }
    }
    report("rings", n);
    measure_write(d, "doorbell", REG_RING_DOORBELL, n);
    measure_write(d, "trap", REG_MAGIC, n);
}

static bool forever_ring(const struct call *c, uint32_t tag)
{
    struct ring_completion done;

    ring_put(&ring, c, tag);
    ring_publish(&ring);
    return ring_wait(&ring, PATIENCE_MS, &done) && done.error == OK;
}

void bench_forever(const struct device *d, bool through_ring)
{
    static volatile uint32_t counters[2]; /* requests, doorbells */
    static struct answer a;
    struct call c = echo_call();

    if (through_ring && !open_ring(d)) {
        return;
    }
    say("forever: counters at 0x%x\n", (uint32_t)(uintptr_t)counters);
    while (through_ring ? forever_ring(&c, counters[0])
                        : device_call(d, &c, PATIENCE_MS, &a) == OK) {
        counters[0]++;
        counters[1] = through_ring ? ring.doorbells : counters[0];
    }
    say("forever: request %u failed\n", counters[0]);
}

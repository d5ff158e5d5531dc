/* SPDX-License-Identifier: MIT */
/* Requests through rings: every ring, every slot, many in flight, errors, order. */
#include "tests/guest/cpu.h"
#include "tests/guest/ring.h"
#include "tests/guest/tap.h"
#include "tests/guest/tests.h"

#define IN_FLIGHT 64u
#define STREAM 2000u
#define ECHO_BYTES 160u

static struct ring ring;
static struct answer answer;
static uint8_t pattern[ECHO_BYTES];

static void test_layout(const struct device *d)
{
    uint32_t count = reg_read(d, REG_RING_COUNT);
    uint32_t n = reg_read(d, REG_RING_ENTRIES);
    uint32_t slot = reg_read(d, REG_SLOT_BYTES);
    uint32_t offset = reg_read(d, REG_RING_OFFSET);
    uint32_t stride = reg_read(d, REG_RING_STRIDE);
    uint32_t slots_at = (8192 + 64 * n + 32 * n + 4095) & ~4095u;

    tap_begin("where the rings lie");
    tap_true("1 to 64 rings", count >= 1 && count <= 64);
    tap_true("EVENT_IDX is offered", reg_read(d, REG_FEATURES) & FEATURE_EVENT_IDX);
    tap_true("entries are a power of two", n >= 16 && n <= 4096 && (n & (n - 1)) == 0);
    tap_check("RING_OFFSET is a multiple of 4096", offset % 4096, 0);
    tap_true("RING_OFFSET is past the first 64 KiB", offset >= 0x10000);
    tap_check("RING_STRIDE is a multiple of 4096", stride % 4096, 0);
    tap_true("a ring fits its stride", slots_at + n * (2 * slot + 64) <= stride);
    tap_true("the rings end before the arena",
             offset + count * stride <= reg_read(d, REG_ARENA_OFFSET_LO));
    say("# %u rings of %u entries, slots of %u bytes\n", count, n, slot);
    tap_end();
}

/* An echo of @len bytes (at most ECHO_BYTES) that depend on @seed. */
static struct call echo_of(uint32_t seed, uint32_t len)
{
    struct call c = call_new(OP_ECHO);

    for (uint32_t i = 0; i < len; i += 4) {
        uint32_t word = (seed + i) * 0x9e3779b1u;

        memcpy(pattern + i, &word, 4);
    }
    c.data = pattern;
    c.data_len = len;
    call_buf(&c, INLINE, IN, 0, len);
    call_buf(&c, INLINE, OUT, 0, len);
    return c;
}

static bool echo_right(uint32_t seed, const uint8_t *payload, uint32_t len)
{
    for (uint32_t i = 0; i < len; i += 4) {
        uint32_t word;

        memcpy(&word, payload + i, 4);
        if (word != (seed + i) * 0x9e3779b1u) {
            return false;
        }
    }
    return true;
}

static bool ring_echo(struct ring *r, uint32_t seed)
{
    struct call c = echo_of(seed, 16);
    uint32_t error = ring_call(r, &c, PATIENCE_MS, &answer);

    return tap_check("echo", error, OK) &&
           tap_true("its output", echo_right(seed, answer.payload, 16));
}

static bool open_ring(const struct device *d, uint32_t number)
{
    const char *why = ring_open(d, number, &ring);

    return tap_true(why ? why : "ring_open", why == NULL);
}

/* A ring is opened once in a life of the device: its indices are known only then. */
static bool fresh_ring(const struct device *d, uint32_t number)
{
    reg_write(d, REG_CONTROL, CONTROL_RESET);
    return tap_true("RESETTING clears", device_wait_flags(d, RESETTING, 0, PATIENCE_MS)) &&
           tap_true("BACKEND_UP", device_wait_flags(d, BACKEND_UP, BACKEND_UP, PATIENCE_MS)) &&
           open_ring(d, number);
}

static void test_every_ring(const struct device *d)
{
    tap_begin("an echo through every ring");
    for (uint32_t i = 0; i < ring_count(d); i++) {
        if (!open_ring(d, i) || !ring_echo(&ring, i)) {
            break;
        }
        tap_check("op", answer.hdr.op, OP_ECHO);
        tap_check("version", answer.hdr.version, 1);
        tap_check("size", answer.hdr.size, sizeof(answer.hdr) + 16);
        tap_true("a worker is named", answer.hdr.worker != 0);
        tap_check("attempts", answer.hdr.attempts, 1);
        tap_check("payload kind", answer.hdr.payload, PAYLOAD_DATA);
    }
    tap_end();
}

static void test_info(void)
{
    struct call c = call_new(OP_INFO);

    tap_begin("INFO through a ring");
    tap_check("error", ring_call(&ring, &c, PATIENCE_MS, &answer), OK);
    tap_check("payload kind", answer.hdr.payload, PAYLOAD_INFO);
    tap_check("size", answer.hdr.size, sizeof(answer.hdr) + sizeof(struct info));
    tap_end();
}

/* Longer than the windows could take. */
static void test_large_slot(void)
{
    static uint8_t data[1800];
    struct call c = call_new(OP_ECHO);
    struct ring_completion done = {0};

    tap_begin("a request and a response larger than the windows");
    for (uint32_t i = 0; i < sizeof(data); i++) {
        data[i] = (uint8_t)(i * 13);
    }
    c.data = data;
    c.data_len = sizeof(data);
    call_buf(&c, INLINE, IN, 0, sizeof(data));
    call_buf(&c, INLINE, OUT, 0, sizeof(data));
    ring_put(&ring, &c, 77);
    ring_publish(&ring);
    if (tap_true("it completes", ring_wait(&ring, PATIENCE_MS, &done))) {
        tap_check("error", done.error, OK);
        tap_check("length", done.length, sizeof(struct resp_hdr) + sizeof(data));
        tap_true("output", memcmp(ring_response(&ring, done.slot) + sizeof(struct resp_hdr), data,
                                  sizeof(data)) == 0);
    }
    tap_end();
}

static void test_arena(const struct device *d)
{
    static const uint32_t a[] = {ONE_F32, 0x40000000, 0x40400000, 0x40800000};    /* 1 2, 3 4 */
    static const uint32_t b[] = {0x40a00000, 0x40c00000, 0x40e00000, 0x41000000}; /* 5 6, 7 8 */
    static const uint32_t want[] = {0x41980000, 0x41b00000, 0x422c0000, 0x42480000};
    struct reduce_body reduce = {.dtype = U32, .kind = REDUCE_SUM, .n = 50000, .stride = 1};
    struct gemm_body gemm = {
        .dtype = F32, .m = 2, .n = 2, .k = 2, .lda = 2, .ldb = 2, .alpha_f64 = ONE_F64};
    struct call c = call_new(OP_REDUCE);
    uint64_t sum = 0;

    tap_begin("REDUCE and GEMM with buffers in the arena");
    for (uint32_t i = 0; i < reduce.n; i++) {
        uint32_t v = i * 0x9e3779b1u;

        memcpy(d->arena + 64 + 4 * i, &v, 4);
        sum += v;
    }
    memset(d->arena, 0xee, 64);
    c.body = &reduce;
    c.body_len = sizeof(reduce);
    call_buf(&c, ARENA, IN, 64, 4 * reduce.n);
    call_buf(&c, ARENA, OUT, 0, 8);
    tap_check("REDUCE", ring_call(&ring, &c, PATIENCE_MS, &answer), OK);
    tap_true("its sum", memcmp(d->arena, &sum, 8) == 0);
    tap_check("the byte after it", d->arena[8], 0xee);

    c = call_new(OP_GEMM);
    c.body = &gemm;
    c.body_len = sizeof(gemm);
    memcpy(d->arena + 64, a, sizeof(a));
    memcpy(d->arena + 128, b, sizeof(b));
    call_buf(&c, ARENA, IN, 64, 16);
    call_buf(&c, ARENA, IN, 128, 16);
    call_buf(&c, ARENA, OUT, 192, 16);
    tap_check("GEMM", ring_call(&ring, &c, PATIENCE_MS, &answer), OK);
    tap_true("its product", memcmp(d->arena + 192, want, sizeof(want)) == 0);
    tap_end();
}

static void test_wrap(void)
{
    uint32_t n = 3 * ring.entries + 5;
    bool good = true;

    tap_begin("three times around, one at a time");
    for (uint32_t i = 0; i < n && good; i++) {
        good = ring_echo(&ring, i);
    }
    tap_check("submitted and completed", ring.submit_tail, ring.complete_head);
    say("# %u requests, %u doorbells\n", n, ring.doorbells);
    tap_end();
}

/* Takes one completion of test_in_flight(); its tag is the seed, counted in @seen. */
static bool check_one(const struct ring_completion *done, uint8_t *seen)
{
    const uint8_t *payload = ring_response(&ring, done->slot) + sizeof(struct resp_hdr);

    return tap_check("error", done->error, OK) && tap_true("tag", done->tag < STREAM) &&
           tap_check("times that the tag came before", seen[done->tag]++, 0) &&
           tap_true("output", echo_right((uint32_t)done->tag, payload, ECHO_BYTES));
}

static void test_in_flight(void)
{
    static uint8_t seen[STREAM];
    struct ring_completion done;
    uint32_t sent = 0, got = 0, doorbells = ring.doorbells;
    bool good = true;

    tap_begin("64 in flight: each is answered once, with its own output");
    memset(seen, 0, sizeof(seen));
    while (got < STREAM && good) {
        while (sent < STREAM && sent - got < IN_FLIGHT && ring.n_free > 0) {
            struct call c = echo_of(sent, ECHO_BYTES);

            ring_put(&ring, &c, sent++);
        }
        ring_publish(&ring);
        good =
            tap_true("it goes on", ring_wait(&ring, PATIENCE_MS, &done)) && check_one(&done, seen);
        for (got++; good && ring_take(&ring, &done); got++) {
            good = check_one(&done, seen);
        }
    }
    tap_check("answers", got, STREAM);
    say("# %u requests, %u doorbells\n", STREAM, ring.doorbells - doorbells);
    tap_end();
}

static void test_full_ring(void)
{
    struct ring_completion done;
    uint32_t put = 0, got = 0;

    tap_begin("as many in flight as the ring has entries");
    while (ring.n_free > 0) {
        struct call c = echo_of(put, 16);

        ring_put(&ring, &c, put++);
    }
    ring_publish(&ring);
    tap_check("requests", put, ring.entries);
    while (got < put && ring_wait(&ring, PATIENCE_MS, &done)) {
        tap_check("error", done.error, OK);
        got++;
    }
    tap_check("answers", got, put);
    tap_end();
}

static void test_malformed(void)
{
    struct ring_completion done = {0};
    struct call c = echo_of(1, 16);

    tap_begin("a request that is not well formed is completed with an error");
    c.bufs[1].length = 0;
    tap_check("a buffer of no bytes", ring_call(&ring, &c, PATIENCE_MS, &answer), BAD_LENGTH);
    tap_check("payload kind", answer.hdr.payload, PAYLOAD_TEXT);
    say("# %s\n", (const char *)answer.payload);
    c = echo_of(1, 16);
    c.flags = 0x80000000u;
    tap_check("an unknown flag", ring_call(&ring, &c, PATIENCE_MS, &answer), RESERVED_SET);
    c = call_new(63);
    tap_check("an op that nobody has", ring_call(&ring, &c, PATIENCE_MS, &answer), UNSUPPORTED);
    c = echo_of(1, 16);
    ring_put(&ring, &c, 1);
    ring.descs[(ring.submit_tail - 1) % ring.entries].length += 8;
    ring_publish(&ring);
    tap_true("it completes", ring_wait(&ring, PATIENCE_MS, &done));
    tap_check("a length that is not the header's", done.error, BAD_LENGTH);
    tap_check("the device is not broken", reg_read(ring.device, REG_STATUS) & BROKEN, 0);
    ring_echo(&ring, 5);
    tap_end();
}

static void test_deadline(const struct device *d)
{
    struct call c = long_call(d);

    tap_begin("a deadline that passes, in a ring");
    c.deadline_ms = 30;
    tap_check("error", ring_call(&ring, &c, PATIENCE_MS, &answer), DEADLINE);
    memset(d->arena + LONG_OUT_OFFSET, 0xee, LONG_OUT_BYTES);
    ring_echo(&ring, 6);
    tap_check("the output is not written any more", d->arena[LONG_OUT_OFFSET + 5], 0xee);
    tap_end();
}

/* Errors of the completions with tags 1, 2 (and 3), in the order in which they came. */
static uint32_t collect(uint32_t n, uint32_t *ret_errors, uint64_t *ret_last)
{
    struct ring_completion done;
    uint32_t got = 0;

    while (got < n && ring_wait(&ring, PATIENCE_MS, &done)) {
        if (done.tag <= n) {
            ret_errors[done.tag] = done.error;
        }
        *ret_last = done.tag;
        got++;
    }
    return got;
}

static void test_cancel(const struct device *d)
{
    struct cancel_body body = {.tag = 1};
    struct call victim = long_call(d);
    struct call c = call_new(OP_CANCEL);
    uint32_t errors[3] = {0};
    uint64_t last = 0;

    tap_begin("op CANCEL ends a request of the same ring");
    c.body = &body;
    c.body_len = sizeof(body);
    ring_put(&ring, &victim, 1);
    ring_put(&ring, &c, 2);
    ring_publish(&ring);
    tap_check("completions", collect(2, errors, &last), 2);
    tap_check("the request", errors[1], CANCELLED);
    tap_check("the op CANCEL", errors[2], OK);
    body.tag = 12345;
    tap_check("a tag that nobody has", ring_call(&ring, &c, PATIENCE_MS, &answer), NOT_FOUND);
    tap_end();
}

static void test_ordered(const struct device *d)
{
    struct call slow = long_call(d);
    struct call quick = echo_of(3, 16);
    uint32_t errors[3] = {0};
    uint64_t last = 0;

    tap_begin("ORDERED waits for every earlier request, and for their success");
    quick.flags = FLAG_ORDERED;
    ring_put(&ring, &slow, 1);
    ring_put(&ring, &quick, 2);
    ring_publish(&ring);
    tap_check("completions", collect(2, errors, &last), 2);
    tap_check("the slow one", errors[1], OK);
    tap_check("the ordered one", errors[2], OK);
    tap_check("the last to complete", last, 2);
    slow.deadline_ms = 20;
    ring_put(&ring, &slow, 1);
    ring_put(&ring, &quick, 2);
    ring_publish(&ring);
    tap_check("completions", collect(2, errors, &last), 2);
    tap_check("the one whose deadline passed", errors[1], DEADLINE);
    tap_check("the one that depends on it", errors[2], DEPENDENCY);
    tap_check("the first on the empty ring", ring_call(&ring, &quick, PATIENCE_MS, &answer), OK);
    tap_end();
}

static void test_two_rings(const struct device *d)
{
    static struct ring other;
    struct ring_completion done = {0};
    struct call slow = long_call(d);
    struct call quick = echo_of(9, 16);

    tap_begin("windows and two rings at the same time");
    if (ring_count(d) < 2 || ring_open(d, 1, &other)) {
        tap_skip("there is one ring only");
        return;
    }
    ring_put(&ring, &slow, 1);
    ring_publish(&ring);
    tap_check("the other ring", ring_call(&other, &quick, PATIENCE_MS, &answer), OK);
    test_echo_works(d);
    tap_true("the slow one completes", ring_wait(&ring, PATIENCE_MS, &done));
    tap_check("its tag", done.tag, 1);
    tap_check("its error", done.error, OK);
    tap_end();
}

void test_rings(const struct device *d)
{
    test_layout(d);
    test_every_ring(d);
    tap_begin("a reset begins every ring anew");
    if (!fresh_ring(d, 0) || !ring_echo(&ring, 0)) {
        tap_end();
        return;
    }
    tap_end();
    test_info();
    test_large_slot();
    test_arena(d);
    test_wrap();
    test_in_flight();
    test_full_ring();
    test_malformed();
    test_deadline(d);
    test_cancel(d);
    test_ordered(d);
    test_two_rings(d);
}

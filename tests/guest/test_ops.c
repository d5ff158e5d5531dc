/* SPDX-License-Identifier: MIT */
/* Every operation with a small input whose result is known without floating point. */
#include "tests/guest/cpu.h"
#include "tests/guest/tap.h"
#include "tests/guest/tests.h"

#define OUT_OFFSET 64u

/* Runs @c and expects @len bytes @want as its INLINE output. */
static void expect(const struct device *d, const struct call *c, const void *want, uint32_t len)
{
    static struct answer a;
    uint32_t error = device_call(d, c, PATIENCE_MS, &a);

    if (!tap_check("error", error, OK)) {
        say("# the device says: %s\n", (const char *)a.payload);
        return;
    }
    tap_check("state", a.state, STATE_DONE);
    tap_check("payload kind", a.hdr.payload, PAYLOAD_DATA);
    if (tap_check("response size", a.hdr.size, sizeof(a.hdr) + len)) {
        tap_true("the output is right", memcmp(a.payload, want, len) == 0);
    }
}

void test_echo_works(const struct device *d)
{
    struct call c = call_new(OP_ECHO);

    c.data = "Hello from guest";
    c.data_len = 16;
    call_buf(&c, INLINE, IN, 0, 16);
    call_buf(&c, INLINE, OUT, 0, 16);
    expect(d, &c, "Hello from guest", 16);
}

static void test_info(const struct device *d)
{
    struct call c = call_new(OP_INFO);
    static struct answer a;
    struct info info;
    uint64_t end = cpu_after_ms(PATIENCE_MS);
    uint32_t error;

    tap_begin("INFO");
    do { /* the first worker may still be on its way */
        error = device_call(d, &c, PATIENCE_MS, &a);
        memcpy(&info, a.payload, sizeof(info));
    } while (error == OK && !(info.ops & 1u << OP_ECHO) && cpu_tsc() < end);
    if (tap_check("error", error, OK) && tap_check("payload kind", a.hdr.payload, PAYLOAD_INFO) &&
        tap_true("it has the whole structure", a.hdr.size >= sizeof(a.hdr) + sizeof(info))) {
        say("# vm %s, tenant %s, pool %s, backends %s, %u workers\n", info.vm, info.tenant,
            info.pool, info.backends, info.workers);
        tap_check("vm_id", info.vm_id, reg_read(d, REG_VM_ID));
        tap_check("pool_id", info.pool_id, reg_read(d, REG_POOL_ID));
        tap_check("band", info.band, reg_read(d, REG_PRIORITY));
        tap_true("the VM has a name", info.vm[0] != 0);
        tap_true("ECHO has a worker", info.ops & (1u << OP_ECHO));
        tap_true("max_bytes is not 0", info.max_bytes != 0);
    }
    tap_end();
}

/* The bytes of the document's worked example, typed from there. */
static void test_document_example(const struct device *d)
{
    static const uint8_t request[] = "\x70\0\0\0\x01\0\x10\0\0\0\0\0\xe8\x03\0\0"
                                     "\x88\x77\x66\x55\x44\x33\x22\x11\0\0\0\0\xff\x02\0\0"
                                     "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
                                     "\0\x01\0\0\0\0\0\0\x60\0\0\0\0\0\0\0"
                                     "\x10\0\0\0\0\0\0\0\0\x02\0\0\0\0\0\0"
                                     "\0\0\0\0\0\0\0\0\x10\0\0\0\0\0\0\0"
                                     "Hello from guest";
    uint32_t id = reg_read(d, REG_REQUEST_ID);
    static struct answer a;
    uint8_t bytes[112];

    memcpy(bytes, request, sizeof(bytes));
    tap_begin("the document's example");
    bytes[0x0d] = 0x75; /* 30 s instead of 1: slow machines are not what is tested */
    device_write(d, bytes, sizeof(bytes));
    device_ring(d);
    device_wait(d, PATIENCE_MS);
    device_read(d, &a);
    tap_check("state", a.state, STATE_DONE);
    tap_check("RESPONSE_LEN", a.len, 80);
    tap_check("REQUEST_ID", reg_read(d, REG_REQUEST_ID), id + 1);
    tap_check("size", a.hdr.size, 80);
    tap_check("version", a.hdr.version, 1);
    tap_check("op", a.hdr.op, OP_ECHO);
    tap_check("tag", a.hdr.tag, 0x1122334455667788ull);
    tap_check("seq", a.hdr.seq, id + 1);
    tap_true("a worker is named", a.hdr.worker != 0);
    tap_check("attempts", a.hdr.attempts, 1);
    tap_true("output", memcmp(a.payload, "Hello from guest", 16) == 0);
    tap_check("zero past RESPONSE_LEN", reg_read(d, WINDOW_RESPONSE + 80), 0);
    tap_end();
}

static void fill(uint8_t *p, uint32_t bytes, uint32_t seed)
{
    for (uint32_t at = 0; at < bytes; at += 4) {
        uint32_t word = (at + seed) * 0x9e3779b1u;

        memcpy(p + at, &word, 4);
    }
}

static uint32_t first_difference(const uint8_t *p, uint32_t bytes, uint32_t seed)
{
    for (uint32_t at = 0; at < bytes; at += 4) {
        uint32_t word;

        memcpy(&word, p + at, 4);
        if (word != (at + seed) * 0x9e3779b1u) {
            return at;
        }
    }
    return bytes;
}

static void test_echo_arena(const struct device *d, uint32_t bytes)
{
    uint32_t out = (bytes + 64 + 63) & ~63u;
    struct call c = call_new(OP_ECHO);
    static struct answer a;

    tap_begin("ECHO through the arena");
    fill(d->arena, bytes, 1);
    memset(d->arena + out - 64, 0x77, 64);
    memset(d->arena + out + bytes, 0x77, 64);
    call_buf(&c, ARENA, IN, 0, bytes);
    call_buf(&c, ARENA, OUT, out, bytes);
    if (!tap_check("error", device_call(d, &c, PATIENCE_MS, &a), OK)) {
        say("# the device says: %s\n", (const char *)a.payload);
    }
    tap_check("output", first_difference(d->arena + out, bytes, 1), bytes);
    tap_check("input", first_difference(d->arena, bytes, 1), bytes);
    tap_check("the byte before the output", d->arena[out - 1], 0x77);
    tap_check("the byte after the output", d->arena[out + bytes], 0x77);
    say("# %u bytes each way\n", bytes);
    tap_end();
}

static void test_echo_mixed(const struct device *d)
{
    struct call in = call_new(OP_ECHO);
    struct call out = call_new(OP_ECHO);
    uint8_t want[PAYLOAD_MAX];
    static struct answer a;

    tap_begin("ECHO between inline and arena");
    fill(want, sizeof(want), 7);
    memset(d->arena, 0, 1024);
    in.data = want;
    in.data_len = 512;
    call_buf(&in, INLINE, IN, 0, 509);
    call_buf(&in, ARENA, OUT, OUT_OFFSET, 509);
    tap_check("inline to arena", device_call(d, &in, PATIENCE_MS, &a), OK);
    tap_true("output", memcmp(d->arena + OUT_OFFSET, want, 509) == 0);
    tap_check("the byte after it", d->arena[OUT_OFFSET + 509], 0);
    fill(d->arena, 1024, 7);
    call_buf(&out, ARENA, IN, 0, PAYLOAD_MAX);
    call_buf(&out, INLINE, OUT, 0, PAYLOAD_MAX);
    expect(d, &out, want, PAYLOAD_MAX);
    tap_end();
}

static struct call with_body(uint16_t op, const void *body, uint16_t len)
{
    struct call c = call_new(op);

    c.body = body;
    c.body_len = len;
    return c;
}

static void test_reduce(const struct device *d)
{
    struct reduce_body b = {.dtype = U32, .kind = REDUCE_SUM, .n = 100000, .stride = 3};
    struct call c = with_body(OP_REDUCE, &b, sizeof(b));
    uint64_t want = 0;
    static const int8_t small[8] = {-5, 100, -128, 127, 3, 127, 0, 1};

    tap_begin("REDUCE");
    for (uint32_t i = 0; i < 3 * b.n; i++) {
        uint32_t v = i * 0x9e3779b1u;

        memcpy(d->arena + 4 * i, &v, 4);
        want += i % 3 == 0 ? v : 0;
    }
    call_buf(&c, ARENA, IN, 0, 4 * ((b.n - 1) * 3 + 1));
    call_buf(&c, INLINE, OUT, 0, 8);
    expect(d, &c, &want, 8);

    b = (struct reduce_body){.dtype = I8, .kind = REDUCE_ARGMAX, .n = 8, .stride = 1};
    c = with_body(OP_REDUCE, &b, sizeof(b));
    c.data = small;
    c.data_len = 8;
    call_buf(&c, INLINE, IN, 0, 8);
    call_buf(&c, INLINE, OUT, 0, 8);
    want = 3;
    expect(d, &c, &want, 8);
    b.kind = REDUCE_MIN;
    c.bufs[1].length = 1;
    expect(d, &c, &small[2], 1);
    tap_end();
}

static void test_axpy_gemm(const struct device *d)
{
    static const uint64_t x_y[] = {ONE_F64, TWO_F64, TWO_F64, ONE_F64};
    static const uint64_t z_want[] = {0x4010000000000000ull, 0x4014000000000000ull}; /* 4, 5 */
    static const uint32_t ab[] = {ONE_F32,    0x40000000, 0x40400000, 0x40800000,    /* 1 2, 3 4 */
                                  0x40a00000, 0x40c00000, 0x40e00000, 0x41000000};   /* 5 6, 7 8 */
    static const uint32_t d_want[] = {0x41980000, 0x41b00000, 0x422c0000, 0x42480000};
    struct axpy_body axpy = {.dtype = F64, .alpha_f64 = TWO_F64, .n = 2, .incx = 1, .incy = 1};
    struct gemm_body gemm = {
        .dtype = F32, .m = 2, .n = 2, .k = 2, .lda = 2, .ldb = 2, .alpha_f64 = ONE_F64};
    struct call c = with_body(OP_AXPY, &axpy, sizeof(axpy));

    tap_begin("AXPY and GEMM");
    c.data = x_y;
    c.data_len = sizeof(x_y);
    call_buf(&c, INLINE, IN, 0, 16);
    call_buf(&c, INLINE, IN, 16, 16);
    call_buf(&c, INLINE, OUT, 0, 16);
    expect(d, &c, z_want, 16); /* 2 * (1, 2) + (2, 1) */
    c = with_body(OP_GEMM, &gemm, sizeof(gemm));
    c.data = ab;
    c.data_len = sizeof(ab);
    call_buf(&c, INLINE, IN, 0, 16);
    call_buf(&c, INLINE, IN, 16, 16);
    call_buf(&c, INLINE, OUT, 0, 16);
    expect(d, &c, d_want, 16); /* (19, 22; 43, 50) */
    tap_end();
}

static void test_fft_sort(const struct device *d)
{
    static const uint32_t impulse[8] = {ONE_F32};
    static const uint32_t ones[8] = {ONE_F32, 0, ONE_F32, 0, ONE_F32, 0, ONE_F32, 0};
    static const int32_t keys[6] = {3, -1, 3, 7, -9, 0};
    static const uint8_t values[8] = {'a', 'b', 'c', 'd', 'e', 'f'};
    static const uint8_t want[32] = "\x07\0\0\0\x03\0\0\0\x03\0\0\0\0\0\0\0"
                                    "\xff\xff\xff\xff\xf7\xff\xff\xff"
                                    "dacfbe";
    struct fft_body fft = {.dtype = F32, .rank = 1, .n0 = 4, .batch = 1};
    struct sort_body sort = {.dtype = I32, .descending = 1, .value_size = 1, .n = 6};
    struct call c = with_body(OP_FFT, &fft, sizeof(fft));
    uint8_t data[32] = {0};

    tap_begin("FFT and SORT");
    c.data = impulse;
    c.data_len = sizeof(impulse);
    call_buf(&c, INLINE, IN, 0, 32);
    call_buf(&c, INLINE, OUT, 0, 32);
    expect(d, &c, ones, 32);
    c = with_body(OP_SORT, &sort, sizeof(sort));
    memcpy(data, keys, 24);
    memcpy(data + 24, values, 6);
    c.data = data;
    c.data_len = sizeof(data);
    call_buf(&c, INLINE, IN, 0, 24);
    call_buf(&c, INLINE, IN, 24, 6);
    call_buf(&c, INLINE, OUT, 0, 24);
    call_buf(&c, INLINE, OUT, 24, 6);
    expect(d, &c, want, 30);
    tap_end();
}

struct call long_call(const struct device *d)
{
    static const struct denoise_body body = {
        .dtype = U8,
        .channels = 1,
        .patch = 3,
        .search = 32,
        .sigma_f32 = ONE_F32,
        .h_f32 = ONE_F32,
        .width = 128,
        .height = 128,
        .stride = 128,
        .w = 128,
        .h_out = 128,
    };
    struct call c = with_body(OP_DENOISE, &body, sizeof(body));

    memset(d->arena, 100, 128 * 128);
    call_buf(&c, ARENA, IN, 0, 128 * 128);
    call_buf(&c, ARENA, OUT, LONG_OUT_OFFSET, LONG_OUT_BYTES);
    return c;
}

static void test_denoise(const struct device *d)
{
    struct call c = long_call(d);
    static struct answer a;
    uint32_t wrong = 0;

    tap_begin("DENOISE of a flat picture leaves it flat");
    memset(d->arena + LONG_OUT_OFFSET, 0, LONG_OUT_BYTES);
    if (!tap_check("error", device_call(d, &c, PATIENCE_MS, &a), OK)) {
        say("# the device says: %s\n", (const char *)a.payload);
    }
    for (uint32_t i = 0; i < LONG_OUT_BYTES; i++) {
        wrong += d->arena[LONG_OUT_OFFSET + i] != 100;
    }
    tap_check("pixels that changed", wrong, 0);
    say("# it ran for %U us\n", cpu_div(a.hdr.run_ns, 1000, NULL));
    tap_end();
}

void test_ops(const struct device *d)
{
    uint32_t large = 4u << 20;

    test_info(d);
    test_document_example(d);
    if (d->arena_size < 2 * large + 4096) {
        large = (d->arena_size / 2 - 4096) & ~63u;
    }
    test_echo_arena(d, large);
    test_echo_arena(d, 4099 * 4);
    test_echo_mixed(d);
    test_reduce(d);
    test_axpy_gemm(d);
    test_fft_sort(d);
    test_denoise(d);
}

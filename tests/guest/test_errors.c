/* SPDX-License-Identifier: MIT */
/*
 * Requests that must be refused. Each is a good request of one of five kinds in which one field is
 * overwritten; the device must name the error, say why in a sentence, and stay usable.
 */
#include "tests/guest/cpu.h"
#include "tests/guest/tap.h"
#include "tests/guest/tests.h"

enum base { ECHO, ECHO_ARENA, REDUCE, CANCEL, INFO, BASES };

/* offsets in the encoded request */
#define HDR(field) offsetof(struct req_hdr, field)
#define BUF(i, field) \
    (sizeof(struct req_hdr) + (i) * sizeof(struct req_buf) + offsetof(struct req_buf, field))
#define BODY2(field) \
    (sizeof(struct req_hdr) + 2 * sizeof(struct req_buf) + offsetof(struct reduce_body, field))

struct bad {
    const char *what;
    uint8_t base;
    uint8_t width;
    uint16_t at;
    uint64_t value;
    uint32_t want;
};

/* clang-format off */
static const struct bad cases[] = {
    { "version 2", ECHO, 2, HDR(version), 2, BAD_VERSION },
    { "size one less than REQUEST_LEN", ECHO, 4, HDR(size), 111, BAD_LENGTH },
    { "size 4 GiB", ECHO, 4, HDR(size), 0xffffffff, BAD_LENGTH },
    { "unknown op 40", ECHO, 2, HDR(op), 40, UNSUPPORTED },
    { "unknown op 65535", ECHO, 2, HDR(op), 65535, UNSUPPORTED },
    { "op PROGRAM", ECHO, 2, HDR(op), OP_PROGRAM, UNSUPPORTED },
    { "op LAUNCH", ECHO, 2, HDR(op), OP_LAUNCH, UNSUPPORTED },
    { "unknown flag 8", ECHO, 4, HDR(flags), 8, RESERVED_SET },
    { "unknown flag 1 << 31", ECHO, 4, HDR(flags), 0x80000000, RESERVED_SET },
    { "pool that is not there", ECHO, 4, HDR(pool), 7777, NO_POOL },
    { "band 9", ECHO, 1, HDR(band), 9, BAD_PARAM },
    { "17 buffers", ECHO, 1, HDR(nbufs), 17, TOO_MANY_BUFFERS },
    { "a buffer list longer than the request", ECHO, 1, HDR(nbufs), 3, BAD_LENGTH },
    { "body_len 4", ECHO, 2, HDR(body_len), 4, BAD_LENGTH },
    { "body_len 65528", ECHO, 2, HDR(body_len), 65528, BAD_LENGTH },
    { "first reserved word of the header", ECHO, 4, HDR(reserved[0]), 1, RESERVED_SET },
    { "last reserved word of the header", ECHO, 4, HDR(reserved[3]), 1, RESERVED_SET },
    { "unknown kind of buffer", ECHO, 1, BUF(0, kind), 9, BAD_BUFFER },
    { "kind GPA", ECHO, 1, BUF(0, kind), GPA, BAD_BUFFER },
    { "direction 0", ECHO, 1, BUF(0, dir), 0, BAD_BUFFER },
    { "direction IN and OUT", ECHO, 1, BUF(1, dir), IN | OUT, BAD_BUFFER },
    { "reserved field of a buffer", ECHO, 2, BUF(1, reserved), 1, RESERVED_SET },
    { "aux of an INLINE buffer", ECHO, 4, BUF(0, aux), 96, RESERVED_SET },
    { "input of length 0", ECHO, 8, BUF(0, length), 0, BAD_LENGTH },
    { "output of length 0", ECHO, 8, BUF(1, length), 0, BAD_LENGTH },
    { "INLINE input in the buffer list", ECHO, 8, BUF(0, offset), 48, BAD_BUFFER },
    { "INLINE input at an odd offset", ECHO, 8, BUF(0, offset), 97, MISALIGNED },
    { "INLINE input past the end", ECHO, 8, BUF(0, offset), 104, BAD_BUFFER },
    { "INLINE input whose end overflows", ECHO, 8, BUF(0, offset), 0xfffffffffffffff8, BAD_BUFFER },
    { "INLINE input of 2^64-1 bytes", ECHO, 8, BUF(0, length), 0xffffffffffffffff, BAD_BUFFER },
    { "INLINE output at offset 4", ECHO, 8, BUF(1, offset), 4, MISALIGNED },
    { "INLINE output past the payload", ECHO, 8, BUF(1, offset), 952, BAD_BUFFER },
    { "output shorter than the input", ECHO, 8, BUF(1, length), 8, BAD_SHAPE },
    { "ARENA input at offset 32", ECHO_ARENA, 8, BUF(0, offset), 32, MISALIGNED },
    { "output over the input", ECHO_ARENA, 8, BUF(1, offset), 2048, OVERLAP },
    { "output equal to the input", ECHO_ARENA, 8, BUF(1, offset), 0, OVERLAP },
    { "output past the arena", ECHO_ARENA, 8, BUF(1, offset), 1ull << 40, BAD_BUFFER },
    { "output whose end overflows", ECHO_ARENA, 8, BUF(1, offset), 0xffffffffffffffc0, BAD_BUFFER },
    { "output of 2^63 bytes", ECHO_ARENA, 8, BUF(1, length), 1ull << 63, BAD_BUFFER },
    { "ARENA output shorter than the input", ECHO_ARENA, 8, BUF(1, length), 4032, BAD_SHAPE },
    { "unknown dtype", REDUCE, 1, BODY2(dtype), 99, BAD_DTYPE },
    { "dtype 0", REDUCE, 1, BODY2(dtype), 0, BAD_DTYPE },
    { "dtype that REDUCE does not take", REDUCE, 1, BODY2(dtype), U64, BAD_DTYPE },
    { "unknown kind of REDUCE", REDUCE, 1, BODY2(kind), 9, BAD_PARAM },
    { "reserved byte of the body", REDUCE, 1, BODY2(reserved0[5]), 1, RESERVED_SET },
    { "no elements", REDUCE, 8, BODY2(n), 0, BAD_SHAPE },
    { "more elements than the input has", REDUCE, 8, BODY2(n), 5, BAD_SHAPE },
    { "n * stride overflows", REDUCE, 8, BODY2(stride), 1ull << 63, OVERFLOW },
    { "a body that is too short", REDUCE, 2, HDR(body_len), 16, BAD_LENGTH },
    { "CANCEL of a tag that is not there", CANCEL, 4, HDR(pool), 0, NOT_FOUND },
    { "CANCEL without a body", CANCEL, 2, HDR(body_len), 0, BAD_LENGTH },
    { "INFO with a body", INFO, 2, HDR(body_len), 8, BAD_LENGTH },
};
/* clang-format on */

static void make_base(enum base base, struct call *c)
{
    static const struct reduce_body reduce = {
        .dtype = U32, .kind = REDUCE_SUM, .n = 4, .stride = 1};
    static const uint64_t unknown_tag = 0xdeaddeaddeaddeadull;
    static const uint16_t ops[BASES] = {OP_ECHO, OP_ECHO, OP_REDUCE, OP_CANCEL, OP_INFO};
    static const uint32_t out_bytes[BASES] = {16, 4096, 8};
    bool arena = base == ECHO_ARENA;

    *c = call_new(ops[base]);
    if (base == ECHO || base == ECHO_ARENA || base == REDUCE) {
        c->data = "Hello from guest";
        c->data_len = arena ? 0 : 16;
        call_buf(c, arena ? ARENA : INLINE, IN, 0, arena ? 4096 : 16);
        call_buf(c, arena ? ARENA : INLINE, OUT, arena ? 4096 : 0, out_bytes[base]);
    }
    if (base == REDUCE) {
        c->body = &reduce;
        c->body_len = sizeof(reduce);
    } else if (base == CANCEL) {
        c->body = &unknown_tag;
        c->body_len = sizeof(unknown_tag);
    }
}

static void check_refusal(const struct answer *a, uint32_t want, uint64_t tag)
{
    tap_check("state", a->state, STATE_ERROR);
    tap_check("register ERROR", a->error, want);
    tap_check("error in the response", a->hdr.error, want);
    tap_check("tag", a->hdr.tag, tag);
    tap_check("payload kind", a->hdr.payload, PAYLOAD_TEXT);
    tap_true("it says why", a->len > sizeof(a->hdr) && a->len == a->hdr.size);
    say("# %u: %s\n", a->error, (const char *)a->payload);
}

static void test_case(const struct device *d, const struct bad *b)
{
    static uint8_t bytes[2048];
    static struct answer a;
    struct call c;
    uint32_t len;

    tap_begin(b->what);
    make_base((enum base)b->base, &c);
    len = call_encode(&c, 42, bytes);
    memcpy(bytes + b->at, &b->value, b->width);
    device_write(d, bytes, len);
    device_ring(d);
    device_wait(d, PATIENCE_MS);
    device_read(d, &a);
    check_refusal(&a, b->want, 42);
    tap_end();
}

static void test_lengths(const struct device *d)
{
    static const uint32_t lengths[] = {0, 1, 47, 1025, 4096, 0xffffffffu};
    static struct answer a;
    static uint8_t bytes[2048];
    struct call c;

    tap_begin("REQUEST_LEN too small and too large");
    make_base(ECHO, &c);
    device_write(d, bytes, call_encode(&c, 42, bytes));
    for (unsigned i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        reg_write(d, REG_REQUEST_LEN, lengths[i]);
        device_ring(d);
        device_wait(d, PATIENCE_MS);
        device_read(d, &a);
        check_refusal(&a, BAD_LENGTH, lengths[i] < sizeof(struct req_hdr) ? 0 : 42);
    }
    tap_end();
}

void test_errors(const struct device *d)
{
    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        test_case(d, &cases[i]);
    }
    test_lengths(d);
    tap_begin("an echo works after all of that");
    test_echo_works(d);
    tap_end();
}

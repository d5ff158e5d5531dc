/* SPDX-License-Identifier: MIT */
/* test_vgpu_relay.c - what the stub says to a mediator, and what it believes of the answers */
#include <string.h>

#include "stub/vgpu_relay.h"
#include "tests/unit/unit.h"

#define SHM_SIZE (UINT64_C(1) << 20)
#define BULK 200000u /* bytes of the ARENA buffers: several chunks */
#define SINK 262144u /* offset of the ARENA output */
#define GEN UINT64_C(0x1234567800000042)

static const struct vgpu_relay_config relay_config = {.boot_id = 9, .pool_wish = 2};

static struct vgpu_bar0 bar0;
static struct vgpu_relay relay;
static uint8_t *shm; /* BAR 2 */
static uint8_t *arena;
static char why[VGPU_RELAY_WHY_MAX];

static void setup_with(uint32_t rings)
{
    struct vgpu_bar0_config config = {
        .layout = vgpu_layout_make(SHM_SIZE, rings, VGPU_RING_ENTRIES_MIN),
        .deadline_ms = 5000,
        .band = VGPU_BAND_DEFAULT,
    };

    shm = calloc(1, SHM_SIZE);
    arena = shm + config.layout.arena_offset;
    vgpu_bar0_init(&bar0, &config);
    vgpu_relay_init(&relay, &relay_config, &bar0, shm);
}

static void setup(void)
{
    setup_with(0);
}

static void setup_shm(void)
{
    setup_with(1);
}

static void teardown(void)
{
    free(shm);
}

static void check(void)
{
    ck_assert_int_eq(vgpu_relay_check(&relay), 0);
}

/* ---- the two sides ------------------------------------------------------------------------- */

/* The next message, sent; its type, 0 when there is none. */
static uint32_t say(struct vgpu_frame *f)
{
    if (!vgpu_relay_next(&relay, 1000, f)) {
        return 0;
    }
    ck_assert_uint_eq(f->head.msg.magic, VGPU_MSG_MAGIC);
    ck_assert_uint_eq(f->head.msg.length, f->head_len + f->body_len);
    ck_assert_uint_le(f->head.msg.length, VGPU_MSG_MAX);
    ck_assert_uint_eq(f->head.msg.epoch, bar0.epoch);
    vgpu_relay_sent(&relay);
    check();
    return f->head.msg.type;
}

static uint32_t say_type(void)
{
    struct vgpu_frame f;

    return say(&f);
}

/* Delivers a message with its head filled in. */
static int hear(uint32_t type, void *message, size_t len)
{
    struct vgpu_msg msg = {
        .magic = VGPU_MSG_MAGIC,
        .type = (uint16_t)type,
        .length = (uint32_t)len,
        .epoch = bar0.epoch,
    };
    int rc;

    memcpy(message, &msg, sizeof(msg));
    rc = vgpu_relay_receive(&relay, message, len, why);
    check();
    return rc;
}

static int welcome(uint64_t gen)
{
    struct vgpu_hello_ack ack = {
        .version = VGPU_LOCAL_VERSION_MAX,
        .features = vgpu_relay_shm(&relay) ? VGPU_LOCAL_FEATURE_SHM : 0,
        .vm_id = 5,
        .band = VGPU_BAND_NORMAL,
        .up = 1,
        .mediator_gen = gen,
        .deadline_ms = 5000,
    };

    return hear(VGPU_MSG_HELLO_ACK, &ack, sizeof(ack));
}

static void connect_relay(uint64_t gen)
{
    vgpu_relay_connected(&relay);
    check();
    ck_assert_uint_eq(say_type(), VGPU_MSG_HELLO);
    ck_assert_int_eq(welcome(gen), 0);
}

static int data(uint64_t seq, uint32_t buffer, uint64_t offset, uint32_t n, uint8_t fill)
{
    static uint8_t bytes[VGPU_MSG_MAX + 64];
    struct vgpu_data m = {.seq = seq, .buffer = buffer, .offset = offset};

    memcpy(bytes, &m, sizeof(m));
    memset(bytes + sizeof(m), fill, n);
    return hear(VGPU_MSG_DATA, bytes, sizeof(m) + n);
}

static int accept_request(uint64_t seq)
{
    struct vgpu_accept m = {.seq = seq};

    return hear(VGPU_MSG_ACCEPT, &m, sizeof(m));
}

static int answer(uint64_t seq, uint32_t error)
{
    struct {
        struct vgpu_response m;
        struct vgpu_resp_hdr hdr;
    } message = {.m.seq = seq};

    message.hdr.size = sizeof(message.hdr);
    message.hdr.version = VGPU_REQ_VERSION;
    message.hdr.op = VGPU_OP_ECHO;
    message.hdr.error = error;
    message.hdr.tag = 0x77;
    message.hdr.seq = seq;
    return hear(VGPU_MSG_RESPONSE, &message, sizeof(message));
}

/* All outputs of the request, then success. */
static void complete(uint64_t seq)
{
    uint32_t offset, n;

    for (offset = 0; offset < BULK; offset += n) {
        n = BULK - offset < VGPU_DATA_CHUNK ? BULK - offset : VGPU_DATA_CHUNK;
        ck_assert_int_eq(data(seq, 1, offset, n, 0xab), 0);
    }
    ck_assert_int_eq(answer(seq, VGPU_E_OK), 0);
    ck_assert_uint_eq(bar0.state, VGPU_STATUS_DONE);
}

/* An ECHO from arena to arena, at time 0. */
static void submit(uint32_t flags)
{
    struct vgpu_req_hdr hdr = {
        .size = 96,
        .version = VGPU_REQ_VERSION,
        .op = VGPU_OP_ECHO,
        .flags = flags,
        .tag = 0x77,
        .band = VGPU_BAND_DEFAULT,
        .nbufs = 2,
    };
    struct vgpu_buf bufs[2] = {
        {.kind = VGPU_BUF_ARENA, .dir = VGPU_BUF_IN, .offset = 64, .length = BULK},
        {.kind = VGPU_BUF_ARENA, .dir = VGPU_BUF_OUT, .offset = SINK, .length = BULK},
    };

    memcpy(bar0.request_window, &hdr, sizeof(hdr));
    memcpy(bar0.request_window + sizeof(hdr), bufs, sizeof(bufs));
    vgpu_bar0_write(&bar0, VGPU_REG_REQUEST_LEN, hdr.size, 4);
    ck_assert_uint_eq(vgpu_bar0_write(&bar0, VGPU_REG_DOORBELL, 1, 4), VGPU_BAR0_SUBMIT);
    vgpu_relay_submit(&relay, 0);
    check();
}

/* An ECHO of 8 inline bytes, at time 0. */
static void submit_inline(void)
{
    struct vgpu_req_hdr hdr = {
        .size = 104,
        .version = VGPU_REQ_VERSION,
        .op = VGPU_OP_ECHO,
        .tag = 0x77,
        .band = VGPU_BAND_DEFAULT,
        .nbufs = 2,
    };
    struct vgpu_buf bufs[2] = {
        {.kind = VGPU_BUF_INLINE, .dir = VGPU_BUF_IN, .offset = 96, .length = 8},
        {.kind = VGPU_BUF_INLINE, .dir = VGPU_BUF_OUT, .offset = 0, .length = 8},
    };

    memcpy(bar0.request_window, &hdr, sizeof(hdr));
    memcpy(bar0.request_window + sizeof(hdr), bufs, sizeof(bufs));
    vgpu_bar0_write(&bar0, VGPU_REG_REQUEST_LEN, hdr.size, 4);
    ck_assert_uint_eq(vgpu_bar0_write(&bar0, VGPU_REG_DOORBELL, 1, 4), VGPU_BAR0_SUBMIT);
    vgpu_relay_submit(&relay, 0);
    check();
}

/* Sends REQUEST and all its inputs; its flags. */
static uint32_t say_request(void)
{
    struct vgpu_frame f;
    uint64_t offset = 0;
    uint32_t flags;

    ck_assert_uint_eq(say(&f), VGPU_MSG_REQUEST);
    ck_assert_uint_eq(f.head.request.seq, bar0.seq);
    ck_assert_uint_eq(f.head.request.deadline_left_ms, 4000);
    ck_assert_uint_eq(f.body_len, 96);
    flags = f.head.request.flags;
    while (offset < BULK) {
        ck_assert_uint_eq(say(&f), VGPU_MSG_DATA);
        ck_assert_uint_eq(f.head.data.offset, offset);
        ck_assert_uint_eq(f.head.data.buffer, 0);
        ck_assert_ptr_eq(f.body, arena + 64 + offset);
        offset += f.body_len;
    }
    ck_assert_uint_eq(offset, BULK);
    ck_assert_uint_eq(say_type(), 0);
    return flags;
}

/* ---- tests --------------------------------------------------------------------------------- */

START_TEST(hello_carries_the_device)
{
    struct vgpu_frame f;

    ck_assert_uint_eq(say_type(), 0);
    vgpu_relay_connected(&relay);
    ck_assert_uint_eq(say(&f), VGPU_MSG_HELLO);
    ck_assert_uint_eq(f.head.hello.boot_id, 9);
    ck_assert_uint_eq(f.head.hello.pool_wish, 2);
    ck_assert_uint_eq(f.head.hello.band_wish, VGPU_BAND_DEFAULT);
    ck_assert_uint_eq(f.head.hello.conn_gen, 1);
    ck_assert_uint_eq(f.head.hello.arena_size, SHM_SIZE - VGPU_SHM_CONTROL_SIZE);
    ck_assert_uint_eq(f.head.hello.features, 0);
    ck_assert_uint_eq(f.head.hello.rings | f.head.hello.shm_size | f.head.hello.arena_offset, 0);
    ck_assert_uint_eq(say_type(), 0);
    ck_assert_int_eq(welcome(GEN), 0);
    ck_assert_uint_eq(bar0.flags, VGPU_STATUS_BACKEND_UP);
    ck_assert_uint_eq(bar0.backend.gen, 0x42);
}
END_TEST

START_TEST(a_round_trip)
{
    connect_relay(GEN);
    submit(0);
    ck_assert_uint_eq(say_request(), 0);
    ck_assert_int_eq(accept_request(1), 0);
    complete(1);
    ck_assert_uint_eq(arena[SINK], 0xab);
    ck_assert_uint_eq(arena[SINK + BULK - 1], 0xab);
    ck_assert_uint_eq(arena[SINK + BULK], 0);
    ck_assert_uint_eq(arena[SINK - 1], 0);
}
END_TEST

START_TEST(what_was_not_sent_is_offered_again)
{
    struct vgpu_frame f, g;

    connect_relay(GEN);
    submit(0);
    ck_assert(vgpu_relay_next(&relay, 1000, &f));
    ck_assert(vgpu_relay_next(&relay, 1001, &g));
    ck_assert_uint_eq(g.head.msg.type, VGPU_MSG_REQUEST);
    ck_assert_uint_eq(say_request(), 0);
}
END_TEST

/* clang-format off */
static const struct again_case {
    const char *name;
    uint32_t request_flags;
    bool sent, accepted;
    uint64_t next_gen;
    uint32_t want_error; /* ended by the device itself */
    uint32_t want_flags; /* else of the REQUEST that follows */
} again_cases[] = {
    { "never sent",                      0, false, false, GEN + 1, 0, 0 },
    { "sent, not accepted",              0, true, false, GEN + 1, 0, VGPU_REQUEST_AGAIN },
    { "accepted, same mediator",         0, true, true, GEN, 0, VGPU_REQUEST_AGAIN | VGPU_REQUEST_ACCEPTED },
    { "accepted, another mediator",      0, true, true, GEN + 1, 0, VGPU_REQUEST_AGAIN | VGPU_REQUEST_ACCEPTED },
    { "no retry, not accepted",          VGPU_REQ_NO_RETRY, true, false, GEN + 1, 0, VGPU_REQUEST_AGAIN },
    { "no retry, accepted, same one",    VGPU_REQ_NO_RETRY, true, true, GEN, 0, VGPU_REQUEST_AGAIN | VGPU_REQUEST_ACCEPTED },
    { "no retry, accepted, another one", VGPU_REQ_NO_RETRY, true, true, GEN + 1, VGPU_E_BACKEND_RESTARTED, 0 },
};
/* clang-format on */

START_TEST(after_a_reconnect)
{
    const struct again_case *c = &again_cases[_i];

    connect_relay(GEN);
    submit(c->request_flags);
    if (c->sent) {
        say_request();
    }
    if (c->accepted) {
        accept_request(1);
        data(1, 1, 0, 1000, 0xff);
    }
    vgpu_relay_disconnected(&relay);
    check();
    ck_assert_uint_eq(say_type(), 0);
    connect_relay(c->next_gen);
    ck_assert_msg(bar0.error == c->want_error, "%s: error %u", c->name, bar0.error);
    if (c->want_error) {
        ck_assert_uint_eq(say_type(), 0);
        return;
    }
    ck_assert_msg(say_request() == c->want_flags, "%s", c->name);
    complete(1);
}
END_TEST

START_TEST(cancel_goes_out_once_and_only_for_what_was_sent)
{
    struct vgpu_frame f;

    connect_relay(GEN);
    submit(0);
    vgpu_relay_give_up(&relay, VGPU_E_CANCELLED);
    ck_assert_uint_eq(bar0.error, VGPU_E_CANCELLED);
    ck_assert_uint_eq(say_type(), 0);
    submit(0);
    ck_assert_uint_eq(say_type(), VGPU_MSG_REQUEST);
    ck_assert_uint_eq(say_type(), VGPU_MSG_DATA);
    vgpu_relay_give_up(&relay, VGPU_E_CANCELLED);
    submit(0);
    ck_assert_uint_eq(say(&f), VGPU_MSG_CANCEL);
    ck_assert_uint_eq(f.head.cancel.seq, 2);
    ck_assert_uint_eq(f.head.cancel.reason, VGPU_E_CANCELLED);
    ck_assert_int_eq(data(2, 1, 0, 100, 0xff), 0);
    ck_assert_int_eq(answer(2, VGPU_E_OK), 0);
    ck_assert_uint_eq(arena[SINK], 0);
    ck_assert_uint_eq(say_request(), 0);
    complete(3);
}
END_TEST

/* clang-format off */
static const struct expiry_case {
    const char *name;
    bool connected, accepted, lost;
    uint32_t want;
} expiry_cases[] = {
    { "nobody ever came",            false, false, false, VGPU_E_NO_BACKEND },
    { "connected, not accepted",     true,  false, false, VGPU_E_DEADLINE },
    { "accepted",                    true,  true,  false, VGPU_E_DEADLINE },
    { "not accepted, then lost",     true,  false, true,  VGPU_E_NO_BACKEND },
    { "accepted, then lost",         true,  true,  true,  VGPU_E_DEADLINE },
};
/* clang-format on */

START_TEST(expiry)
{
    const struct expiry_case *c = &expiry_cases[_i];

    if (c->connected) {
        connect_relay(GEN);
    }
    submit(0);
    if (c->connected) {
        say_request();
    }
    if (c->accepted) {
        accept_request(1);
    }
    if (c->lost) {
        vgpu_relay_disconnected(&relay);
    }
    vgpu_relay_expire(&relay, 4999);
    ck_assert_uint_eq(bar0.state, VGPU_STATUS_BUSY);
    vgpu_relay_expire(&relay, 5000);
    check();
    ck_assert_msg(bar0.error == c->want, "%s: error %u", c->name, bar0.error);
    ck_assert_uint_eq(say_type(), c->connected && !c->lost ? VGPU_MSG_CANCEL : 0);
}
END_TEST

START_TEST(reset_comes_first_and_only_its_own_ack_ends_it)
{
    struct vgpu_reset old = {.msg = {.magic = 0}};
    struct vgpu_frame f;

    connect_relay(GEN);
    submit(0);
    say_request();
    vgpu_relay_give_up(&relay, VGPU_E_CANCELLED);
    vgpu_relay_wish(&relay);
    vgpu_relay_reset(&relay);
    check();
    ck_assert_uint_eq(bar0.flags, VGPU_STATUS_RESETTING);
    ck_assert_int_eq(hear(VGPU_MSG_RESET_ACK, &old, sizeof(old)), 0);
    ck_assert_uint_eq(bar0.flags, VGPU_STATUS_RESETTING);
    ck_assert_uint_eq(say(&f), VGPU_MSG_RESET);
    ck_assert_uint_eq(f.head.msg.epoch, 1);
    vgpu_relay_reset(&relay);
    ck_assert_uint_eq(say(&f), VGPU_MSG_RESET);
    ck_assert_uint_eq(f.head.msg.epoch, 2);
    old.msg.magic = VGPU_MSG_MAGIC;
    old.msg.type = VGPU_MSG_RESET_ACK;
    old.msg.length = sizeof(old);
    old.msg.epoch = 1;
    ck_assert_int_eq(vgpu_relay_receive(&relay, &old, sizeof(old), why), 0);
    ck_assert_uint_eq(bar0.flags, VGPU_STATUS_RESETTING);
    ck_assert_int_eq(hear(VGPU_MSG_RESET_ACK, &old, sizeof(old)), 0);
    ck_assert_uint_eq(bar0.flags, VGPU_STATUS_BACKEND_UP);
    submit(0);
    ck_assert_uint_eq(bar0.seq, 1);
    ck_assert_uint_eq(say_type(), VGPU_MSG_WISH); /* CANCEL is gone, the wish is still one */
    say_request();
}
END_TEST

START_TEST(reset_when_nobody_is_there)
{
    vgpu_relay_reset(&relay);
    check();
    ck_assert_uint_eq(bar0.flags, 0);
    vgpu_relay_connected(&relay);
    vgpu_relay_reset(&relay); /* HELLO has not gone out: it will carry the epoch */
    ck_assert_uint_eq(bar0.flags, 0);
    ck_assert_uint_eq(say_type(), VGPU_MSG_HELLO);
    vgpu_relay_reset(&relay);
    ck_assert_uint_eq(bar0.flags, VGPU_STATUS_RESETTING);
    ck_assert_int_eq(welcome(GEN), 0);
    ck_assert_uint_eq(bar0.flags, VGPU_STATUS_RESETTING);
    ck_assert_uint_eq(say_type(), VGPU_MSG_RESET);
    vgpu_relay_disconnected(&relay);
    check();
    ck_assert_uint_eq(bar0.flags, 0);
}
END_TEST

START_TEST(a_drained_mediator_gets_no_request)
{
    struct vgpu_state state = {.band = VGPU_BAND_NORMAL, .up = 0};

    connect_relay(GEN);
    ck_assert_int_eq(hear(VGPU_MSG_STATE, &state, sizeof(state)), 0);
    ck_assert_uint_eq(bar0.flags, 0);
    submit(0);
    ck_assert_uint_eq(say_type(), 0);
    state.up = 1;
    ck_assert_int_eq(hear(VGPU_MSG_STATE, &state, sizeof(state)), 0);
    ck_assert_uint_eq(say_request(), 0);
}
END_TEST

/* clang-format off */
static const struct data_case {
    const char *name;
    uint64_t seq;
    uint32_t buffer;
    uint64_t offset;
    uint32_t n;
    int want;
} data_cases[] = {
    { "the first chunk",             1, 1, 0, 100, 0 },
    { "the largest chunk",           1, 1, 0, VGPU_DATA_CHUNK, 0 },
    { "of an earlier request",       0, 1, 0, 100, 0 },
    { "of a later request",          2, 1, 0, 100, 0 },
    { "to an input",                 1, 0, 0, 100, VGPU_RELAY_E_PROTOCOL },
    { "to no buffer",                1, 2, 0, 100, VGPU_RELAY_E_PROTOCOL },
    { "to a buffer far away",        1, UINT32_MAX, 0, 100, VGPU_RELAY_E_PROTOCOL },
    { "not at the start",            1, 1, 1, 100, VGPU_RELAY_E_PROTOCOL },
    { "at the end",                  1, 1, BULK, 100, VGPU_RELAY_E_PROTOCOL },
    { "at an offset that wraps",     1, 1, UINT64_MAX - 10, 100, VGPU_RELAY_E_PROTOCOL },
    { "of no bytes",                 1, 1, 0, 0, VGPU_RELAY_E_PROTOCOL },
    { "longer than a chunk",         1, 1, 0, VGPU_DATA_CHUNK + 1, VGPU_RELAY_E_PROTOCOL },
};
/* clang-format on */

START_TEST(outputs)
{
    const struct data_case *c = &data_cases[_i];
    bool mine = c->seq == 1 && c->want == 0;

    connect_relay(GEN);
    submit(0);
    say_request();
    ck_assert_msg(data(c->seq, c->buffer, c->offset, c->n, 0xff) == c->want, "%s", c->name);
    ck_assert_uint_eq(arena[SINK], mine ? 0xff : 0);
    ck_assert_uint_eq(arena[SINK + c->n], 0);
    ck_assert_uint_eq(arena[64], 0);
}
END_TEST

START_TEST(an_output_may_not_go_past_its_end)
{
    connect_relay(GEN);
    submit(0);
    say_request();
    ck_assert_int_eq(data(1, 1, 0, VGPU_DATA_CHUNK, 1), 0);
    ck_assert_int_eq(data(1, 1, VGPU_DATA_CHUNK, VGPU_DATA_CHUNK, 1), 0);
    ck_assert_int_eq(data(1, 1, 2 * VGPU_DATA_CHUNK, VGPU_DATA_CHUNK, 1), 0);
    ck_assert_int_eq(answer(1, VGPU_E_OK), VGPU_RELAY_E_PROTOCOL);
    ck_assert_uint_eq(bar0.state, VGPU_STATUS_BUSY);
    ck_assert_int_eq(data(1, 1, 3 * VGPU_DATA_CHUNK, BULK - 3 * VGPU_DATA_CHUNK + 1, 1),
                     VGPU_RELAY_E_PROTOCOL);
    ck_assert_int_eq(answer(1, VGPU_E_BACKEND_FAULT), 0);
    ck_assert_uint_eq(bar0.error, VGPU_E_BACKEND_FAULT);
    ck_assert_uint_eq(arena[SINK + BULK], 0);
}
END_TEST

START_TEST(answers_to_what_was_not_asked_here)
{
    connect_relay(GEN);
    submit(0);
    ck_assert_int_eq(accept_request(1), VGPU_RELAY_E_PROTOCOL);
    ck_assert_int_eq(answer(1, VGPU_E_OK), VGPU_RELAY_E_PROTOCOL);
    ck_assert_int_eq(data(1, 1, 0, 8, 0xff), VGPU_RELAY_E_PROTOCOL);
    ck_assert_uint_eq(bar0.state, VGPU_STATUS_BUSY);
}
END_TEST

START_TEST(refused_text_is_kept_printable_and_short)
{
    static uint8_t bytes[4000];
    struct vgpu_refused m = {.reason = VGPU_REFUSED_UNKNOWN_VM};

    memset(bytes, 'x', sizeof(bytes));
    memcpy(bytes, &m, sizeof(m));
    bytes[sizeof(m) + 1] = '\x1b';
    vgpu_relay_connected(&relay);
    say_type();
    ck_assert_int_eq(hear(VGPU_MSG_REFUSED, bytes, sizeof(bytes)), VGPU_RELAY_E_REFUSED);
    ck_assert_uint_lt(strlen(why), VGPU_RELAY_WHY_MAX);
    ck_assert_ptr_null(strchr(why, '\x1b'));
}
END_TEST

/* ---- the shm data path --------------------------------------------------------------------- */

/* Sends a REQUEST, which no DATA follows; its flags. */
static uint32_t say_request_only(void)
{
    struct vgpu_frame f;

    ck_assert_uint_eq(say(&f), VGPU_MSG_REQUEST);
    ck_assert_uint_eq(say_type(), 0);
    return f.head.request.flags;
}

static void lose_connection(void)
{
    vgpu_relay_disconnected(&relay);
    check();
}

static void lose_writers(void)
{
    vgpu_relay_writers_gone(&relay);
    check();
}

static uint32_t *ring_word(uint32_t at)
{
    return (uint32_t *)(shm + bar0.config.layout.ring_offset + at);
}

START_TEST(shm_hello_carries_the_layout)
{
    const struct vgpu_layout *l = &bar0.config.layout;
    struct vgpu_frame f;

    vgpu_relay_connected(&relay);
    ck_assert_uint_eq(say(&f), VGPU_MSG_HELLO);
    ck_assert_uint_eq(f.head.hello.features, VGPU_LOCAL_FEATURE_SHM);
    ck_assert_uint_eq(f.head.hello.rings, l->rings);
    ck_assert_uint_eq(f.head.hello.ring_entries, l->entries);
    ck_assert_uint_eq(f.head.hello.slot_bytes, l->slot_bytes);
    ck_assert_uint_eq(f.head.hello.shm_size, SHM_SIZE);
    ck_assert_uint_eq(f.head.hello.ring_offset, l->ring_offset);
    ck_assert_uint_eq(f.head.hello.ring_stride, l->ring_stride);
    ck_assert_uint_eq(f.head.hello.arena_offset, l->arena_offset);
    ck_assert_uint_eq(f.head.hello.arena_size, l->arena_size);
    ck_assert(relay.writers);
}
END_TEST

START_TEST(shm_must_be_chosen_when_it_was_offered)
{
    struct vgpu_hello_ack ack = {
        .version = VGPU_LOCAL_VERSION_MAX, .band = 1, .up = 1, .mediator_gen = 1, .deadline_ms = 1};

    vgpu_relay_connected(&relay);
    say_type();
    ck_assert_int_eq(hear(VGPU_MSG_HELLO_ACK, &ack, sizeof(ack)), VGPU_RELAY_E_PROTOCOL);
    ck_assert_ptr_nonnull(strstr(why, "datapath=shm"));
    ack.features = VGPU_LOCAL_FEATURE_SHM | 2;
    ck_assert_int_eq(hear(VGPU_MSG_HELLO_ACK, &ack, sizeof(ack)), VGPU_RELAY_E_PROTOCOL);
}
END_TEST

START_TEST(shm_a_round_trip_without_data)
{
    connect_relay(GEN);
    submit(0);
    ck_assert_uint_eq(say_request_only(), 0);
    ck_assert_int_eq(data(1, 1, 0, 100, 0xff), VGPU_RELAY_E_PROTOCOL);
    ck_assert_uint_eq(arena[SINK], 0);
    ck_assert_int_eq(answer(1, VGPU_E_OK), 0);
    ck_assert_uint_eq(bar0.state, VGPU_STATUS_DONE);
}
END_TEST

/* clang-format off */
static const struct give_up_case {
    const char *name;
    bool sent, accepted, lost;
    uint32_t reason;   /* the guest's CANCEL, or the deadline */
    bool stays;        /* BUSY, as long as there are writers */
    bool cancel;       /* the mediator is told */
    uint32_t want;     /* what ends it when the writers are gone */
} give_up_cases[] = {
    { "nobody has it: cancelled at once",    false, false, false, VGPU_E_CANCELLED, false, false, VGPU_E_CANCELLED },
    { "nobody has it: its deadline",         false, false, false, VGPU_E_DEADLINE,  false, false, VGPU_E_DEADLINE },
    { "the mediator has it: cancelled",      true,  true,  false, VGPU_E_CANCELLED, true,  true,  VGPU_E_CANCELLED },
    { "the mediator has it: its deadline",   true,  false, false, VGPU_E_DEADLINE,  true,  true,  VGPU_E_DEADLINE },
    { "left by the mediator: cancelled",     true,  true,  true,  VGPU_E_CANCELLED, true,  false, VGPU_E_CANCELLED },
    { "left by the mediator: its deadline",  true,  true,  true,  VGPU_E_DEADLINE,  true,  false, VGPU_E_DEADLINE },
    { "left before ACCEPT: its deadline",    true,  false, true,  VGPU_E_DEADLINE,  true,  false, VGPU_E_NO_BACKEND },
};
/* clang-format on */

START_TEST(shm_a_request_ends_when_nobody_can_write_to_it)
{
    const struct give_up_case *c = &give_up_cases[_i];

    connect_relay(GEN);
    submit(0);
    if (c->sent) {
        say_request_only();
    }
    if (c->accepted) {
        accept_request(1);
    }
    if (c->lost) {
        lose_connection();
    }
    ck_assert(vgpu_relay_waits(&relay));
    vgpu_relay_give_up(&relay, c->reason);
    check();
    ck_assert(!vgpu_relay_waits(&relay));
    ck_assert_msg(vgpu_bar0_busy(&bar0) == c->stays, "%s", c->name);
    vgpu_relay_expire(&relay, UINT64_MAX); /* once is enough */
    ck_assert_uint_eq(say_type(), c->cancel ? VGPU_MSG_CANCEL : 0);
    if (!c->lost) {
        lose_connection();
    }
    ck_assert_msg(vgpu_bar0_busy(&bar0) == c->stays, "%s", c->name);
    lose_writers();
    ck_assert_msg(bar0.error == c->want, "%s: error %u", c->name, bar0.error);
    connect_relay(GEN + 1);
    ck_assert_uint_eq(say_type(), 0);
}
END_TEST

/* clang-format off */
static const uint32_t cancel_answers[] = { VGPU_E_CANCELLED, VGPU_E_DEADLINE, VGPU_E_OK, VGPU_E_WORKER_LOST };
/* clang-format on */

START_TEST(shm_the_answer_to_cancel_ends_the_request)
{
    connect_relay(GEN);
    submit(0);
    say_request_only();
    vgpu_relay_give_up(&relay, VGPU_E_CANCELLED);
    if (_i % 2) { /* the answer and CANCEL may pass each other */
        ck_assert_uint_eq(say_type(), VGPU_MSG_CANCEL);
    }
    ck_assert_int_eq(answer(1, cancel_answers[_i]), 0);
    ck_assert_uint_eq(bar0.error, cancel_answers[_i]);
    ck_assert_uint_eq(say_type(), 0);
    submit(0);
    ck_assert_uint_eq(say_request_only(), 0);
    ck_assert_int_eq(answer(2, VGPU_E_OK), 0);
}
END_TEST

START_TEST(shm_a_request_without_arena_outputs_ends_at_once)
{
    connect_relay(GEN);
    submit_inline();
    say_request_only();
    vgpu_relay_expire(&relay, 5000);
    check();
    ck_assert_uint_eq(bar0.error, VGPU_E_DEADLINE);
    ck_assert_uint_eq(say_type(), VGPU_MSG_CANCEL);
    ck_assert_int_eq(answer(1, VGPU_E_DEADLINE), 0); /* for nobody */
    submit(0);
    say_request_only();
    ck_assert_int_eq(answer(2, VGPU_E_OK), 0);
}
END_TEST

START_TEST(shm_a_request_goes_on_with_the_next_mediator)
{
    connect_relay(GEN);
    submit(0);
    say_request_only();
    accept_request(1);
    lose_connection();
    ck_assert(vgpu_bar0_busy(&bar0));
    lose_writers();
    ck_assert(vgpu_bar0_busy(&bar0));
    connect_relay(GEN + 1);
    ck_assert_uint_eq(say_request_only(), VGPU_REQUEST_AGAIN | VGPU_REQUEST_ACCEPTED);
    ck_assert_int_eq(answer(1, VGPU_E_OK), 0);
}
END_TEST

START_TEST(shm_reset_zeroes_the_rings_and_waits_for_the_writers)
{
    struct vgpu_reset ack = {.msg = {.magic = 0}};
    uint32_t round;

    for (round = 0; round < 2; round++) {
        connect_relay(GEN);
        *ring_word(0) = 7;
        *ring_word(VGPU_RING_PAGE) = 8;
        vgpu_relay_reset(&relay);
        check();
        ck_assert_uint_eq(*ring_word(0) | *ring_word(VGPU_RING_PAGE), 0);
        ck_assert_uint_eq(bar0.flags, VGPU_STATUS_RESETTING);
        *ring_word(VGPU_RING_PAGE) = 9; /* a writer of the old life */
        if (round == 0) {
            ck_assert_uint_eq(say_type(), VGPU_MSG_RESET);
            *ring_word(VGPU_RING_PAGE) = 0; /* the mediator's part */
            ck_assert_int_eq(hear(VGPU_MSG_RESET_ACK, &ack, sizeof(ack)), 0);
            ck_assert_uint_eq(bar0.flags, VGPU_STATUS_BACKEND_UP);
        }
        lose_connection();
        ck_assert_uint_eq(bar0.flags, round == 0 ? 0 : VGPU_STATUS_RESETTING);
        lose_writers();
        ck_assert_uint_eq(bar0.flags, 0);
        ck_assert_uint_eq(*ring_word(VGPU_RING_PAGE), 0);
    }
}
END_TEST

START_TEST(shm_rings_survive_a_mediator)
{
    connect_relay(GEN);
    *ring_word(0) = 7;
    *ring_word(VGPU_RING_PAGE) = 8;
    lose_connection();
    lose_writers();
    connect_relay(GEN + 1);
    ck_assert_uint_eq(*ring_word(0), 7);
    ck_assert_uint_eq(*ring_word(VGPU_RING_PAGE), 8);
}
END_TEST

START_TEST(shm_reset_when_nobody_is_there)
{
    vgpu_relay_reset(&relay);
    check();
    ck_assert_uint_eq(bar0.flags, 0);
    vgpu_relay_connected(&relay);
    vgpu_relay_reset(&relay); /* HELLO has not gone out: nobody has the memory */
    ck_assert_uint_eq(bar0.flags, 0);
    connect_relay(GEN);
    lose_connection();
    vgpu_relay_reset(&relay); /* but now somebody may still have it */
    check();
    ck_assert_uint_eq(bar0.flags, VGPU_STATUS_RESETTING);
    lose_writers();
    ck_assert_uint_eq(bar0.flags, 0);
}
END_TEST

static int say_broken(uint32_t epoch)
{
    struct vgpu_state m = {.band = VGPU_BAND_NORMAL, .up = 1, .broken = 1};
    int rc;

    m.msg.magic = VGPU_MSG_MAGIC;
    m.msg.type = VGPU_MSG_STATE;
    m.msg.length = sizeof(m);
    m.msg.epoch = epoch;
    rc = vgpu_relay_receive(&relay, &m, sizeof(m), why);
    check();
    return rc;
}

START_TEST(shm_a_broken_ring_breaks_the_device_of_that_life)
{
    vgpu_relay_reset(&relay);
    connect_relay(GEN);
    ck_assert_int_eq(say_broken(0), 0);
    ck_assert_uint_eq(bar0.flags, VGPU_STATUS_BACKEND_UP);
    submit_inline();
    say_request_only();
    ck_assert_int_eq(say_broken(1), 0);
    ck_assert_uint_eq(bar0.flags, VGPU_STATUS_BACKEND_UP | VGPU_STATUS_BROKEN);
    ck_assert_uint_eq(bar0.error, VGPU_E_BROKEN);
    vgpu_relay_reset(&relay);
    check();
    ck_assert_uint_eq(bar0.flags, VGPU_STATUS_RESETTING);
}
END_TEST

START_TEST(shm_a_broken_ring_does_not_hand_a_buffer_back)
{
    connect_relay(GEN);
    submit(0);
    say_request_only();
    ck_assert_int_eq(say_broken(0), 0);
    ck_assert(vgpu_bar0_busy(&bar0));
    ck_assert_int_eq(answer(1, VGPU_E_BROKEN), 0);
    ck_assert_uint_eq(bar0.error, VGPU_E_BROKEN);
}
END_TEST

START_TEST(the_socket_path_knows_no_broken_rings)
{
    connect_relay(GEN);
    ck_assert_int_eq(say_broken(0), VGPU_RELAY_E_PROTOCOL);
}
END_TEST

/* One step of guest, mediator or network that follow no plan. */
static void random_step(uint64_t *seed)
{
    static uint64_t noise[40];
    static const uint32_t types[] = {VGPU_MSG_HELLO_ACK, VGPU_MSG_DATA,      VGPU_MSG_ACCEPT,
                                     VGPU_MSG_RESPONSE,  VGPU_MSG_RESET_ACK, VGPU_MSG_STATE};
    size_t i;

    switch (unit_below(seed, 11)) {
    case 0:
        if (!vgpu_bar0_busy(&bar0) &&
            !(bar0.flags & (VGPU_STATUS_RESETTING | VGPU_STATUS_BROKEN))) {
            submit((uint32_t)unit_below(seed, 4));
        }
        break;
    case 1:
        if (relay.link == VGPU_RELAY_DOWN) {
            vgpu_relay_writers_gone(&relay);
            check();
            vgpu_relay_connected(&relay);
        }
        break;
    case 2:
        if (unit_below(seed, 10) == 0) {
            vgpu_relay_disconnected(&relay);
        }
        break;
    case 3:
        vgpu_relay_give_up(&relay, VGPU_E_CANCELLED);
        break;
    case 4:
        vgpu_relay_wish(&relay);
        break;
    case 5:
        if (unit_below(seed, 5) == 0) {
            vgpu_relay_reset(&relay);
        }
        break;
    case 6:
        welcome(unit_below(seed, 2));
        break;
    case 7:
        data(bar0.seq, 1, relay.out.offset, 1 + (uint32_t)unit_below(seed, VGPU_DATA_CHUNK), 0xcd);
        break;
    case 8:
        answer(bar0.seq, (uint32_t)unit_below(seed, 2));
        break;
    case 9:
        for (i = 0; i < N_ELEMS(noise); i++) {
            noise[i] = unit_below(seed, 4);
        }
        hear(types[unit_below(seed, N_ELEMS(types))], noise, 16 + unit_below(seed, 200));
        break;
    default:
        say_type();
        break;
    }
}

START_TEST(random_operations_keep_the_invariants_and_the_inputs)
{
    uint64_t seed = 1 + (uint64_t)_i;
    uint64_t i;
    int step;

    for (step = 0; step < 20000; step++) {
        random_step(&seed);
        check();
    }
    for (i = 0; i < SINK; i++) {
        ck_assert_uint_eq(arena[i], 0);
    }
    for (i = SINK + BULK; i < bar0.config.layout.arena_size; i++) {
        ck_assert_uint_eq(arena[i], 0);
    }
}
END_TEST

static TCase *shm_tests(void)
{
    TCase *tc = tcase_create("shm");

    tcase_add_checked_fixture(tc, setup_shm, teardown);
    tcase_add_test(tc, shm_hello_carries_the_layout);
    tcase_add_test(tc, shm_must_be_chosen_when_it_was_offered);
    tcase_add_test(tc, shm_a_round_trip_without_data);
    tcase_add_loop_test(tc, shm_a_request_ends_when_nobody_can_write_to_it, 0,
                        N_ELEMS(give_up_cases));
    tcase_add_loop_test(tc, shm_the_answer_to_cancel_ends_the_request, 0, N_ELEMS(cancel_answers));
    tcase_add_test(tc, shm_a_request_without_arena_outputs_ends_at_once);
    tcase_add_test(tc, shm_a_request_goes_on_with_the_next_mediator);
    tcase_add_test(tc, shm_reset_zeroes_the_rings_and_waits_for_the_writers);
    tcase_add_test(tc, shm_rings_survive_a_mediator);
    tcase_add_test(tc, shm_reset_when_nobody_is_there);
    tcase_add_test(tc, shm_a_broken_ring_breaks_the_device_of_that_life);
    tcase_add_test(tc, shm_a_broken_ring_does_not_hand_a_buffer_back);
    tcase_add_loop_test(tc, random_operations_keep_the_invariants_and_the_inputs, 0, 5);
    return tc;
}

int main(void)
{
    Suite *suite = suite_create("vgpu_relay");
    TCase *tc = tcase_create("vgpu_relay");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, hello_carries_the_device);
    tcase_add_test(tc, a_round_trip);
    tcase_add_test(tc, what_was_not_sent_is_offered_again);
    tcase_add_loop_test(tc, after_a_reconnect, 0, N_ELEMS(again_cases));
    tcase_add_test(tc, cancel_goes_out_once_and_only_for_what_was_sent);
    tcase_add_loop_test(tc, expiry, 0, N_ELEMS(expiry_cases));
    tcase_add_test(tc, reset_comes_first_and_only_its_own_ack_ends_it);
    tcase_add_test(tc, reset_when_nobody_is_there);
    tcase_add_test(tc, a_drained_mediator_gets_no_request);
    tcase_add_loop_test(tc, outputs, 0, N_ELEMS(data_cases));
    tcase_add_test(tc, an_output_may_not_go_past_its_end);
    tcase_add_test(tc, answers_to_what_was_not_asked_here);
    tcase_add_test(tc, refused_text_is_kept_printable_and_short);
    tcase_add_loop_test(tc, random_operations_keep_the_invariants_and_the_inputs, 0, 5);
    tcase_add_test(tc, the_socket_path_knows_no_broken_rings);
    suite_add_tcase(suite, tc);
    suite_add_tcase(suite, shm_tests());
    return unit_run(suite);
}

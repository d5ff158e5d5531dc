/* SPDX-License-Identifier: MIT */
/* test_vgpu_relay.c - what the stub says to a mediator, and what it believes of the answers */
#include <string.h>

#include "stub/vgpu_relay.h"
#include "tests/unit/unit.h"

#define SHM_SIZE (UINT64_C(1) << 20)
#define BULK 200000u /* bytes of the ARENA buffers: several chunks */
#define SINK 262144u /* offset of the ARENA output */
#define GEN UINT64_C(0x1234567800000042)

static const struct vgpu_bar0_config bar0_config = {
    .shm_size = SHM_SIZE,
    .deadline_ms = 5000,
    .band = VGPU_BAND_DEFAULT,
};
static const struct vgpu_relay_config relay_config = {.boot_id = 9, .pool_wish = 2};

static struct vgpu_bar0 bar0;
static struct vgpu_relay relay;
static uint8_t *arena;
static char why[VGPU_RELAY_WHY_MAX];

static void setup(void)
{
    arena = calloc(1, vgpu_bar0_arena_size(SHM_SIZE));
    vgpu_bar0_init(&bar0, &bar0_config);
    vgpu_relay_init(&relay, &relay_config, &bar0, arena);
}

static void teardown(void)
{
    free(arena);
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
        .version = 1,
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

/* One step of guest, mediator or network that follow no plan. */
static void random_step(uint64_t *seed)
{
    static uint64_t noise[40];
    static const uint32_t types[] = {VGPU_MSG_HELLO_ACK, VGPU_MSG_DATA,      VGPU_MSG_ACCEPT,
                                     VGPU_MSG_RESPONSE,  VGPU_MSG_RESET_ACK, VGPU_MSG_STATE};
    size_t i;

    switch (unit_below(seed, 11)) {
    case 0:
        if (!vgpu_bar0_busy(&bar0) && !(bar0.flags & VGPU_STATUS_RESETTING)) {
            submit((uint32_t)unit_below(seed, 4));
        }
        break;
    case 1:
        if (relay.link == VGPU_RELAY_DOWN) {
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
    for (i = SINK + BULK; i < vgpu_bar0_arena_size(SHM_SIZE); i++) {
        ck_assert_uint_eq(arena[i], 0);
    }
}
END_TEST

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
    suite_add_tcase(suite, tc);
    return unit_run(suite);
}

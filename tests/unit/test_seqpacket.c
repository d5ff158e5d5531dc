/* SPDX-License-Identifier: MIT */
/* test_seqpacket.c - local messages: what is well formed, and how they travel with descriptors */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/msgcheck.h"
#include "common/seqpacket.h"
#include "tests/unit/unit.h"

/* ---- msgcheck ---- */

/* clang-format off */
static const struct form_case {
    const char *name;
    enum msgcheck_from from;
    uint16_t type;
    size_t length;
    unsigned fds;
    size_t poke; /* offset of a byte that is set to 1; 0: none */
    const char *wrong; /* part of the sentence; NULL: well formed */
} form_cases[] = {
    {"HELLO", MSGCHECK_STUB, VGPU_MSG_HELLO, sizeof(struct vgpu_hello), 0, 0, NULL},
    {"HELLO from the mediator", MSGCHECK_TO_STUB, VGPU_MSG_HELLO, sizeof(struct vgpu_hello), 0, 0, "may not send"},
    {"HELLO on the worker socket", MSGCHECK_SUPERVISOR, VGPU_MSG_HELLO, sizeof(struct vgpu_hello), 0, 0, "may not send"},
    {"HELLO short", MSGCHECK_STUB, VGPU_MSG_HELLO, sizeof(struct vgpu_hello) - 1, 0, 0, "shorter"},
    {"HELLO long", MSGCHECK_STUB, VGPU_MSG_HELLO, sizeof(struct vgpu_hello) + 1, 0, 0, "longer"},
    {"HELLO with a descriptor", MSGCHECK_STUB, VGPU_MSG_HELLO, sizeof(struct vgpu_hello), 1, 0, "descriptors"},
    {"HELLO reserved0", MSGCHECK_STUB, VGPU_MSG_HELLO, sizeof(struct vgpu_hello), 0, offsetof(struct vgpu_hello, reserved0) + 2, "reserved"},
    {"HELLO reserved1", MSGCHECK_STUB, VGPU_MSG_HELLO, sizeof(struct vgpu_hello), 0, offsetof(struct vgpu_hello, reserved1), "reserved"},
    {"header reserved", MSGCHECK_STUB, VGPU_MSG_HELLO, sizeof(struct vgpu_hello), 0, offsetof(struct vgpu_msg, reserved), "reserved"},
    {"only a header", MSGCHECK_STUB, VGPU_MSG_RESET, sizeof(struct vgpu_msg), 0, 0, NULL},
    {"shorter than a header", MSGCHECK_STUB, VGPU_MSG_RESET, sizeof(struct vgpu_msg) - 1, 0, 0, "header"},
    {"type 0", MSGCHECK_STUB, 0, sizeof(struct vgpu_msg), 0, 0, "unknown"},
    {"type between", MSGCHECK_STUB, 0x1f, sizeof(struct vgpu_msg), 0, 0, "unknown"},
    {"type 0xffff", MSGCHECK_STUB, 0xffff, sizeof(struct vgpu_msg), 0, 0, "unknown"},
    {"REQUEST least", MSGCHECK_STUB, VGPU_MSG_REQUEST, sizeof(struct vgpu_request) + 48, 0, 0, NULL},
    {"REQUEST without one", MSGCHECK_STUB, VGPU_MSG_REQUEST, sizeof(struct vgpu_request) + 47, 0, 0, "shorter"},
    {"REQUEST most", MSGCHECK_STUB, VGPU_MSG_REQUEST, sizeof(struct vgpu_request) + VGPU_REQ_MAX, 0, 0, NULL},
    {"REQUEST too long", MSGCHECK_STUB, VGPU_MSG_REQUEST, sizeof(struct vgpu_request) + VGPU_REQ_MAX + 1, 0, 0, "longer"},
    {"DATA both ways: in", MSGCHECK_STUB, VGPU_MSG_DATA, sizeof(struct vgpu_data) + 1, 0, 0, NULL},
    {"DATA both ways: out", MSGCHECK_TO_STUB, VGPU_MSG_DATA, sizeof(struct vgpu_data) + VGPU_DATA_CHUNK, 0, 0, NULL},
    {"DATA empty", MSGCHECK_STUB, VGPU_MSG_DATA, sizeof(struct vgpu_data), 0, 0, "shorter"},
    {"REFUSED for a worker", MSGCHECK_TO_SUPERVISOR, VGPU_MSG_REFUSED, sizeof(struct vgpu_refused), 0, 0, NULL},
    {"EXECUTOR", MSGCHECK_SUPERVISOR, VGPU_MSG_EXECUTOR, sizeof(struct vgpu_executor), 1, 0, NULL},
    {"EXECUTOR without its descriptor", MSGCHECK_SUPERVISOR, VGPU_MSG_EXECUTOR, sizeof(struct vgpu_executor), 0, 0, "lacks"},
    {"EXECUTOR with an epoch", MSGCHECK_SUPERVISOR, VGPU_MSG_EXECUTOR, sizeof(struct vgpu_executor), 1, offsetof(struct vgpu_msg, epoch), "epoch"},
    {"RESET with an epoch", MSGCHECK_STUB, VGPU_MSG_RESET, sizeof(struct vgpu_msg), 0, offsetof(struct vgpu_msg, epoch), NULL},
    {"heartbeat of a worker", MSGCHECK_SUPERVISOR, VGPU_MSG_HEARTBEAT, sizeof(struct vgpu_heartbeat), 0, 0, NULL},
    {"heartbeat of an executor", MSGCHECK_EXECUTOR, VGPU_MSG_HEARTBEAT, sizeof(struct vgpu_heartbeat), 0, 0, NULL},
    {"heartbeat to an executor", MSGCHECK_TO_EXECUTOR, VGPU_MSG_HEARTBEAT, sizeof(struct vgpu_heartbeat), 0, 0, NULL},
    {"heartbeat of a stub", MSGCHECK_STUB, VGPU_MSG_HEARTBEAT, sizeof(struct vgpu_heartbeat), 0, 0, "may not send"},
    {"DRAIN of an executor", MSGCHECK_EXECUTOR, VGPU_MSG_DRAIN, sizeof(struct vgpu_drain), 0, 0, "may not send"},
    {"ATTACH", MSGCHECK_TO_EXECUTOR, VGPU_MSG_ATTACH, sizeof(struct vgpu_attach), 1, 0, NULL},
    {"JOB reserved", MSGCHECK_TO_EXECUTOR, VGPU_MSG_JOB, sizeof(struct vgpu_job) + 48, 0, offsetof(struct vgpu_job, reserved) + 6, "reserved"},
    {"DONE least", MSGCHECK_EXECUTOR, VGPU_MSG_DONE, sizeof(struct vgpu_done) + 64, 0, 0, NULL},
    {"DONE without a response", MSGCHECK_EXECUTOR, VGPU_MSG_DONE, sizeof(struct vgpu_done) + 63, 0, 0, "shorter"},
};
/* clang-format on */

static const char *check_form(const struct form_case *c, uint8_t *bytes)
{
    struct vgpu_msg *msg = (struct vgpu_msg *)bytes;

    seqpacket_start(msg, c->type, c->length, 0);
    if (c->poke) {
        bytes[c->poke] = 1;
    }
    return msgcheck_message(c->from, bytes, c->length, c->fds);
}

START_TEST(form)
{
    static struct seqpacket_buffer buffer;
    const struct form_case *c = &form_cases[_i];
    const char *wrong;

    memset(&buffer, 0, sizeof(buffer));
    wrong = check_form(c, buffer.bytes);
    if (c->wrong) {
        ck_assert_msg(wrong && strstr(wrong, c->wrong), "%s: %s", c->name, wrong ? wrong : "ok");
    } else {
        ck_assert_msg(!wrong, "%s: %s", c->name, wrong ? wrong : "");
    }
}
END_TEST

START_TEST(header)
{
    struct vgpu_msg msg;

    seqpacket_start(&msg, VGPU_MSG_RESET, sizeof(msg), 0);
    msg.magic++;
    ck_assert_ptr_nonnull(msgcheck_message(MSGCHECK_STUB, &msg, sizeof(msg), 0));
    seqpacket_start(&msg, VGPU_MSG_RESET, sizeof(msg) + 1, 0);
    ck_assert_ptr_nonnull(msgcheck_message(MSGCHECK_STUB, &msg, sizeof(msg), 0));
    ck_assert_str_eq(msgcheck_name(VGPU_MSG_EXECUTOR_GONE), "EXECUTOR_GONE");
    ck_assert_str_eq(msgcheck_name(0), "unknown");
}
END_TEST

START_TEST(random_bytes_never_crash)
{
    static struct seqpacket_buffer buffer;
    uint64_t seed = 17;

    for (int i = 0; i < 20000; i++) {
        size_t length = unit_below(&seed, 400);
        struct vgpu_msg *msg = (struct vgpu_msg *)buffer.bytes;

        for (size_t b = 0; b < length; b++) {
            buffer.bytes[b] = (uint8_t)unit_random(&seed);
        }
        seqpacket_start(msg, (uint16_t)unit_below(&seed, 0x60), length, 0);
        msgcheck_message((enum msgcheck_from)unit_below(&seed, 6), buffer.bytes, length,
                         (unsigned)unit_below(&seed, 3));
    }
}
END_TEST

/* ---- seqpacket ---- */

struct pair {
    struct seqpacket stub, mediator;
};

static void open_pair(struct pair *p, enum msgcheck_from to_left, enum msgcheck_from to_right)
{
    int fds[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds), 0);
    ck_assert_int_eq(seqpacket_init(&p->stub, fds[0], to_left), 0);
    ck_assert_int_eq(seqpacket_init(&p->mediator, fds[1], to_right), 0);
}

static void close_pair(struct pair *p)
{
    seqpacket_fini(&p->stub);
    seqpacket_fini(&p->mediator);
}

START_TEST(a_message_with_a_tail_arrives)
{
    static struct seqpacket_buffer buffer;
    struct seqpacket_message message;
    struct vgpu_data data = {.seq = 7, .buffer = 3};
    struct pair p;

    open_pair(&p, MSGCHECK_TO_STUB, MSGCHECK_STUB);
    ck_assert_int_eq(seqpacket_receive(&p.mediator, &buffer, &message), SEQPACKET_E_AGAIN);
    seqpacket_start(&data.msg, VGPU_MSG_DATA, sizeof(data) + 5, 9);
    ck_assert_int_eq(seqpacket_send(&p.stub, &data.msg, sizeof(data), "hello", -1), 0);
    ck_assert_int_eq(seqpacket_receive(&p.mediator, &buffer, &message), 0);
    ck_assert_uint_eq(message.length, sizeof(data) + 5);
    ck_assert_int_eq(message.fd, -1);
    ck_assert_uint_eq(message.msg->epoch, 9);
    ck_assert_mem_eq(buffer.bytes + sizeof(data), "hello", 5);
    seqpacket_fini(&p.stub);
    ck_assert_int_eq(seqpacket_receive(&p.mediator, &buffer, &message), SEQPACKET_E_CLOSED);
    ck_assert_int_eq(seqpacket_send(&p.mediator, &data.msg, sizeof(data), "hello", -1),
                     SEQPACKET_E_CLOSED);
    close_pair(&p);
}
END_TEST

static void send_executor(struct seqpacket *sp, int fd)
{
    struct vgpu_executor executor = {.executor = 1};

    seqpacket_start(&executor.msg, VGPU_MSG_EXECUTOR, sizeof(executor), 0);
    ck_assert_int_eq(seqpacket_send(sp, &executor.msg, sizeof(executor), NULL, fd), 0);
}

START_TEST(a_descriptor_arrives_close_on_exec)
{
    static struct seqpacket_buffer buffer;
    struct seqpacket_message message;
    struct pair p;

    open_pair(&p, MSGCHECK_TO_SUPERVISOR, MSGCHECK_SUPERVISOR);
    send_executor(&p.stub, STDERR_FILENO);
    ck_assert_int_eq(seqpacket_receive(&p.mediator, &buffer, &message), 0);
    ck_assert_int_ge(message.fd, 0);
    ck_assert_int_eq(fcntl(message.fd, F_GETFD), FD_CLOEXEC);
    close(message.fd);
    send_executor(&p.stub, -1);
    ck_assert_int_eq(seqpacket_receive(&p.mediator, &buffer, &message), SEQPACKET_E_BAD);
    ck_assert_ptr_nonnull(strstr(seqpacket_wrong(&p.mediator), "lacks"));
    close_pair(&p);
}
END_TEST

static int lowest_free_fd(void)
{
    int fd = dup(STDERR_FILENO);

    close(fd);
    return fd;
}

START_TEST(unexpected_descriptors_are_closed)
{
    static struct seqpacket_buffer buffer;
    struct seqpacket_message message;
    struct vgpu_reset reset;
    struct pair p;
    int before;

    open_pair(&p, MSGCHECK_TO_STUB, MSGCHECK_STUB);
    before = lowest_free_fd();
    seqpacket_start(&reset.msg, VGPU_MSG_RESET, sizeof(reset), 0);
    ck_assert_int_eq(seqpacket_send(&p.stub, &reset.msg, sizeof(reset), NULL, STDERR_FILENO), 0);
    ck_assert_int_eq(seqpacket_receive(&p.mediator, &buffer, &message), SEQPACKET_E_BAD);
    ck_assert_int_eq(lowest_free_fd(), before);
    close_pair(&p);
}
END_TEST

START_TEST(too_long_a_datagram_is_bad)
{
    static struct seqpacket_buffer buffer;
    static uint8_t bytes[VGPU_MSG_MAX + 1];
    struct seqpacket_message message;
    struct pair p;

    open_pair(&p, MSGCHECK_TO_STUB, MSGCHECK_STUB);
    ck_assert_int_eq(send(p.stub.fd, bytes, sizeof(bytes), 0), (ssize_t)sizeof(bytes));
    ck_assert_int_eq(seqpacket_receive(&p.mediator, &buffer, &message), SEQPACKET_E_BAD);
    ck_assert_ptr_nonnull(strstr(seqpacket_wrong(&p.mediator), "longer"));
    close_pair(&p);
}
END_TEST

/* Queue numbered messages until the bound, then read them all: order kept, none lost. */
START_TEST(the_queue_is_bounded_and_keeps_the_order)
{
    static struct seqpacket_buffer buffer;
    struct seqpacket_message message;
    struct vgpu_accept accept;
    uint64_t sent = 0, got = 0;
    struct pair p;
    int r;

    open_pair(&p, MSGCHECK_TO_STUB, MSGCHECK_STUB);
    p.mediator.max_messages = 50;
    do {
        accept.seq = sent + 1;
        seqpacket_start(&accept.msg, VGPU_MSG_ACCEPT, sizeof(accept), 0);
        r = seqpacket_send(&p.mediator, &accept.msg, sizeof(accept), NULL, -1);
        sent += r == 0;
    } while (r == 0);
    ck_assert_int_eq(r, SEQPACKET_E_FULL);
    ck_assert_uint_eq(p.mediator.queued, 50);
    ck_assert_uint_eq(p.mediator.refused, 1);
    while (got < sent) {
        r = seqpacket_receive(&p.stub, &buffer, &message);
        if (r == SEQPACKET_E_AGAIN) {
            ck_assert_int_eq(seqpacket_flush(&p.mediator), 0);
            continue;
        }
        ck_assert_int_eq(r, 0);
        ck_assert_uint_eq(((const struct vgpu_accept *)message.msg)->seq, ++got);
    }
    ck_assert(!seqpacket_pending(&p.mediator));
    ck_assert_uint_eq(p.mediator.queued_bytes, 0);
    ck_assert_uint_eq(p.mediator.sent, sent);
    close_pair(&p);
}
END_TEST

START_TEST(a_queued_descriptor_is_kept)
{
    static struct seqpacket_buffer buffer;
    struct seqpacket_message message;
    struct pair p;
    int fd = dup(STDERR_FILENO), received = 0;

    open_pair(&p, MSGCHECK_TO_SUPERVISOR, MSGCHECK_SUPERVISOR);
    while (!seqpacket_pending(&p.stub)) {
        send_executor(&p.stub, fd);
        received++;
    }
    close(fd); /* the queue has its own */
    while (received > 0) {
        int r = seqpacket_receive(&p.mediator, &buffer, &message);

        if (r == SEQPACKET_E_AGAIN) {
            ck_assert_int_eq(seqpacket_flush(&p.stub), 0);
            continue;
        }
        ck_assert_int_eq(r, 0);
        close(message.fd);
        received--;
    }
    close_pair(&p);
}
END_TEST

START_TEST(last_messages_of_a_dead_peer_are_read)
{
    static struct seqpacket_buffer buffer;
    struct seqpacket_message message;
    struct vgpu_accept accept = {.seq = 1};
    struct vgpu_reset reset;
    struct pair p;

    open_pair(&p, MSGCHECK_TO_STUB, MSGCHECK_STUB);
    seqpacket_start(&accept.msg, VGPU_MSG_ACCEPT, sizeof(accept), 0);
    seqpacket_send(&p.mediator, &accept.msg, sizeof(accept), NULL, -1); /* it never reads this */
    seqpacket_start(&reset.msg, VGPU_MSG_RESET, sizeof(reset), 1);
    seqpacket_send(&p.stub, &reset.msg, sizeof(reset), NULL, -1);
    seqpacket_fini(&p.stub);
    ck_assert_int_eq(seqpacket_receive(&p.mediator, &buffer, &message), 0);
    ck_assert_uint_eq(message.msg->type, VGPU_MSG_RESET);
    ck_assert_int_eq(seqpacket_receive(&p.mediator, &buffer, &message), SEQPACKET_E_CLOSED);
    close_pair(&p);
}
END_TEST

START_TEST(wrong_arguments)
{
    struct vgpu_reset reset;
    struct pair p;

    open_pair(&p, MSGCHECK_TO_STUB, MSGCHECK_STUB);
    seqpacket_start(&reset.msg, VGPU_MSG_RESET, VGPU_MSG_MAX + 1, 0);
    ck_assert_int_eq(seqpacket_send(&p.stub, &reset.msg, sizeof(reset), "", -1), -EINVAL);
    seqpacket_start(&reset.msg, VGPU_MSG_RESET, sizeof(reset) - 1, 0);
    ck_assert_int_eq(seqpacket_send(&p.stub, &reset.msg, sizeof(reset), NULL, -1), -EINVAL);
    seqpacket_start(&reset.msg, VGPU_MSG_RESET, sizeof(reset) + 1, 0);
    ck_assert_int_eq(seqpacket_send(&p.stub, &reset.msg, sizeof(reset), NULL, -1), -EINVAL);
    close_pair(&p);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("seqpacket");
    TCase *check = tcase_create("msgcheck");
    TCase *io = tcase_create("seqpacket");

    tcase_add_loop_test(check, form, 0, N_ELEMS(form_cases));
    tcase_add_test(check, header);
    tcase_add_test(check, random_bytes_never_crash);
    tcase_add_test(io, a_message_with_a_tail_arrives);
    tcase_add_test(io, a_descriptor_arrives_close_on_exec);
    tcase_add_test(io, unexpected_descriptors_are_closed);
    tcase_add_test(io, too_long_a_datagram_is_bad);
    tcase_add_test(io, the_queue_is_bounded_and_keeps_the_order);
    tcase_add_test(io, a_queued_descriptor_is_kept);
    tcase_add_test(io, last_messages_of_a_dead_peer_are_read);
    tcase_add_test(io, wrong_arguments);
    suite_add_tcase(s, check);
    suite_add_tcase(s, io);
    return unit_run(s);
}

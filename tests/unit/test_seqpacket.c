/* SPDX-License-Identifier: MIT */
/* test_seqpacket.c - local messages: what is well formed, and how they travel with descriptors */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
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
    {"HELLO with descriptors", MSGCHECK_STUB, VGPU_MSG_HELLO, sizeof(struct vgpu_hello), VGPU_HELLO_FDS(4), 0, NULL},
    {"HELLO of the most rings", MSGCHECK_STUB, VGPU_MSG_HELLO, sizeof(struct vgpu_hello), 131, 0, NULL},
    {"HELLO with one more", MSGCHECK_STUB, VGPU_MSG_HELLO, sizeof(struct vgpu_hello), 132, 0, "descriptors"},
    {"HELLO of version 1", MSGCHECK_STUB, VGPU_MSG_HELLO, 72, 0, 0, "shorter"},
    {"HELLO_ACK with a descriptor", MSGCHECK_TO_STUB, VGPU_MSG_HELLO_ACK, sizeof(struct vgpu_hello_ack), 1, 0, "descriptors"},
    {"REQUEST with a descriptor", MSGCHECK_STUB, VGPU_MSG_REQUEST, sizeof(struct vgpu_request) + 48, 1, 0, "descriptors"},
    {"STATE broken", MSGCHECK_TO_STUB, VGPU_MSG_STATE, sizeof(struct vgpu_state), 0, offsetof(struct vgpu_state, broken), NULL},
    {"STATE reserved", MSGCHECK_TO_STUB, VGPU_MSG_STATE, sizeof(struct vgpu_state), 0, offsetof(struct vgpu_state, reserved), "reserved"},
    {"HELLO reserved0", MSGCHECK_STUB, VGPU_MSG_HELLO, sizeof(struct vgpu_hello), 0, offsetof(struct vgpu_hello, reserved0), "reserved"},
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
    {"ATTACH with a pipe", MSGCHECK_TO_EXECUTOR, VGPU_MSG_ATTACH, sizeof(struct vgpu_attach), 2, 0, NULL},
    {"ATTACH without memory", MSGCHECK_TO_EXECUTOR, VGPU_MSG_ATTACH, sizeof(struct vgpu_attach), 0, 0, "lacks"},
    {"ATTACH with three", MSGCHECK_TO_EXECUTOR, VGPU_MSG_ATTACH, sizeof(struct vgpu_attach), 3, 0, "descriptors"},
    {"ATTACH reserved", MSGCHECK_TO_EXECUTOR, VGPU_MSG_ATTACH, sizeof(struct vgpu_attach), 1, offsetof(struct vgpu_attach, reserved) + 3, "reserved"},
    {"ATTACH from an executor", MSGCHECK_EXECUTOR, VGPU_MSG_ATTACH, sizeof(struct vgpu_attach), 1, 0, "may not send"},
    {"RING", MSGCHECK_TO_EXECUTOR, VGPU_MSG_RING, sizeof(struct vgpu_exec_ring), 3, 0, NULL},
    {"RING with two", MSGCHECK_TO_EXECUTOR, VGPU_MSG_RING, sizeof(struct vgpu_exec_ring), 2, 0, "lacks"},
    {"RING with four", MSGCHECK_TO_EXECUTOR, VGPU_MSG_RING, sizeof(struct vgpu_exec_ring), 4, 0, "descriptors"},
    {"RING reserved", MSGCHECK_TO_EXECUTOR, VGPU_MSG_RING, sizeof(struct vgpu_exec_ring), 3, offsetof(struct vgpu_exec_ring, reserved), "reserved"},
    {"RING from an executor", MSGCHECK_EXECUTOR, VGPU_MSG_RING, sizeof(struct vgpu_exec_ring), 3, 0, "may not send"},
    {"RING on the worker socket", MSGCHECK_TO_SUPERVISOR, VGPU_MSG_RING, sizeof(struct vgpu_exec_ring), 3, 0, "may not send"},
    {"JOB_CANCEL", MSGCHECK_TO_EXECUTOR, VGPU_MSG_JOB_CANCEL, sizeof(struct vgpu_job_cancel), 0, 0, NULL},
    {"a number that is not used", MSGCHECK_TO_EXECUTOR, VGPU_MSG_RING + 2, sizeof(struct vgpu_msg), 0, 0, "unknown"},
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
    static struct seqpacket_buffer bytes;
    const struct form_case *c = &form_cases[_i];
    const char *wrong;

    memset(&bytes, 0, sizeof(bytes));
    wrong = check_form(c, bytes.bytes);
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
    static struct seqpacket_buffer random;
    uint64_t seed = 17;

    for (int i = 0; i < 20000; i++) {
        size_t length = unit_below(&seed, 400);
        struct vgpu_msg *msg = (struct vgpu_msg *)random.bytes;

        for (size_t b = 0; b < length; b++) {
            random.bytes[b] = (uint8_t)unit_random(&seed);
        }
        seqpacket_start(msg, (uint16_t)unit_below(&seed, 0x60), length, 0);
        msgcheck_message((enum msgcheck_from)unit_below(&seed, 6), random.bytes, length,
                         (unsigned)unit_below(&seed, 140));
    }
}
END_TEST

/* ---- seqpacket ---- */

static struct seqpacket_buffer buffer;
static struct seqpacket_message message;

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

/* Descriptors of this process. */
static int open_fds(void)
{
    DIR *folder = opendir("/proc/self/fd");
    int n = 0;

    ck_assert_ptr_nonnull(folder);
    while (readdir(folder)) {
        n++;
    }
    closedir(folder);
    return n - 3; /* ".", ".." and the folder itself */
}

static bool same_file(int a, int b)
{
    struct stat sa, sb;

    return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_dev == sb.st_dev &&
           sa.st_ino == sb.st_ino;
}

/* Distinct files, so that a descriptor shows which one it is. */
static void open_files(int *fds, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        fds[i] = memfd_create("file", MFD_CLOEXEC);
        ck_assert_int_ge(fds[i], 0);
    }
}

static void close_files(const int *fds, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        close(fds[i]);
    }
}

START_TEST(a_message_with_a_tail_arrives)
{
    struct vgpu_data data = {.seq = 7, .buffer = 3};
    struct pair p;

    open_pair(&p, MSGCHECK_TO_STUB, MSGCHECK_STUB);
    ck_assert_int_eq(seqpacket_receive(&p.mediator, &buffer, &message), SEQPACKET_E_AGAIN);
    seqpacket_start(&data.msg, VGPU_MSG_DATA, sizeof(data) + 5, 9);
    ck_assert_int_eq(seqpacket_send(&p.stub, &data.msg, sizeof(data), "hello", NULL, 0), 0);
    ck_assert_int_eq(seqpacket_receive(&p.mediator, &buffer, &message), 0);
    ck_assert_uint_eq(message.length, sizeof(data) + 5);
    ck_assert_uint_eq(message.n_fds, 0);
    ck_assert_int_eq(seqpacket_take_fd(&message, 0), -1);
    ck_assert_uint_eq(message.msg->epoch, 9);
    ck_assert_mem_eq(buffer.bytes + sizeof(data), "hello", 5);
    seqpacket_fini(&p.stub);
    ck_assert_int_eq(seqpacket_receive(&p.mediator, &buffer, &message), SEQPACKET_E_CLOSED);
    ck_assert_int_eq(seqpacket_send(&p.mediator, &data.msg, sizeof(data), "hello", NULL, 0),
                     SEQPACKET_E_CLOSED);
    close_pair(&p);
}
END_TEST

static int send_type(struct seqpacket *sp, uint16_t type, size_t length, const int *fds,
                     unsigned n_fds)
{
    _Alignas(8) uint8_t bytes[512] = {0};
    struct vgpu_msg *msg = (struct vgpu_msg *)bytes;

    ck_assert_uint_le(length, sizeof(bytes));
    seqpacket_start(msg, type, length, 0);
    return seqpacket_send(sp, msg, length, NULL, fds, n_fds);
}

static int send_executor(struct seqpacket *sp, const int *fds, unsigned n_fds)
{
    return send_type(sp, VGPU_MSG_EXECUTOR, sizeof(struct vgpu_executor), fds, n_fds);
}

static int send_hello(struct seqpacket *sp, const int *fds, unsigned n_fds)
{
    return send_type(sp, VGPU_MSG_HELLO, sizeof(struct vgpu_hello), fds, n_fds);
}

START_TEST(a_descriptor_arrives_close_on_exec)
{
    const int err = STDERR_FILENO;
    struct pair p;
    int fd;

    open_pair(&p, MSGCHECK_TO_SUPERVISOR, MSGCHECK_SUPERVISOR);
    ck_assert_int_eq(send_executor(&p.stub, &err, 1), 0);
    ck_assert_int_eq(seqpacket_receive(&p.mediator, &buffer, &message), 0);
    fd = seqpacket_take_fd(&message, 0);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
    ck_assert_int_eq(seqpacket_take_fd(&message, 0), -1); /* taken already */
    close(fd);
    ck_assert_int_eq(send_executor(&p.stub, NULL, 0), 0);
    ck_assert_int_eq(seqpacket_receive(&p.mediator, &buffer, &message), SEQPACKET_E_BAD);
    ck_assert_ptr_nonnull(strstr(seqpacket_wrong(&p.mediator), "lacks"));
    close_pair(&p);
}
END_TEST

/* All of a HELLO's descriptors arrive, in their order; those not taken are closed once. */
START_TEST(the_most_descriptors)
{
    int files[SEQPACKET_FDS_MAX], taken, other, before;
    struct pair p;

    open_pair(&p, MSGCHECK_TO_STUB, MSGCHECK_STUB);
    open_files(files, SEQPACKET_FDS_MAX);
    before = open_fds();
    ck_assert_int_eq(send_hello(&p.stub, files, SEQPACKET_FDS_MAX), 0);
    ck_assert_int_eq(seqpacket_receive(&p.mediator, &buffer, &message), 0);
    ck_assert_uint_eq(message.n_fds, SEQPACKET_FDS_MAX);
    ck_assert_int_eq(open_fds(), before + (int)SEQPACKET_FDS_MAX);
    for (unsigned i = 0; i < SEQPACKET_FDS_MAX; i++) {
        ck_assert(same_file(message.fds[i], files[i]));
    }
    taken = seqpacket_take_fd(&message, 64);
    ck_assert_int_eq(seqpacket_take_fd(&message, SEQPACKET_FDS_MAX), -1);
    seqpacket_close_fds(&message);
    ck_assert_int_eq(open_fds(), before + 1);
    ck_assert(same_file(taken, files[64]));
    other = dup(STDERR_FILENO); /* gets the number of one that was closed */
    seqpacket_close_fds(&message);
    ck_assert(same_file(other, STDERR_FILENO));
    close(other);
    close(taken);
    ck_assert_int_eq(open_fds(), before);
    close_files(files, SEQPACKET_FDS_MAX);
    close_pair(&p);
}
END_TEST

/* clang-format off */
static const struct {
    const char *what;
    enum msgcheck_from from;
    uint16_t type;
    size_t length;
    unsigned fds;
    const char *wrong;
} bad_cases[] = {
    {"a descriptor with RESET", MSGCHECK_STUB, VGPU_MSG_RESET, sizeof(struct vgpu_reset), 1, "do not belong"},
    {"as many as HELLO may have with RESET", MSGCHECK_STUB, VGPU_MSG_RESET, sizeof(struct vgpu_reset), 131, "do not belong"},
    {"one too many with HELLO", MSGCHECK_STUB, VGPU_MSG_HELLO, sizeof(struct vgpu_hello), 132, "do not belong"},
    {"as many as there is room for", MSGCHECK_STUB, VGPU_MSG_HELLO, sizeof(struct vgpu_hello), 139, "do not belong"},
    {"more than there is room for", MSGCHECK_STUB, VGPU_MSG_HELLO, sizeof(struct vgpu_hello), 140, "do not belong"},
    {"as many as the kernel carries", MSGCHECK_STUB, VGPU_MSG_HELLO, sizeof(struct vgpu_hello), 253, "do not belong"},
    {"HELLO with descriptors, short", MSGCHECK_STUB, VGPU_MSG_HELLO, sizeof(struct vgpu_hello) - 8, 11, "shorter"},
    {"RING with two", MSGCHECK_TO_EXECUTOR, VGPU_MSG_RING, sizeof(struct vgpu_exec_ring), 2, "lacks"},
    {"an unknown type with descriptors", MSGCHECK_TO_EXECUTOR, 0x1f, sizeof(struct vgpu_msg), 3, "unknown"},
};
/* clang-format on */

/* As a hostile peer sends it: without the bounds of seqpacket_send(). */
static void send_raw(int socket, uint16_t type, size_t length, const int *fds, unsigned n_fds)
{
    _Alignas(8) uint8_t bytes[512] = {0}, control[CMSG_SPACE(253 * sizeof(int))];
    struct iovec part = {.iov_base = bytes, .iov_len = length};
    struct msghdr h = {.msg_iov = &part,
                       .msg_iovlen = 1,
                       .msg_control = control,
                       .msg_controllen = CMSG_SPACE(n_fds * sizeof(int))};
    struct cmsghdr *c = CMSG_FIRSTHDR(&h);

    seqpacket_start((struct vgpu_msg *)bytes, type, length, 0);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
    memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
    ck_assert_int_eq(sendmsg(socket, &h, 0), (ssize_t)length);
}

START_TEST(descriptors_of_a_bad_message_are_closed)
{
    int fds[253], before;
    struct pair p;

    open_pair(&p, MSGCHECK_STUB, bad_cases[_i].from);
    for (size_t i = 0; i < N_ELEMS(fds); i++) {
        fds[i] = STDERR_FILENO;
    }
    before = open_fds();
    send_raw(p.stub.fd, bad_cases[_i].type, bad_cases[_i].length, fds, bad_cases[_i].fds);
    ck_assert_int_eq(seqpacket_receive(&p.mediator, &buffer, &message), SEQPACKET_E_BAD);
    ck_assert_msg(strstr(seqpacket_wrong(&p.mediator), bad_cases[_i].wrong), "%s: %s",
                  bad_cases[_i].what, seqpacket_wrong(&p.mediator));
    ck_assert_int_eq(open_fds(), before);
    ck_assert_uint_eq(p.mediator.received, 0);
    close_pair(&p);
}
END_TEST

/* The kernel delivers a message without the descriptors that a full table has no place for. */
START_TEST(a_full_table_of_descriptors)
{
    struct rlimit limit;
    int fds[11], before;
    struct pair p;

    open_pair(&p, MSGCHECK_TO_STUB, MSGCHECK_STUB);
    open_files(fds, N_ELEMS(fds));
    before = open_fds();
    ck_assert_int_eq(send_hello(&p.stub, fds, N_ELEMS(fds)), 0);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = (rlim_t)fds[10] + 5;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    ck_assert_int_eq(seqpacket_receive(&p.mediator, &buffer, &message), SEQPACKET_E_BAD);
    ck_assert_msg(strstr(seqpacket_wrong(&p.mediator), "too many open"), "%s",
                  seqpacket_wrong(&p.mediator));
    limit.rlim_cur = limit.rlim_max;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    ck_assert_int_eq(open_fds(), before);
    close_files(fds, N_ELEMS(fds));
    close_pair(&p);
}
END_TEST

START_TEST(too_long_a_datagram_is_bad)
{
    static uint8_t bytes[VGPU_MSG_MAX + 1];
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
    struct vgpu_accept accept;
    uint64_t sent = 0, got = 0;
    struct pair p;
    int r;

    open_pair(&p, MSGCHECK_TO_STUB, MSGCHECK_STUB);
    p.mediator.max_messages = 50;
    do {
        accept.seq = sent + 1;
        seqpacket_start(&accept.msg, VGPU_MSG_ACCEPT, sizeof(accept), 0);
        r = seqpacket_send(&p.mediator, &accept.msg, sizeof(accept), NULL, NULL, 0);
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

/* Fill the socket and two messages of the queue with HELLOs of n descriptors. Return: how many. */
static unsigned fill(struct seqpacket *sp, const int *fds, unsigned n)
{
    unsigned sent = 0;

    while (sp->queued < 2) {
        ck_assert_int_eq(send_hello(sp, fds, n), 0);
        sent++;
    }
    return sent;
}

START_TEST(queued_descriptors_are_kept)
{
    int files[11], before, r;
    unsigned left;
    struct pair p;

    open_pair(&p, MSGCHECK_TO_STUB, MSGCHECK_STUB);
    open_files(files, N_ELEMS(files));
    before = open_fds();
    left = fill(&p.stub, files, N_ELEMS(files));
    ck_assert_int_eq(open_fds(), before + 2 * (int)N_ELEMS(files)); /* the queue has its own */
    while (left > 0) {
        r = seqpacket_receive(&p.mediator, &buffer, &message);
        if (r == SEQPACKET_E_AGAIN) {
            ck_assert_int_eq(seqpacket_flush(&p.stub), 0);
            continue;
        }
        ck_assert_int_eq(r, 0);
        ck_assert_uint_eq(message.n_fds, N_ELEMS(files));
        ck_assert(same_file(message.fds[10], files[10]));
        seqpacket_close_fds(&message);
        left--;
    }
    ck_assert_int_eq(open_fds(), before);
    close_files(files, N_ELEMS(files));
    close_pair(&p);
}
END_TEST

START_TEST(queued_descriptors_are_closed_with_the_connection)
{
    int files[11], before = open_fds();
    struct pair p;

    open_files(files, N_ELEMS(files));
    open_pair(&p, MSGCHECK_TO_STUB, MSGCHECK_STUB);
    fill(&p.stub, files, N_ELEMS(files));
    close_pair(&p);
    seqpacket_fini(&p.stub); /* twice is fine */
    close_files(files, N_ELEMS(files));
    ck_assert_int_eq(open_fds(), before);
}
END_TEST

/* When a descriptor cannot be duplicated for the queue none of the others stays open. */
START_TEST(a_message_that_cannot_be_queued_leaves_nothing_open)
{
    int files[3], before;
    struct pair p;

    open_pair(&p, MSGCHECK_TO_STUB, MSGCHECK_STUB);
    open_files(files, N_ELEMS(files));
    fill(&p.stub, files, N_ELEMS(files));
    close(files[2]);
    files[2] = 1000; /* not open, and no duplicate gets this number */
    before = open_fds();
    ck_assert_int_eq(send_hello(&p.stub, files, N_ELEMS(files)), -EBADF);
    ck_assert_int_eq(open_fds(), before);
    ck_assert_uint_eq(p.stub.queued, 2);
    close_files(files, 2);
    close_pair(&p);
}
END_TEST

START_TEST(last_messages_of_a_dead_peer_are_read)
{
    struct vgpu_accept accept = {.seq = 1};
    struct vgpu_reset reset;
    struct pair p;

    open_pair(&p, MSGCHECK_TO_STUB, MSGCHECK_STUB);
    seqpacket_start(&accept.msg, VGPU_MSG_ACCEPT, sizeof(accept), 0);
    /* it never reads this */
    seqpacket_send(&p.mediator, &accept.msg, sizeof(accept), NULL, NULL, 0);
    seqpacket_start(&reset.msg, VGPU_MSG_RESET, sizeof(reset), 1);
    seqpacket_send(&p.stub, &reset.msg, sizeof(reset), NULL, NULL, 0);
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
    int fds[SEQPACKET_FDS_MAX + 1] = {0};
    struct pair p;

    open_pair(&p, MSGCHECK_TO_STUB, MSGCHECK_STUB);
    seqpacket_start(&reset.msg, VGPU_MSG_RESET, VGPU_MSG_MAX + 1, 0);
    ck_assert_int_eq(seqpacket_send(&p.stub, &reset.msg, sizeof(reset), "", NULL, 0), -EINVAL);
    seqpacket_start(&reset.msg, VGPU_MSG_RESET, sizeof(reset) - 1, 0);
    ck_assert_int_eq(seqpacket_send(&p.stub, &reset.msg, sizeof(reset), NULL, NULL, 0), -EINVAL);
    seqpacket_start(&reset.msg, VGPU_MSG_RESET, sizeof(reset) + 1, 0);
    ck_assert_int_eq(seqpacket_send(&p.stub, &reset.msg, sizeof(reset), NULL, NULL, 0), -EINVAL);
    ck_assert_int_eq(send_hello(&p.stub, fds, SEQPACKET_FDS_MAX + 1), -EINVAL);
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
    tcase_add_test(io, the_most_descriptors);
    tcase_add_loop_test(io, descriptors_of_a_bad_message_are_closed, 0, N_ELEMS(bad_cases));
    tcase_add_test(io, a_full_table_of_descriptors);
    tcase_add_test(io, too_long_a_datagram_is_bad);
    tcase_add_test(io, the_queue_is_bounded_and_keeps_the_order);
    tcase_add_test(io, queued_descriptors_are_kept);
    tcase_add_test(io, queued_descriptors_are_closed_with_the_connection);
    tcase_add_test(io, a_message_that_cannot_be_queued_leaves_nothing_open);
    tcase_add_test(io, last_messages_of_a_dead_peer_are_read);
    tcase_add_test(io, wrong_arguments);
    suite_add_tcase(s, check);
    suite_add_tcase(s, io);
    return unit_run(s);
}

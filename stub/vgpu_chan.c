/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See vgpu_chan.h. */
#include "vgpu_compat.h"

#include <sys/un.h>

#include "vgpu_chan.h"
#include "vgpu_trace.h"

#define RETRY_FIRST_MS 20u
#define SEND_BUFFER_BYTES (512 * 1024)
/* Messages per wake-up, so that one device cannot hold the main loop: about 1 MiB each way. */
#define BUDGET_LOOP 16
/* In a vCPU's exit: enough for a request without bulk to leave at once. */
#define BUDGET_KICK 2

struct vgpu_chan {
    char *path;
    struct vgpu_relay *relay;
    void (*on_change)(void *opaque);
    void *opaque;
    int fd; /* -1: not connected */
    bool waiting_to_write;
    QEMUTimer *retry;
    uint32_t retry_ms;
    uint32_t retry_max_ms;
    uint64_t since_ms;                 /* when this connection was made */
    char last_why[VGPU_RELAY_WHY_MAX]; /* last warning, so that it is not repeated at every try */
    uint64_t buffer[VGPU_MSG_MAX / sizeof(uint64_t)];
};

uint64_t vgpu_chan_now_ms(void)
{
    return (uint64_t)qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
}

bool vgpu_chan_path_fits(const char *path)
{
    return strlen(path) < sizeof(((struct sockaddr_un *)0)->sun_path);
}

/* A connection that lasted is a good one: after it, trying starts afresh. */
static void forgive(struct vgpu_chan *c)
{
    if (vgpu_chan_now_ms() - c->since_ms > c->retry_max_ms) {
        c->retry_ms = RETRY_FIRST_MS;
        c->last_why[0] = '\0';
    }
}

static void schedule_retry(struct vgpu_chan *c)
{
    timer_mod(c->retry, (int64_t)(vgpu_chan_now_ms() + c->retry_ms));
    c->retry_ms = MIN(c->retry_ms * 2, c->retry_max_ms);
}

/* Closes the connection and tries again later. @why is for the trace; NULL: nothing unusual. */
static void drop(struct vgpu_chan *c, const char *why)
{
    trace_vgpu_stub_disconnect(c->path, why ? why : "closed by the mediator");
    qemu_set_fd_handler(c->fd, NULL, NULL, NULL);
    close(c->fd);
    c->fd = -1;
    c->waiting_to_write = false;
    vgpu_relay_disconnected(c->relay);
    forgive(c);
    schedule_retry(c);
}

/* As drop(), and tells the operator, once per reason. */
static void drop_loudly(struct vgpu_chan *c, const char *what, const char *why)
{
    if (strcmp(c->last_why, why) != 0) {
        warn_report("vgpu-stub: %s at %s: %s; the VM runs on, trying again", what, c->path, why);
        g_strlcpy(c->last_why, why, sizeof(c->last_why));
    }
    drop(c, why);
}

/* ---- sending ------------------------------------------------------------------------------- */

static ssize_t send_frame(struct vgpu_chan *c, struct vgpu_frame *f)
{
    struct iovec iov[2] = {
        {.iov_base = &f->head, .iov_len = f->head_len},
        {.iov_base = (void *)f->body, .iov_len = f->body_len},
    };
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = f->body_len ? 2 : 1};
    ssize_t n;

    do {
        n = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    return n;
}

static void on_readable(void *opaque);
static void on_writable(void *opaque);

static void wait_to_write(struct vgpu_chan *c, bool wait)
{
    if (c->waiting_to_write != wait) {
        c->waiting_to_write = wait;
        qemu_set_fd_handler(c->fd, on_readable, wait ? on_writable : NULL, c);
    }
}

/* Sends up to @budget messages; the rest waits until the socket takes more. */
static void send_some(struct vgpu_chan *c, int budget)
{
    struct vgpu_frame frame;

    while (vgpu_relay_next(c->relay, vgpu_chan_now_ms(), &frame)) {
        if (budget-- == 0) {
            wait_to_write(c, true);
            return;
        }
        if (send_frame(c, &frame) < 0) {
            if (errno == EAGAIN) {
                wait_to_write(c, true);
            } else {
                drop(c, strerror(errno));
            }
            return;
        }
        trace_vgpu_stub_send(frame.head.msg.type, frame.head.msg.length, frame.head.msg.epoch,
                             c->relay->bar0->seq);
        vgpu_relay_sent(c->relay);
    }
    wait_to_write(c, false);
}

static void on_writable(void *opaque)
{
    struct vgpu_chan *c = opaque;

    send_some(c, BUDGET_LOOP);
    c->on_change(c->opaque);
}

void vgpu_chan_kick(struct vgpu_chan *c)
{
    if (c->fd >= 0 && !c->waiting_to_write) {
        send_some(c, BUDGET_KICK);
    }
}

/* ---- receiving ----------------------------------------------------------------------------- */

/* Closes the descriptors that came along. Return: how many. */
static int close_fds(struct msghdr *msg)
{
    struct cmsghdr *cmsg;
    int n = 0;

    for (cmsg = CMSG_FIRSTHDR(msg); cmsg != NULL; cmsg = CMSG_NXTHDR(msg, cmsg)) {
        size_t i, count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        for (i = 0; i < count; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(fd));
            close(fd);
            n++;
        }
    }
    return n;
}

/* Takes one datagram into the buffer. Return: its length; 0 at the end; -errno. */
static ssize_t receive_datagram(struct vgpu_chan *c)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(16 * sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = c->buffer, .iov_len = sizeof(c->buffer)};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof(control.bytes),
    };
    ssize_t n;

    do {
        n = recvmsg(c->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return -errno;
    }
    if (close_fds(&msg) > 0 || (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
        return -EBADMSG;
    }
    return n;
}

/* Serves one datagram. Return: whether there may be another. */
static bool receive_one(struct vgpu_chan *c)
{
    char why[VGPU_RELAY_WHY_MAX];
    struct vgpu_msg msg;
    ssize_t n = receive_datagram(c);
    int rc;

    if (n == -EAGAIN) {
        return false;
    }
    if (n == -EBADMSG) {
        drop_loudly(c, "protocol error of the mediator",
                    "a message that is too long or carries file descriptors");
        return false;
    }
    if (n <= 0) {
        drop(c, n < 0 ? strerror((int)-n) : NULL);
        return false;
    }
    memset(&msg, 0, sizeof(msg));
    memcpy(&msg, c->buffer, MIN((size_t)n, sizeof(msg)));
    trace_vgpu_stub_receive(msg.type, (uint32_t)n, msg.epoch);
    rc = vgpu_relay_receive(c->relay, c->buffer, (size_t)n, why);
    if (rc == 0) {
        return true;
    }
    drop_loudly(c,
                rc == VGPU_RELAY_E_REFUSED ? "refused by the mediator"
                                           : "protocol error of the mediator",
                why);
    return false;
}

static void on_readable(void *opaque)
{
    struct vgpu_chan *c = opaque;
    int budget = BUDGET_LOOP;

    while (budget-- > 0 && receive_one(c)) {
    }
    c->on_change(c->opaque);
}

/* ---- connecting ---------------------------------------------------------------------------- */

/* Return: a connected non-blocking socket, or -errno. A Unix socket connects at once or not. */
static int connect_to(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int bytes = SEND_BUFFER_BYTES;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return -errno;
    }
    g_strlcpy(addr.sun_path, path, sizeof(addr.sun_path));
    if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
        int err = errno;

        close(fd);
        return -err;
    }
    /* As much as the system allows; its default is enough too. */
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    return fd;
}

static void try_connect(void *opaque)
{
    struct vgpu_chan *c = opaque;
    int fd = connect_to(c->path);

    trace_vgpu_stub_connect(c->path, fd < 0 ? -fd : 0);
    if (fd < 0) {
        schedule_retry(c);
        return;
    }
    c->fd = fd;
    c->since_ms = vgpu_chan_now_ms();
    qemu_set_fd_handler(fd, on_readable, NULL, c);
    vgpu_relay_connected(c->relay);
    send_some(c, BUDGET_LOOP);
    c->on_change(c->opaque);
}

struct vgpu_chan *vgpu_chan_new(const char *path, struct vgpu_relay *relay, uint32_t retry_max_ms,
                                void (*on_change)(void *opaque), void *opaque)
{
    struct vgpu_chan *c = g_new0(struct vgpu_chan, 1);

    c->path = g_strdup(path);
    c->relay = relay;
    c->on_change = on_change;
    c->opaque = opaque;
    c->fd = -1;
    c->retry_ms = RETRY_FIRST_MS;
    c->retry_max_ms = MAX(retry_max_ms, RETRY_FIRST_MS);
    c->retry = timer_new_ms(QEMU_CLOCK_REALTIME, try_connect, c);
    timer_mod(c->retry, (int64_t)vgpu_chan_now_ms());
    return c;
}

void vgpu_chan_free(struct vgpu_chan *c)
{
    if (c == NULL) {
        return;
    }
    if (c->fd >= 0) {
        qemu_set_fd_handler(c->fd, NULL, NULL, NULL);
        close(c->fd);
    }
    timer_del(c->retry);
    timer_free(c->retry);
    g_free(c->path);
    g_free(c);
}

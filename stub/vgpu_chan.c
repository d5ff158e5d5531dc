/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See vgpu_chan.h. */
#include "vgpu_compat.h"

#include <glib-unix.h>
#include <sys/un.h>

#include "vgpu_chan.h"
#include "vgpu_trace.h"

#define RETRY_FIRST_MS 20u
#define SEND_BUFFER_BYTES (512 * 1024)
/* Messages per wake-up, so that one device cannot hold the main loop: about 1 MiB each way. */
#define BUDGET_LOOP 16
/* In a vCPU's exit: enough for a request without bulk to leave at once. */
#define BUDGET_KICK 2
/* After so long the operator hears that a process still holds the memory of a connection that ended. */
#define WRITERS_PATIENCE_MS 5000
/* After so long the operator hears that nobody serves the socket. */
#define ALONE_PATIENCE_MS 5000
/* So many connections in a row that end without an answer are no accident. */
#define TURNED_AWAY_MAX 3
#define FDS_MAX VGPU_HELLO_FDS(VGPU_RINGS_MAX)

struct vgpu_chan {
    char *path;
    struct vgpu_relay *relay;
    void (*on_change)(void *opaque);
    void *opaque;
    int fd; /* -1: not connected */
    bool waiting_to_write;
    /* of the shm data path; otherwise 0 and -1 */
    size_t n_fds;
    int fds[FDS_MAX];    /* the write end of the pipe among them, until HELLO is sent */
    int writers;         /* the read end, until it has hung up */
    QEMUTimer *patience; /* runs while only the pipe is waited for */
    QEMUTimer *retry;
    uint32_t retry_ms;
    uint32_t retry_max_ms;
    uint64_t since_ms;                 /* when this connection was made */
    uint64_t alone_ms;                 /* since when connecting fails; 0: it does not */
    bool said_alone;                   /* the operator was told */
    unsigned turned_away;              /* connections that ended without an answer, in a row */
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

/* ---- the writers' pipe --------------------------------------------------------------------- */

static void close_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

/* Return: 0; -errno. On the socket data path there is nothing to do. */
static int open_writers(struct vgpu_chan *c)
{
    int ends[2];

    if (c->n_fds == 0) {
        return 0;
    }
    if (!g_unix_open_pipe(ends, FD_CLOEXEC, NULL)) {
        return -errno;
    }
    g_unix_set_fd_nonblocking(ends[0], TRUE, NULL);
    c->writers = ends[0];
    c->fds[VGPU_HELLO_FD_WRITERS] = ends[1];
    return 0;
}

static void close_writers(struct vgpu_chan *c)
{
    if (c->n_fds != 0) {
        close_fd(&c->fds[VGPU_HELLO_FD_WRITERS]);
    }
    if (c->writers >= 0) {
        qemu_set_fd_handler(c->writers, NULL, NULL, NULL);
        close_fd(&c->writers);
    }
    timer_del(c->patience);
}

/* The connection has ended; the pipe can be read, or has hung up. */
static void on_writers(void *opaque)
{
    struct vgpu_chan *c = opaque;
    char nobody_should_write[256];
    ssize_t n = read(c->writers, nobody_should_write, sizeof(nobody_should_write));

    if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR))) {
        return;
    }
    trace_vgpu_stub_writers(c->path, 0);
    close_writers(c);
    vgpu_relay_writers_gone(c->relay);
    schedule_retry(c);
    c->on_change(c->opaque);
}

static void on_impatient(void *opaque)
{
    struct vgpu_chan *c = opaque;

    warn_report(
        "vgpu-stub: the connection to %s has ended, but a process of its mediator or workers "
        "still holds the memory of the VM; the VM runs on, the device waits until that process "
        "has ended or let go",
        c->path);
}

/* Nobody else may write to the memory of a new connection. */
static void wait_for_writers(struct vgpu_chan *c)
{
    close_fd(&c->fds[VGPU_HELLO_FD_WRITERS]);
    trace_vgpu_stub_writers(c->path, 1);
    qemu_set_fd_handler(c->writers, on_writers, NULL, c);
    timer_mod(c->patience, (int64_t)vgpu_chan_now_ms() + WRITERS_PATIENCE_MS);
}

/* ---- ending a connection ------------------------------------------------------------------- */

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
    if (c->writers >= 0) {
        wait_for_writers(c);
    } else {
        schedule_retry(c);
    }
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

/* The mediator has closed the connection, or it broke. */
static void peer_closed(struct vgpu_chan *c, int err)
{
    if (c->relay->link != VGPU_RELAY_HELLO) {
        c->turned_away = 0;
    } else if (++c->turned_away == TURNED_AWAY_MAX) {
        warn_report(
            "vgpu-stub: the mediator at %s closes the connection without an answer; its log "
            "may say why. One that is older than this device takes datapath=socket only; the "
            "VM runs on, trying again",
            c->path);
    }
    drop(c, err != 0 ? strerror(err) : NULL);
}

/* A mediator that only starts later is nothing to speak of. */
static void connect_failed(struct vgpu_chan *c, int err)
{
    bool absent = err == ENOENT || err == ECONNREFUSED || err == EAGAIN;
    uint64_t now_ms = vgpu_chan_now_ms();

    if (c->alone_ms == 0) {
        c->alone_ms = now_ms;
    }
    if (!c->said_alone && (!absent || now_ms - c->alone_ms >= ALONE_PATIENCE_MS)) {
        warn_report("vgpu-stub: nobody serves %s: %s; the VM runs on, trying again", c->path,
                    strerror(err));
        c->said_alone = true;
    }
    schedule_retry(c);
}

/* ---- sending ------------------------------------------------------------------------------- */

/* The descriptors that go with HELLO; @control has room for FDS_MAX. */
static void attach_fds(const struct vgpu_chan *c, struct msghdr *msg, void *control)
{
    struct cmsghdr *cmsg;

    msg->msg_control = control;
    msg->msg_controllen = CMSG_SPACE(c->n_fds * sizeof(int));
    cmsg = CMSG_FIRSTHDR(msg);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(c->n_fds * sizeof(int));
    memcpy(CMSG_DATA(cmsg), c->fds, c->n_fds * sizeof(int));
}

static ssize_t send_frame(struct vgpu_chan *c, struct vgpu_frame *f)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
    } control = {.bytes = {0}};
    struct iovec iov[2] = {
        {.iov_base = &f->head, .iov_len = f->head_len},
        {.iov_base = (void *)f->body, .iov_len = f->body_len},
    };
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = f->body_len ? 2 : 1};
    ssize_t n;

    if (f->head.msg.type == VGPU_MSG_HELLO && c->n_fds != 0) {
        attach_fds(c, &msg, &control);
    }
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
        if (frame.head.msg.type == VGPU_MSG_HELLO && c->n_fds != 0) {
            close_fd(&c->fds[VGPU_HELLO_FD_WRITERS]);
        }
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
        peer_closed(c, (int)-n);
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
    int rc = fd < 0 ? fd : open_writers(c);

    trace_vgpu_stub_connect(c->path, -rc);
    if (rc < 0) {
        if (fd >= 0) {
            close(fd);
        }
        connect_failed(c, -rc);
        return;
    }
    c->alone_ms = 0;
    c->said_alone = false;
    c->fd = fd;
    c->since_ms = vgpu_chan_now_ms();
    qemu_set_fd_handler(fd, on_readable, NULL, c);
    vgpu_relay_connected(c->relay);
    send_some(c, BUDGET_LOOP);
    c->on_change(c->opaque);
}

struct vgpu_chan *vgpu_chan_new(const char *path, struct vgpu_relay *relay, const int *fds,
                                uint32_t retry_max_ms, void (*on_change)(void *opaque),
                                void *opaque)
{
    struct vgpu_chan *c = g_new0(struct vgpu_chan, 1);

    c->path = g_strdup(path);
    c->relay = relay;
    c->on_change = on_change;
    c->opaque = opaque;
    c->fd = -1;
    c->writers = -1;
    if (fds != NULL) {
        c->n_fds = VGPU_HELLO_FDS(relay->bar0->config.layout.rings);
        memcpy(c->fds, fds, c->n_fds * sizeof(*fds));
        c->fds[VGPU_HELLO_FD_WRITERS] = -1;
    }
    c->patience = timer_new_ms(QEMU_CLOCK_REALTIME, on_impatient, c);
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
    close_writers(c);
    timer_free(c->patience);
    timer_del(c->retry);
    timer_free(c->retry);
    g_free(c->path);
    g_free(c);
}

/* SPDX-License-Identifier: MIT */
#include "common/msgconn.h"

#include <string.h>
#include <sys/socket.h>

static void on_ready(uv_poll_t *poll, int status, int events);

static void update_events(struct msgconn *c)
{
    int events = UV_READABLE | (seqpacket_pending(&c->sp) ? UV_WRITABLE : 0);

    if (c->open && events != c->events) {
        c->events = events;
        uv_poll_start(&c->poll, events, on_ready);
    }
}

static void end(struct msgconn *c, const char *why, bool bad)
{
    if (!c->open || c->ended) {
        return;
    }
    c->ended = true;
    uv_poll_stop(&c->poll);
    c->ops->on_end(c, why, bad);
}

static void on_writable(struct msgconn *c)
{
    bool had = seqpacket_pending(&c->sp);
    int r = seqpacket_flush(&c->sp);

    if (r < 0) {
        end(c, strerror(-r), false);
        return;
    }
    if (had && !seqpacket_pending(&c->sp) && c->ops->on_drained) {
        c->ops->on_drained(c);
    }
}

static void end_of_input(struct msgconn *c, int r)
{
    if (c->overflowed) {
        end(c, "the peer does not read its messages", true);
    } else if (r == SEQPACKET_E_BAD) {
        end(c, seqpacket_wrong(&c->sp), true);
    } else if (r == SEQPACKET_E_CLOSED) {
        end(c, "the peer closed the connection", false);
    } else {
        end(c, strerror(-r), false);
    }
}

/* At most @budget messages. Return: whether there may be more. */
static bool read_messages(struct msgconn *c, int budget)
{
    struct seqpacket_buffer buffer;
    struct seqpacket_message message;

    for (int i = 0; i < budget && c->open && !c->ended; i++) {
        int r = seqpacket_receive(&c->sp, &buffer, &message);

        if (r == SEQPACKET_E_AGAIN) {
            return false;
        }
        if (r != 0) {
            end_of_input(c, r);
            return false;
        }
        c->ops->on_message(c, &message);
        seqpacket_close_fds(&message);
    }
    return c->open && !c->ended;
}

void msgconn_read_all(struct msgconn *c)
{
    while (read_messages(c, MSGCONN_BUDGET)) {
    }
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
    struct msgconn *c = poll->data;

    if (status < 0) {
        /* EPOLLERR without more to say: reading tells what happened. */
        events = UV_READABLE;
    }
    if (events & UV_WRITABLE) {
        on_writable(c);
    }
    if (c->open && !c->ended && (events & UV_READABLE)) {
        read_messages(c, MSGCONN_BUDGET);
    }
    if (c->open && !c->ended) {
        if (status < 0) {
            c->events = 0; /* libuv stopped the handle */
        }
        update_events(c);
    }
}

int msgconn_open(struct msgconn *c, uv_loop_t *loop, int fd, enum msgcheck_from from,
                 const struct msgconn_ops *ops, void *user)
{
    int r = seqpacket_init(&c->sp, fd, from);

    if (r < 0) {
        return r;
    }
    r = uv_poll_init(loop, &c->poll, fd);
    if (r < 0) {
        c->sp.fd = -1;
        return r;
    }
    c->ops = ops;
    c->user = user;
    c->poll.data = c;
    c->open = true;
    c->ended = c->overflowed = false;
    c->events = 0;
    update_events(c);
    return 0;
}

int msgconn_send(struct msgconn *c, const struct vgpu_msg *msg, size_t fixed_bytes,
                 const void *tail)
{
    return msgconn_send_fds(c, msg, fixed_bytes, tail, NULL, 0);
}

int msgconn_send_fds(struct msgconn *c, const struct vgpu_msg *msg, size_t fixed_bytes,
                     const void *tail, const int *fds, unsigned n_fds)
{
    int r;

    if (!c->open) {
        return SEQPACKET_E_CLOSED;
    }
    r = seqpacket_send(&c->sp, msg, fixed_bytes, tail, fds, n_fds);
    if (r == SEQPACKET_E_FULL || r < 0) {
        /* Makes the socket readable, so that the loop finds the end. */
        c->overflowed = r == SEQPACKET_E_FULL;
        shutdown(c->sp.fd, SHUT_RDWR);
    }
    if (!c->ended) {
        update_events(c);
    }
    return r;
}

bool msgconn_pending(const struct msgconn *c)
{
    return c->open && seqpacket_pending(&c->sp);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct msgconn *c = handle->data;

    if (c->on_closed) {
        c->on_closed(c);
    }
}

void msgconn_close(struct msgconn *c, void (*on_closed)(struct msgconn *c))
{
    if (!c->open) {
        return;
    }
    c->open = false;
    c->on_closed = on_closed;
    uv_close((uv_handle_t *)&c->poll, on_handle_closed);
    seqpacket_fini(&c->sp);
}

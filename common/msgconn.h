/* SPDX-License-Identifier: MIT */
/*
 * msgconn - a seqpacket connection in a libuv loop
 *
 * Reads while there is something to read, at most MSGCONN_BUDGET messages per turn of the loop, so
 * that no peer starves the others; sends at once when the socket takes it, else when it becomes
 * writable.
 *
 * End of a connection: on_end() is called once, with the reason, when the peer closed, broke the
 * protocol or does not read (outgoing queue full). What the peer had sent before it closed is
 * delivered first. The owner answers with msgconn_close(); it may also call msgconn_close() at any
 * other time, even inside a callback. Storage may be freed in on_closed().
 */
#ifndef VGPU_MSGCONN_H
#define VGPU_MSGCONN_H

#include <uv.h>

#include "common/seqpacket.h"

#define MSGCONN_BUDGET 32

struct msgconn;

struct msgconn_ops {
    /* A well-formed message; descriptors that the callee does not take are closed after it. */
    void (*on_message)(struct msgconn *c, struct seqpacket_message *message);
    /* Everything that waited was sent. May be NULL. */
    void (*on_drained)(struct msgconn *c);
    /* No more messages will come. @why: a sentence; @bad: the peer broke the protocol. */
    void (*on_end)(struct msgconn *c, const char *why, bool bad);
};

/* Caller's storage, zeroed before msgconn_open(). */
struct msgconn {
    struct seqpacket sp;
    const struct msgconn_ops *ops;
    void *user; /* the owner's */
    void (*on_closed)(struct msgconn *c);
    uv_poll_t poll;
    int events;      /* that we poll for */
    bool open;       /* between msgconn_open() and msgconn_close() */
    bool overflowed; /* the outgoing queue was full */
    bool ended;      /* on_end() was called */
};

/**
 * msgconn_open() - start to serve a connected socket
 * @fd: taken, on success
 *
 * Return: 0, or -errno (nothing to close then).
 */
int msgconn_open(struct msgconn *c, uv_loop_t *loop, int fd, enum msgcheck_from from,
                 const struct msgconn_ops *ops, void *user);

/**
 * msgconn_send() - send or queue one message without descriptors (arguments as seqpacket_send())
 *
 * A full queue ends the connection (on_end() follows from the loop, not from here); a closed peer
 * is reported the same way.
 *
 * Return: 0, or the reason as seqpacket_send(); most callers need not look at it.
 */
int msgconn_send(struct msgconn *c, const struct vgpu_msg *msg, size_t fixed_bytes,
                 const void *tail);

/** msgconn_send_fds() - the same with descriptors, which stay the caller's */
int msgconn_send_fds(struct msgconn *c, const struct vgpu_msg *msg, size_t fixed_bytes,
                     const void *tail, const int *fds, unsigned n_fds);

/** msgconn_pending() - whether messages wait for the socket to become writable */
bool msgconn_pending(const struct msgconn *c);

/** msgconn_read_all() - deliver what the peer, which is known to be dead, has sent; on_end() included */
void msgconn_read_all(struct msgconn *c);

/**
 * msgconn_close() - close the socket now; @on_closed (may be NULL) runs when the loop let go of it
 *
 * On a connection that is not open it does nothing and @on_closed is not called.
 */
void msgconn_close(struct msgconn *c, void (*on_closed)(struct msgconn *c));

#endif

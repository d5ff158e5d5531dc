/* SPDX-License-Identifier: MIT */
/*
 * seqpacket - local messages with file descriptors over an AF_UNIX SOCK_SEQPACKET socket
 *
 * Never blocks, knows no event loop (msgconn.h puts one around it). A message that cannot be sent at
 * once is copied to an outgoing queue that is bounded in messages and bytes. Every received message
 * has passed msgcheck_message(); after SEQPACKET_E_BAD the caller closes the connection and logs
 * seqpacket_wrong().
 *
 * Received file descriptors are close-on-exec. Those of a bad message are closed here; those of a good
 * one are the receiver's: seqpacket_take_fd() for the ones it keeps, seqpacket_close_fds() for the rest.
 */
#ifndef VGPU_SEQPACKET_H
#define VGPU_SEQPACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/msgcheck.h"
#include "proto/vgpu_local.h"

enum {
    SEQPACKET_E_AGAIN = 1, /* nothing to read now */
    SEQPACKET_E_CLOSED,    /* the peer closed the connection, or died */
    SEQPACKET_E_BAD,       /* not a well-formed message: seqpacket_wrong() says why */
    SEQPACKET_E_FULL,      /* the outgoing queue is at its limit: the peer does not read */
};

/* Bounds of the outgoing queue unless the caller sets others. */
#define SEQPACKET_QUEUE_MESSAGES 4096u
#define SEQPACKET_QUEUE_BYTES (4u << 20)

struct seqpacket_queued; /* a message that waits to be sent */

/* Caller's storage; read the counters, leave the rest alone. */
struct seqpacket {
    int fd;
    enum msgcheck_from from; /* who sends what we receive */
    struct seqpacket_queued *head, **tail;
    uint32_t queued;       /* messages waiting */
    size_t queued_bytes;   /* bytes of them */
    uint32_t max_messages; /* bounds of the queue */
    size_t max_bytes;
    uint64_t sent, received; /* messages */
    uint64_t refused;        /* messages that found the queue full */
    const char *wrong;
};

/* A HELLO with the most rings has the most descriptors. */
#define SEQPACKET_FDS_MAX VGPU_HELLO_FDS(VGPU_RINGS_MAX)

/* A received message. */
struct seqpacket_message {
    const struct vgpu_msg *msg; /* in the caller's buffer */
    size_t length;              /* bytes of it */
    unsigned n_fds;
    int fds[SEQPACKET_FDS_MAX]; /* n_fds of them; -1: taken */
};

/* A buffer for one message, aligned for all of them. */
struct seqpacket_buffer {
    _Alignas(64) uint8_t bytes[VGPU_MSG_MAX];
};

/**
 * seqpacket_init() - take over a connected socket
 * @sp:   caller's storage
 * @fd:   the socket; taken: seqpacket_fini() closes it. It is made non-blocking and close-on-exec.
 * @from: who sends the messages that will be received here
 *
 * Return: 0, or -errno (then @fd is not taken).
 */
int seqpacket_init(struct seqpacket *sp, int fd, enum msgcheck_from from);

/** seqpacket_fini() - close the socket and drop what waits in the queue; may be called twice */
void seqpacket_fini(struct seqpacket *sp);

/**
 * seqpacket_start() - fill in the header of a message of @type and @length bytes (zeroed before)
 * @epoch: VM socket: the epoch of the device life; elsewhere 0
 */
void seqpacket_start(struct vgpu_msg *msg, uint16_t type, size_t length, uint32_t epoch);

/**
 * seqpacket_send() - send one message, or queue it
 * @msg:         its fixed part, msg->length set to the whole length
 * @fixed_bytes: size of the fixed part
 * @tail:        the rest (msg->length - fixed_bytes bytes), or NULL
 * @fds:         n_fds descriptors to pass along (duplicated when the message must wait)
 *
 * Return: 0 sent or queued; SEQPACKET_E_FULL dropped; SEQPACKET_E_CLOSED; -errno.
 */
int seqpacket_send(struct seqpacket *sp, const struct vgpu_msg *msg, size_t fixed_bytes,
                   const void *tail, const int *fds, unsigned n_fds);

/** seqpacket_pending() - whether messages wait for the socket to become writable */
bool seqpacket_pending(const struct seqpacket *sp);

/**
 * seqpacket_flush() - send what waits, as far as the socket takes it
 *
 * Return: 0 (see seqpacket_pending()); SEQPACKET_E_CLOSED; -errno.
 */
int seqpacket_flush(struct seqpacket *sp);

/**
 * seqpacket_receive() - read one message
 * @buffer:      where its bytes go
 * @ret_message: the message, valid as long as @buffer is; counts only on 0
 *
 * Return: 0; SEQPACKET_E_AGAIN, SEQPACKET_E_CLOSED, SEQPACKET_E_BAD; -errno.
 */
int seqpacket_receive(struct seqpacket *sp, struct seqpacket_buffer *buffer,
                      struct seqpacket_message *ret_message);

/** seqpacket_take_fd() - descriptor @i, which is the caller's from now on; -1 when there is none */
int seqpacket_take_fd(struct seqpacket_message *message, unsigned i);

/** seqpacket_close_fds() - close the descriptors that were not taken */
void seqpacket_close_fds(struct seqpacket_message *message);

/** seqpacket_wrong() - what was wrong with the last bad message: a static sentence */
const char *seqpacket_wrong(const struct seqpacket *sp);

#endif

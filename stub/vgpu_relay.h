/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vgpu_relay - the stub's side of the VM socket (proto/vgpu_local.h), without the socket
 *
 * Pure: no QEMU types, no clock, no I/O. It decides which message goes out next and what an incoming
 * one means; vgpu_chan.c moves the datagrams. Nothing is queued: what is still to be said is a few
 * flags and a cursor into the buffers of the one window request, so output is bounded however slowly
 * the mediator reads, and ARENA bytes go straight from the arena to the socket.
 *
 * With rings in the layout of BAR 2 the data path is shm: HELLO offers the memory, no DATA goes either
 * way, and other processes write to the arena. From HELLO on somebody may (`writers`), until
 * vgpu_relay_writers_gone(). So long a request with ARENA outputs that was sent ends only by RESPONSE,
 * and a reset only by RESET_ACK. Without rings nobody but this file writes there:
 *
 * ARENA outputs are written only for the request in flight, only after it was sent on this
 * connection, in order, and only inside the OUT ranges of its validated copy. A message of another
 * epoch or sequence is late and dropped; anything else out of place ends the connection.
 *
 * Invariants: vgpu_relay_check().
 */
#ifndef VGPU_RELAY_H
#define VGPU_RELAY_H

#include <stddef.h>

#include "proto/vgpu_local.h"
#include "vgpu_bar0.h"

enum {
    VGPU_RELAY_E_PROTOCOL = 1, /* the mediator broke the protocol: drop the connection */
    VGPU_RELAY_E_REFUSED,      /* it refused this VM: drop the connection, try again later */
};
#define VGPU_RELAY_WHY_MAX 256u

enum vgpu_relay_link {
    VGPU_RELAY_DOWN,  /* not connected */
    VGPU_RELAY_HELLO, /* connected, HELLO_ACK not seen yet */
    VGPU_RELAY_UP,
};

/* A place in the ARENA buffers of one direction of the request; index == nbufs: past the end. */
struct vgpu_cursor {
    uint32_t index;
    uint64_t offset;
};

struct vgpu_relay_config {
    uint8_t uuid[16];
    uint64_t boot_id;
    uint32_t pool_wish;
};

struct vgpu_relay {
    struct vgpu_bar0 *bar0;
    uint8_t *shm;   /* BAR 2 */
    uint8_t *arena; /* in it */
    struct vgpu_relay_config config;
    enum vgpu_relay_link link;
    uint32_t conn_gen;
    uint64_t mediator_gen;
    bool writers; /* shm: somebody outside may write to BAR 2 */
    bool say_hello;
    bool say_reset;
    bool say_wish;
    uint64_t cancel_seq; /* 0: no CANCEL to send */
    uint32_t cancel_reason;
    /* of the request in flight */
    uint64_t deadline_ms; /* on the caller's clock */
    bool sent;            /* on this connection */
    bool sent_before;     /* on an earlier one */
    bool accepted;
    bool exposed;            /* shm: a writer may have it, and it has ARENA outputs */
    uint32_t given_up;       /* error that ends it when no writer is left; 0: none */
    struct vgpu_cursor in;   /* next input bytes to send */
    struct vgpu_cursor out;  /* next output bytes to receive */
    enum vgpu_msg_type next; /* what vgpu_relay_next() offered */
    uint32_t next_bytes;
};

/* One outgoing message: a head, then bytes that lie elsewhere and stay valid until the next call. */
struct vgpu_frame {
    union {
        struct vgpu_msg msg;
        struct vgpu_hello hello;
        struct vgpu_request request;
        struct vgpu_data data;
        struct vgpu_cancel_msg cancel;
        struct vgpu_reset reset;
        struct vgpu_wish wish;
    } head;
    size_t head_len;
    const void *body;
    size_t body_len;
};

/**
 * vgpu_relay_init() - a relay that is not connected
 * @bar0: the registers that it serves; outlives it
 * @shm:  BAR 2, divided as the layout in @bar0 says; outlives it
 */
void vgpu_relay_init(struct vgpu_relay *r, const struct vgpu_relay_config *config,
                     struct vgpu_bar0 *bar0, void *shm);

/** vgpu_relay_shm() - whether the data path is shm */
static inline bool vgpu_relay_shm(const struct vgpu_relay *r)
{
    return r->bar0->config.layout.rings != 0;
}

/** vgpu_relay_connected() - a new connection is open */
void vgpu_relay_connected(struct vgpu_relay *r);

/** vgpu_relay_disconnected() - it is gone; the request in flight waits for the next one */
void vgpu_relay_disconnected(struct vgpu_relay *r);

/**
 * vgpu_relay_writers_gone() - nobody outside can write to BAR 2 any more
 *
 * After vgpu_relay_disconnected() and before the next vgpu_relay_connected(). Ends what waited for it:
 * a request that was given up, a reset.
 */
void vgpu_relay_writers_gone(struct vgpu_relay *r);

/** vgpu_relay_submit() - serve VGPU_BAR0_SUBMIT; @now_ms is the time of the doorbell */
void vgpu_relay_submit(struct vgpu_relay *r, uint64_t now_ms);

/**
 * vgpu_relay_give_up() - end the request in flight with @error and tell the mediator
 * @error: VGPU_E_CANCELLED or VGPU_E_DEADLINE; the latter becomes NO_BACKEND for the guest when no
 *         mediator is there
 *
 * While somebody may still write to its outputs it stays BUSY; the mediator's RESPONSE ends it, or
 * vgpu_relay_writers_gone().
 */
void vgpu_relay_give_up(struct vgpu_relay *r, uint32_t error);

/** vgpu_relay_expire() - give the request in flight up if its deadline has passed */
void vgpu_relay_expire(struct vgpu_relay *r, uint64_t now_ms);

/** vgpu_relay_waits() - whether the request in flight has a deadline that is still to come */
static inline bool vgpu_relay_waits(const struct vgpu_relay *r)
{
    return vgpu_bar0_busy(r->bar0) && r->given_up == VGPU_E_OK;
}

/**
 * vgpu_relay_reset() - new life: reset the registers, zero the rings' pages, tell the mediator
 *
 * The caller drains the kicks before it sends anything.
 */
void vgpu_relay_reset(struct vgpu_relay *r);

/** vgpu_relay_wish() - tell the mediator the band that the guest wishes for */
void vgpu_relay_wish(struct vgpu_relay *r);

/**
 * vgpu_relay_next() - the message to send next
 * @ret: the message; written only when true is returned
 *
 * It stays the next one until vgpu_relay_sent() says that it went out.
 *
 * Return: whether there is one.
 */
bool vgpu_relay_next(struct vgpu_relay *r, uint64_t now_ms, struct vgpu_frame *ret);

/** vgpu_relay_sent() - the message that vgpu_relay_next() returned last went out */
void vgpu_relay_sent(struct vgpu_relay *r);

/**
 * vgpu_relay_receive() - take one datagram
 * @bytes: private copy, 8-byte aligned
 * @len:   exactly its bytes
 * @why:   VGPU_RELAY_WHY_MAX bytes for a sentence; written only when not 0 is returned
 *
 * Return: 0; VGPU_RELAY_E_PROTOCOL; VGPU_RELAY_E_REFUSED.
 */
int vgpu_relay_receive(struct vgpu_relay *r, const void *bytes, size_t len, char *why);

/** vgpu_relay_check() - 0 when the invariants hold, else a negative number naming the broken one */
int vgpu_relay_check(const struct vgpu_relay *r);

#endif

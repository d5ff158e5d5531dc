/* SPDX-License-Identifier: MIT */
/*
 * transport - how requests reach a device and responses come back
 *
 * Two implementations: the rings of BAR 2 (ringpath.c) and the windows of BAR 0 (window.c). A kernel
 * driver is a further one; everything above knows only this interface.
 *
 * Calls come from one thread at a time (queue.c: the driving thread). A transport never sleeps. A
 * request is known by its tag, which is unique among those in flight.
 */
#ifndef GUEST_TRANSPORT_H
#define GUEST_TRANSPORT_H

#include <stdint.h>

#include "common/core/ranges.h"
#include "guest/include/vgpu.h"

enum {
    TRANSPORT_E_WAIT = 1, /* not now; try again soon */
    TRANSPORT_E_REFUSED,  /* the device does not take this request; *ret_error says why */
    TRANSPORT_E_DONE,     /* a request ended */
    TRANSPORT_E_BROKEN,   /* the device is broken: nothing in flight ends before it is reset */
};

struct transport_limits {
    unsigned depth;       /* requests in flight at a time */
    uint32_t request_max; /* bytes of a request */
    uint32_t payload_max; /* bytes of INLINE outputs */
    uint32_t inline_best; /* a longer buffer is better off in the arena, if there is one */
    uint8_t *arena;       /* NULL: there is none */
    uint64_t arena_bytes;
};

struct transport_done {
    uint64_t tag;
    uint32_t error; /* enum vgpu_error; counts when there is no response */
    uint32_t len;   /* bytes of the response; 0: none */
    const uint8_t
        *bytes;      /* the response, valid until the next call. The device may still change it:
                           * ring_copy_in() first, then look */
    const char *why; /* TRANSPORT_E_BROKEN: what happened; otherwise NULL */
};

struct transport;

struct transport_ops {
    /* Room for the bytes of the next request, limits.request_max of them; only to be written. The
     * same again until start(). 0; TRANSPORT_E_WAIT; TRANSPORT_E_REFUSED; -errno, the device is
     * unusable. */
    int (*reserve)(struct transport *t, uint64_t now_ns, uint8_t **ret_bytes, uint32_t *ret_error);
    /* Start the request in the reserved room. 0; TRANSPORT_E_WAIT, reserve again;
     * TRANSPORT_E_REFUSED. The device need not see it before flush(). */
    int (*start)(struct transport *t, uint64_t tag, uint32_t len, uint32_t *ret_error);
    /* Show the device all that was started and cancelled. */
    void (*flush)(struct transport *t);
    /* Look for one that ended. 0: none; TRANSPORT_E_DONE; TRANSPORT_E_BROKEN, said once;
     * -errno, the device is unusable. */
    int (*poll)(struct transport *t, uint64_t now_ns, struct transport_done *ret);
    /* Ask the device to end a request early. It still ends by poll(). */
    void (*cancel)(struct transport *t, uint64_t tag);
    /* The library gave a request up: bring it to an end by every means. It still ends by poll(). */
    void (*abandon)(struct transport *t, uint64_t tag, uint64_t now_ns);
    /* Nobody will call for a while: hold nothing that others wait for. */
    void (*pause)(struct transport *t);
    /* Start a device reset (0 or TRANSPORT_E_WAIT); then whether it is over. */
    int (*reset)(struct transport *t, uint64_t now_ns);
    int (*reset_done)(struct transport *t);
    /* What was last seen of the device. */
    enum vgpu_state (*state)(struct transport *t, uint64_t now_ns);
    /* Deadline of a request that asks for none, at this moment, milliseconds; not 0. */
    uint32_t (*deadline_ms)(struct transport *t);
    /* Read the registers. May be called by any thread. 0 or -ENODEV. */
    int (*describe)(struct transport *t, struct vgpu_device *ret);
    /* Make a part of the arena this process's own: @want_bytes, or more. 0 or RANGES_E_FULL. May be
     * called by any thread, one at a time. */
    int (*claim)(struct transport *t, uint64_t want_bytes, struct ranges_span *ret);
    void (*unclaim)(struct transport *t, const struct ranges_span *span);
    void (*close)(struct transport *t);
};

struct transport {
    const struct transport_ops *ops;
    struct transport_limits limits;
};

#endif

/* SPDX-License-Identifier: MIT */
/* window.c - see window.h */
#include <errno.h>
#include <stdio.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "guest/lib/devlock.h"
#include "guest/lib/err.h"
#include "guest/lib/window.h"

#define CANCEL_GRACE_NS (1 * CLOCK_NS_PER_S) /* from a cancel that was to work, to a reset */
#define IN_USE_NS (CLOCK_NS_PER_S / 2)       /* shorter waits for other processes are not news */
#define INLINE_BEST 256u /* a word of the window costs an exit of the VM, the arena does not */

struct window {
    struct transport t; /* first */
    struct place place;
    struct devlock lock;
    atomic_bool settled; /* the lock is held and no stale request is left */
    bool active;         /* a request of ours is in flight */
    bool given_up;       /* nobody wants its response any more */
    bool reset_sent;
    uint64_t tag;          /* of it */
    uint64_t cancel_ns;    /* a cancel that has to work was written then; 0: none */
    uint64_t lock_wait_ns; /* waiting for the lock since; 0: not waiting */
    uint32_t status;       /* as last read */
    uint8_t request[VGPU_WINDOW_SIZE];
    _Alignas(8) uint8_t response[VGPU_WINDOW_SIZE];
};

static struct window *window_of(struct transport *t)
{
    return (struct window *)t;
}

static uint32_t state_of(uint32_t status)
{
    return status & VGPU_STATUS_STATE_MASK;
}

static uint32_t read_status(struct window *w)
{
    w->status = mmio_read(&w->place.mmio, VGPU_REG_STATUS);
    return w->status;
}

static void unlock(struct window *w)
{
    atomic_store(&w->settled, false);
    devlock_release(&w->lock);
}

/* A request must end: cancel it, and when that does not help in time, reset the device; but not
 * while another process has requests in a ring. */
static void force_end(struct window *w, uint64_t now_ns)
{
    if (w->cancel_ns == 0) {
        mmio_write(&w->place.mmio, VGPU_REG_CONTROL, VGPU_CONTROL_CANCEL);
        w->cancel_ns = now_ns ? now_ns : 1;
    } else if (!w->reset_sent && now_ns - w->cancel_ns > CANCEL_GRACE_NS &&
               rings_enter_alone(&w->place.rings) == 0) {
        mmio_write(&w->place.mmio, VGPU_REG_CONTROL, VGPU_CONTROL_RESET);
        rings_leave(&w->place.rings);
        w->reset_sent = true;
    }
}

/* Have the lock, and a device that is ready for a request. */
static int get_ready(struct window *w, uint64_t now_ns, uint32_t *ret_error)
{
    uint32_t status;

    if (devlock_try(&w->lock) != 0) {
        w->lock_wait_ns = w->lock_wait_ns ? w->lock_wait_ns : now_ns;
        return TRANSPORT_E_WAIT;
    }
    w->lock_wait_ns = 0;
    status = read_status(w);
    if (status == PLACE_GONE) {
        return -ENODEV;
    }
    if (status & VGPU_STATUS_BROKEN) {
        *ret_error = VGPU_E_BROKEN;
        return TRANSPORT_E_REFUSED;
    }
    if (status & VGPU_STATUS_RESETTING) {
        return TRANSPORT_E_WAIT;
    }
    if (state_of(status) == VGPU_STATUS_BUSY) {
        force_end(w, now_ns); /* its process is gone: it would hold the lock */
        return TRANSPORT_E_WAIT;
    }
    w->cancel_ns = 0;
    w->reset_sent = false;
    atomic_store(&w->settled, true);
    return 0;
}

static int window_reserve(struct transport *t, uint64_t now_ns, uint8_t **ret_bytes,
                          uint32_t *ret_error)
{
    struct window *w = window_of(t);
    int r;

    if (w->active) {
        return TRANSPORT_E_WAIT;
    }
    r = get_ready(w, now_ns, ret_error);
    if (r) {
        if (r != TRANSPORT_E_WAIT) {
            unlock(w);
        }
        return r;
    }
    *ret_bytes = w->request;
    return 0;
}

static int window_start(struct transport *t, uint64_t tag, uint32_t len, uint32_t *ret_error)
{
    struct window *w = window_of(t);
    const struct mmio *m = &w->place.mmio;
    uint32_t rejects;

    mmio_copy_to(m, VGPU_WINDOW_REQUEST, w->request, len);
    mmio_write(m, VGPU_REG_REQUEST_LEN, len);
    rejects = mmio_read(m, VGPU_REG_REJECTS);
    mmio_barrier();
    mmio_write(m, VGPU_REG_DOORBELL, 1);
    if (mmio_read(m, VGPU_REG_REJECTS) == rejects) {
        w->active = true;
        w->given_up = false;
        w->tag = tag;
        return 0;
    }
    *ret_error = mmio_read(m, VGPU_REG_REJECT_ERROR);
    unlock(w);
    return *ret_error == VGPU_E_BUSY ? TRANSPORT_E_WAIT : TRANSPORT_E_REFUSED;
}

static void window_flush(struct transport *t)
{
    (void)t; /* start() has shown it */
}

static int finish(struct window *w, struct transport_done *ret, uint32_t error, uint32_t len)
{
    *ret = (struct transport_done){.tag = w->tag, .error = error, .len = len, .bytes = w->response};
    w->active = false;
    w->cancel_ns = 0;
    w->reset_sent = false;
    unlock(w);
    return TRANSPORT_E_DONE;
}

static int collect(struct window *w, struct transport_done *ret)
{
    const struct mmio *m = &w->place.mmio;
    uint32_t error =
        state_of(w->status) == VGPU_STATUS_DONE ? VGPU_E_OK : mmio_read(m, VGPU_REG_ERROR);
    uint32_t len = mmio_read(m, VGPU_REG_RESPONSE_LEN);

    if (error == VGPU_E_OK && state_of(w->status) != VGPU_STATUS_DONE) {
        error = VGPU_E_INTERNAL; /* ERROR without a reason */
    }
    if (len > VGPU_WINDOW_SIZE) {
        return finish(w, ret, error ? error : VGPU_E_INTERNAL, 0);
    }
    mmio_barrier();
    mmio_copy_from(m, VGPU_WINDOW_RESPONSE, w->response, len);
    return finish(w, ret, error, len);
}

static int window_poll(struct transport *t, uint64_t now_ns, struct transport_done *ret)
{
    struct window *w = window_of(t);
    uint32_t status;

    if (!w->active) {
        return 0;
    }
    status = read_status(w);
    if (status == PLACE_GONE) {
        w->active = false;
        unlock(w);
        return -ENODEV;
    }
    if (status & VGPU_STATUS_RESETTING) {
        return 0; /* some writer of the old life may be left */
    }
    switch (state_of(status)) {
    case VGPU_STATUS_BUSY:
        if (w->given_up) {
            force_end(w, now_ns);
        }
        return 0;
    case VGPU_STATUS_IDLE:
        return finish(w, ret, VGPU_E_DEVICE_RESET, 0);
    default:
        return collect(w, ret);
    }
}

static void window_cancel(struct transport *t, uint64_t tag)
{
    struct window *w = window_of(t);

    if (w->active && w->tag == tag) {
        mmio_write(&w->place.mmio, VGPU_REG_CONTROL, VGPU_CONTROL_CANCEL);
    }
}

static void window_abandon(struct transport *t, uint64_t tag, uint64_t now_ns)
{
    struct window *w = window_of(t);

    if (w->active && w->tag == tag) {
        w->given_up = true;
        force_end(w, now_ns);
    }
}

static void window_pause(struct transport *t)
{
    struct window *w = window_of(t);

    devlock_pause(&w->lock);
    w->lock_wait_ns = 0;
    if (!w->active && w->lock.held) {
        unlock(w);
    }
}

static int window_reset(struct transport *t, uint64_t now_ns)
{
    struct window *w = window_of(t);

    (void)now_ns;
    if ((!w->active && devlock_try(&w->lock) != 0) || rings_enter_alone(&w->place.rings) != 0) {
        return TRANSPORT_E_WAIT;
    }
    mmio_write(&w->place.mmio, VGPU_REG_CONTROL, VGPU_CONTROL_RESET);
    rings_leave(&w->place.rings);
    return 0;
}

static int window_reset_done(struct transport *t)
{
    struct window *w = window_of(t);
    uint32_t status = read_status(w);

    if (status == PLACE_GONE) {
        return -ENODEV;
    }
    return status & (VGPU_STATUS_RESETTING | VGPU_STATUS_BROKEN) ? TRANSPORT_E_WAIT : 0;
}

static enum vgpu_state window_state(struct transport *t, uint64_t now_ns)
{
    const struct window *w = window_of(t);

    if (w->lock_wait_ns) {
        return now_ns - w->lock_wait_ns > IN_USE_NS ? VGPU_STATE_IN_USE : VGPU_STATE_UP;
    }
    if (w->status & VGPU_STATUS_RESETTING) {
        return VGPU_STATE_RESETTING;
    }
    return w->status & VGPU_STATUS_BACKEND_UP ? VGPU_STATE_UP : VGPU_STATE_NO_BACKEND;
}

static int window_describe(struct transport *t, struct vgpu_device *ret)
{
    const struct place *p = &window_of(t)->place;
    int r = place_describe(p, ret);

    if (r == 0) {
        snprintf(ret->path, sizeof(ret->path), "%s: BAR 0 windows, polled", p->how);
    }
    return r;
}

static uint32_t window_deadline_ms(struct transport *t)
{
    return place_deadline_ms(&window_of(t)->place);
}

static int window_claim(struct transport *t, uint64_t want_bytes, struct ranges_span *ret)
{
    struct window *w = window_of(t);

    return place_claim(&w->place, &w->settled, want_bytes, ret);
}

static void window_unclaim(struct transport *t, const struct ranges_span *span)
{
    place_unclaim(&window_of(t)->place, span);
}

static void window_close(struct transport *t)
{
    struct window *w = window_of(t);

    devlock_pause(&w->lock);
    unlock(w);
    place_fini(&w->place);
    free(w);
}

static const struct transport_ops window_ops = {
    .reserve = window_reserve,
    .start = window_start,
    .flush = window_flush,
    .poll = window_poll,
    .cancel = window_cancel,
    .abandon = window_abandon,
    .pause = window_pause,
    .reset = window_reset,
    .reset_done = window_reset_done,
    .state = window_state,
    .deadline_ms = window_deadline_ms,
    .describe = window_describe,
    .claim = window_claim,
    .unclaim = window_unclaim,
    .close = window_close,
};

int window_open(struct place *place, struct transport **ret_transport, struct vgpu_err *ret_err)
{
    struct window *w = calloc(1, sizeof(*w));

    if (!w) {
        place_fini(place);
        return err_set(ret_err, -ENOMEM, "no memory for the state of %s", place->address);
    }
    w->t.ops = &window_ops;
    w->place = *place;
    w->lock.fd = place->regs_fd;
    w->status = VGPU_STATUS_BACKEND_UP; /* no news until it was read */
    w->t.limits = (struct transport_limits){
        .depth = 1,
        .request_max = VGPU_WINDOW_SIZE,
        .payload_max = VGPU_PAYLOAD_MAX,
        .inline_best = INLINE_BEST,
    };
    place_limits(&w->place, &w->t.limits);
    *ret_transport = &w->t;
    return 0;
}

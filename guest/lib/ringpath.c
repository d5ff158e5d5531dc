/* SPDX-License-Identifier: MIT */
/* ringpath.c - see ringpath.h */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "guest/lib/devlock.h"
#include "guest/lib/ringpath.h"

#define QUIET_NS (20 * CLOCK_NS_PER_MS)      /* nothing came for so long: look at STATUS */
#define UNHEARD_NS CLOCK_NS_PER_MS           /* nothing came for so long: was the bell heard? */
#define STATUS_NS (50 * CLOCK_NS_PER_MS)     /* at most so often */
#define HEAL_NS CLOCK_NS_PER_MS              /* and so often while the device is not usable */
#define DEADLINE_NS CLOCK_NS_PER_S           /* how old the register DEADLINE_MS may be */
#define IN_USE_NS (CLOCK_NS_PER_S / 2)       /* shorter waits for a reset are not news */
#define LEFT_WAIT_NS (250 * CLOCK_NS_PER_MS) /* for what a dead process left, at open */
#define TAKE_TRIES 5u     /* others that look at a ring are in the way for a moment */
#define CANCEL_SLOTS 2u   /* slots that only cancels use */
#define INLINE_BEST 1024u /* inline bytes are copied twice on the host */
#define NO_SLOT UINT32_MAX

/* What may be done with the ring. */
enum phase {
    PHASE_READY,
    PHASE_BROKEN, /* nothing, before somebody resets the device */
    PHASE_RESET,  /* nothing, until the reset is over */
    PHASE_LOST,   /* the reset is over: what was in flight ends with DEVICE_RESET */
};

struct slot {
    uint64_t tag;
    bool ours;        /* a cancel: nobody waits for its end */
    bool flying;      /* started, and its end not seen */
    bool cancel_next; /* to be cancelled when a slot is free for it */
};

struct ringpath {
    struct transport t; /* first */
    struct place place;
    struct ring_driver ring;
    struct slot *slots;
    enum phase phase;
    bool said_broken;
    bool entered;      /* nobody resets the device now */
    uint32_t reserved; /* slot that the caller writes to, or NO_SLOT */
    uint32_t seen;     /* slot whose response the caller reads, or NO_SLOT */
    uint32_t flying;   /* requests, cancels not counted */
    uint32_t cancels;  /* slots with cancel_next */
    uint32_t epoch;    /* RESET_EPOCH of this life */
    uint32_t status;   /* as last read */
    uint64_t status_ns;
    uint64_t progress_ns;
    uint64_t heard_ns;   /* when it was last asked whether the bell was heard */
    uint64_t outside_ns; /* waiting since for another process that resets the device; 0: not */
    uint64_t next_tag;   /* of cancels */
    uint32_t deadline_ms;
    uint64_t deadline_ns; /* when it was read */
    const char *why;      /* the device is broken */
};

static struct ringpath *ringpath_of(struct transport *t)
{
    return (struct ringpath *)t;
}

static uint32_t read_status(struct ringpath *p, uint64_t now_ns)
{
    p->status = mmio_read(&p->place.mmio, VGPU_REG_STATUS);
    p->status_ns = now_ns;
    return p->status;
}

static void broke(struct ringpath *p, const char *why)
{
    p->phase = PHASE_BROKEN;
    p->said_broken = false;
    p->why = why;
}

/* ---- a new life ---- */

/* Begin with an empty ring. Memory is there already: this cannot fail for the lack of it. */
static void begin(struct ringpath *p)
{
    struct ring_driver *d = &p->ring;

    p->epoch = mmio_read(&p->place.mmio, VGPU_REG_RESET_EPOCH);
    ring_driver_restart(d);
    memset(p->slots, 0, d->map.shape.entries * sizeof(*p->slots));
    p->flying = 0;
    p->cancels = 0;
    p->reserved = NO_SLOT;
    p->seen = NO_SLOT;
    p->phase = PHASE_READY;
    if (ring_driver_resume(d) != 0) {
        broke(p, "its ring is not empty after a reset");
    }
}

/* While the ring is not usable: has the device been reset? Return: 0; -ENODEV. */
static int heal(struct ringpath *p, uint64_t now_ns)
{
    uint32_t status;

    if (p->phase == PHASE_READY || p->phase == PHASE_LOST ||
        (p->status_ns && now_ns - p->status_ns < HEAL_NS)) {
        return 0;
    }
    status = read_status(p, now_ns);
    if (status == PLACE_GONE) {
        return -ENODEV;
    }
    if (status & VGPU_STATUS_RESETTING) {
        p->phase = PHASE_RESET;
    } else if (status & VGPU_STATUS_BROKEN) {
        p->phase = PHASE_BROKEN;
    } else if (mmio_read(&p->place.mmio, VGPU_REG_RESET_EPOCH) != p->epoch) {
        p->phase = PHASE_LOST;
    } else if (p->phase == PHASE_RESET) {
        broke(p, "somebody wrote to the driver's page of its ring");
    }
    if (p->phase == PHASE_LOST && p->flying == 0) {
        begin(p);
    }
    return 0;
}

/* ---- starts ---- */

/* Hold the device's life, and see that it is still the one of the ring. */
static int enter(struct ringpath *p, uint64_t now_ns)
{
    if (!p->entered) {
        if (rings_enter(&p->place.rings) != 0) {
            p->outside_ns = p->outside_ns ? p->outside_ns : now_ns;
            return TRANSPORT_E_WAIT;
        }
        p->entered = true;
        p->outside_ns = 0;
    }
    if (ring_driver_lost(&p->ring)) {
        p->phase = PHASE_RESET;
        p->status_ns = 0;
        return TRANSPORT_E_WAIT;
    }
    if (ring_driver_flags(&p->ring) & VGPU_RING_BROKEN) {
        broke(p, "");
        return TRANSPORT_E_WAIT;
    }
    if (p->ring.published == 0) { /* a reset that is under way does not show in memory then */
        uint32_t status = read_status(p, now_ns);

        if (status == PLACE_GONE) {
            return -ENODEV;
        }
        if (status & VGPU_STATUS_RESETTING) {
            p->phase = PHASE_RESET;
            p->epoch--; /* its epoch may be the one that was read at the start */
            return TRANSPORT_E_WAIT;
        }
    }
    return 0;
}

static void leave(struct ringpath *p)
{
    if (p->entered) {
        rings_leave(&p->place.rings);
        p->entered = false;
    }
}

static int ringpath_reserve(struct transport *t, uint64_t now_ns, uint8_t **ret_bytes,
                            uint32_t *ret_error)
{
    struct ringpath *p = ringpath_of(t);
    int r = heal(p, now_ns);

    if (r == 0 && p->phase == PHASE_READY) {
        r = enter(p, now_ns);
    }
    if (r == 0 || r == TRANSPORT_E_WAIT) {
        if (p->phase == PHASE_BROKEN) {
            *ret_error = VGPU_E_BROKEN;
            return TRANSPORT_E_REFUSED;
        }
        r = p->phase == PHASE_READY ? r : TRANSPORT_E_WAIT;
    }
    if (r) {
        return r;
    }
    if (p->reserved == NO_SLOT &&
        (p->ring.in_use >= t->limits.depth || ring_slot_take(&p->ring, &p->reserved) != 0)) {
        return TRANSPORT_E_WAIT;
    }
    if (p->flying == 0) {
        p->progress_ns = now_ns;
    }
    *ret_bytes = ring_request(&p->ring.map, p->reserved);
    return 0;
}

static void submit(struct ringpath *p, uint32_t slot, uint32_t len, uint64_t tag, bool ours)
{
    p->slots[slot] = (struct slot){.tag = tag, .ours = ours, .flying = true};
    p->flying += !ours;
    ring_submit(&p->ring, slot, len, tag);
}

static int ringpath_start(struct transport *t, uint64_t tag, uint32_t len, uint32_t *ret_error)
{
    struct ringpath *p = ringpath_of(t);

    (void)ret_error;
    submit(p, p->reserved, len, tag, false);
    p->reserved = NO_SLOT;
    return 0;
}

/* A request that ends the one in @slot. */
static bool submit_cancel(struct ringpath *p, uint32_t slot)
{
    struct {
        struct vgpu_req_hdr hdr;
        struct vgpu_cancel body;
    } cancel = {
        .hdr =
            {
                .size = sizeof(cancel),
                .version = VGPU_REQ_VERSION,
                .op = VGPU_OP_CANCEL,
                .band = VGPU_BAND_DEFAULT,
                .body_len = sizeof(cancel.body),
                .tag = p->next_tag++,
            },
        .body = {.tag = p->slots[slot].tag},
    };
    uint32_t its;

    if (ring_slot_take(&p->ring, &its) != 0) {
        return false;
    }
    memcpy(ring_request(&p->ring.map, its), &cancel, sizeof(cancel));
    submit(p, its, sizeof(cancel), cancel.hdr.tag, true);
    return true;
}

static void submit_cancels(struct ringpath *p)
{
    for (uint32_t i = 0; p->cancels && i < p->ring.map.shape.entries; i++) {
        if (!p->slots[i].cancel_next) {
            continue;
        }
        if (!submit_cancel(p, i)) {
            return;
        }
        p->slots[i].cancel_next = false;
        p->cancels--;
    }
}

static void ring_bell(const struct ringpath *p)
{
    mmio_write(&p->place.mmio, VGPU_REG_RING_DOORBELL + 4 * (uint32_t)p->place.rings.mine, 1);
}

static void ringpath_flush(struct transport *t)
{
    struct ringpath *p = ringpath_of(t);

    if (p->phase != PHASE_READY || !p->entered) {
        return;
    }
    submit_cancels(p);
    if (ring_driver_publish(&p->ring)) {
        ring_bell(p);
    }
}

static void ringpath_cancel(struct transport *t, uint64_t tag)
{
    struct ringpath *p = ringpath_of(t);

    for (uint32_t i = 0; i < p->ring.map.shape.entries; i++) {
        struct slot *s = &p->slots[i];

        if (s->flying && !s->ours && s->tag == tag && !s->cancel_next) {
            s->cancel_next = true;
            p->cancels++;
        }
    }
}

/* ---- ends ---- */

static void set_down(struct ringpath *p, uint32_t slot)
{
    struct slot *s = &p->slots[slot];

    p->flying -= s->flying && !s->ours;
    p->cancels -= s->cancel_next;
    *s = (struct slot){0};
}

/* After a reset: the next that was in flight. */
static int poll_lost(struct ringpath *p, struct transport_done *ret)
{
    for (uint32_t i = 0; p->flying && i < p->ring.map.shape.entries; i++) {
        if (p->slots[i].flying && !p->slots[i].ours) {
            *ret = (struct transport_done){.tag = p->slots[i].tag, .error = VGPU_E_DEVICE_RESET};
            set_down(p, i);
            return TRANSPORT_E_DONE;
        }
    }
    begin(p);
    return 0;
}

/* An emulator that drops fences can lose a doorbell (ring_driver_unheard()). */
static void ring_again(struct ringpath *p, uint64_t now_ns)
{
    if (now_ns - p->progress_ns < UNHEARD_NS || now_ns - p->heard_ns < UNHEARD_NS) {
        return;
    }
    p->heard_ns = now_ns;
    if (ring_driver_unheard(&p->ring)) {
        ring_bell(p);
    }
}

/* Nothing came. Has something happened that does not come as a completion? */
static int look_around(struct ringpath *p, uint64_t now_ns)
{
    if (p->flying == 0) {
        return 0;
    }
    if (ring_driver_lost(&p->ring)) {
        p->phase = PHASE_RESET;
        p->status_ns = 0;
        return 0;
    }
    if (ring_driver_flags(&p->ring) & VGPU_RING_BROKEN) {
        broke(p, "");
        return 0;
    }
    ring_again(p, now_ns);
    if (now_ns - p->progress_ns >= QUIET_NS && now_ns - p->status_ns >= STATUS_NS &&
        read_status(p, now_ns) == PLACE_GONE) {
        return -ENODEV;
    }
    return 0;
}

/* Take completions until one is somebody's. */
static int poll_ring(struct ringpath *p, uint64_t now_ns, struct transport_done *ret)
{
    struct vgpu_completion c;
    int r;

    if (p->seen != NO_SLOT) {
        ring_slot_give_back(&p->ring, p->seen);
        p->seen = NO_SLOT;
    }
    while ((r = ring_collect(&p->ring, &c)) == 0) {
        const struct slot *s = &p->slots[c.slot];
        bool ours = s->ours;

        if (c.tag != s->tag) {
            broke(p, "it completed a request that is not in that slot");
            return 0;
        }
        *ret = (struct transport_done){
            .tag = s->tag,
            .error = c.error,
            .len = c.length,
            .bytes = ring_response(&p->ring.map, c.slot),
        };
        p->progress_ns = now_ns;
        if (c.error != VGPU_E_NO_BACKEND) {
            p->status |= VGPU_STATUS_BACKEND_UP; /* who else should have answered? */
        }
        set_down(p, c.slot);
        if (ours) {
            ring_slot_give_back(&p->ring, c.slot);
            continue;
        }
        p->seen = c.slot;
        return TRANSPORT_E_DONE;
    }
    if (r == RING_E_BROKEN) {
        if (ring_driver_lost(&p->ring)) {
            p->phase = PHASE_RESET;
            p->status_ns = 0;
        } else {
            broke(p, p->ring.wrong);
        }
        return 0;
    }
    return look_around(p, now_ns);
}

static int ringpath_poll(struct transport *t, uint64_t now_ns, struct transport_done *ret)
{
    struct ringpath *p = ringpath_of(t);
    int r = 0;

    if (p->phase == PHASE_READY) {
        r = poll_ring(p, now_ns, ret);
    }
    if (r == 0 && p->phase != PHASE_READY) {
        r = heal(p, now_ns);
    }
    if (r == 0 && p->phase == PHASE_BROKEN && !p->said_broken) {
        p->said_broken = true;
        *ret = (struct transport_done){.error = VGPU_E_BROKEN, .why = p->why};
        return TRANSPORT_E_BROKEN;
    }
    return r == 0 && p->phase == PHASE_LOST ? poll_lost(p, ret) : r;
}

/* A cancel is the only means; a slot whose request does not end stays in use until a reset. */
static void ringpath_abandon(struct transport *t, uint64_t tag, uint64_t now_ns)
{
    (void)now_ns;
    ringpath_cancel(t, tag);
}

static void ringpath_pause(struct transport *t)
{
    struct ringpath *p = ringpath_of(t);

    p->outside_ns = 0;
    if (p->phase != PHASE_READY || p->flying == 0) {
        leave(p);
    }
}

/* ---- resets ---- */

/* Reset the device, if no other process has anything in flight. */
static int reset_alone(const struct place *place)
{
    struct devlock windows = {.fd = place->regs_fd};
    int r = devlock_try(&windows) != 0 ? TRANSPORT_E_WAIT : 0;

    if (r == 0 && rings_enter_alone(&place->rings) != 0) {
        r = TRANSPORT_E_WAIT;
    }
    if (r == 0) {
        mmio_write(&place->mmio, VGPU_REG_CONTROL, VGPU_CONTROL_RESET);
        rings_leave(&place->rings);
    }
    devlock_pause(&windows);
    devlock_release(&windows);
    return r;
}

static int ringpath_reset(struct transport *t, uint64_t now_ns)
{
    struct ringpath *p = ringpath_of(t);
    uint32_t epoch = mmio_read(&p->place.mmio, VGPU_REG_RESET_EPOCH);
    int r;

    (void)now_ns;
    r = reset_alone(&p->place);
    if (r == 0) {
        p->entered = false;
        p->phase = PHASE_RESET;
        p->epoch = epoch;
        p->status_ns = 0;
    }
    return r;
}

static int ringpath_reset_done(struct transport *t)
{
    struct ringpath *p = ringpath_of(t);
    uint32_t status = mmio_read(&p->place.mmio, VGPU_REG_STATUS);

    if (status == PLACE_GONE) {
        return -ENODEV;
    }
    p->status = status;
    return status & (VGPU_STATUS_RESETTING | VGPU_STATUS_BROKEN) ? TRANSPORT_E_WAIT : 0;
}

/* ---- what is there ---- */

static enum vgpu_state ringpath_state(struct transport *t, uint64_t now_ns)
{
    const struct ringpath *p = ringpath_of(t);

    if (p->phase == PHASE_RESET) {
        return VGPU_STATE_RESETTING;
    }
    if (p->outside_ns && now_ns - p->outside_ns > IN_USE_NS) {
        return VGPU_STATE_IN_USE;
    }
    return p->status & VGPU_STATUS_BACKEND_UP ? VGPU_STATE_UP : VGPU_STATE_NO_BACKEND;
}

static int ringpath_describe(struct transport *t, struct vgpu_device *ret)
{
    const struct place *p = &ringpath_of(t)->place;
    int r = place_describe(p, ret);

    if (r == 0) {
        snprintf(ret->path, sizeof(ret->path), "%s: ring %d of %u, %u requests at a time, polled",
                 p->how, p->rings.mine, p->rings.count, t->limits.depth);
    }
    return r;
}

static uint32_t ringpath_deadline_ms(struct transport *t)
{
    struct ringpath *p = ringpath_of(t);
    uint64_t now_ns = clock_now_ns();

    if (p->deadline_ms == 0 || now_ns - p->deadline_ns > DEADLINE_NS) {
        p->deadline_ms = place_deadline_ms(&p->place);
        p->deadline_ns = now_ns;
    }
    return p->deadline_ms;
}

static int ringpath_claim(struct transport *t, uint64_t want_bytes, struct ranges_span *ret)
{
    static const atomic_bool never = false;

    return place_claim(&ringpath_of(t)->place, &never, want_bytes, ret);
}

static void ringpath_unclaim(struct transport *t, const struct ranges_span *span)
{
    place_unclaim(&ringpath_of(t)->place, span);
}

static void ringpath_close(struct transport *t)
{
    struct ringpath *p = ringpath_of(t);

    ring_driver_fini(&p->ring);
    free(p->slots);
    place_fini(&p->place);
    free(p);
}

static const struct transport_ops ringpath_ops = {
    .reserve = ringpath_reserve,
    .start = ringpath_start,
    .flush = ringpath_flush,
    .poll = ringpath_poll,
    .cancel = ringpath_cancel,
    .abandon = ringpath_abandon,
    .pause = ringpath_pause,
    .reset = ringpath_reset,
    .reset_done = ringpath_reset_done,
    .state = ringpath_state,
    .deadline_ms = ringpath_deadline_ms,
    .describe = ringpath_describe,
    .claim = ringpath_claim,
    .unclaim = ringpath_unclaim,
    .close = ringpath_close,
};

/* ---- open ---- */

static void nap_1ms(void)
{
    struct timespec ts = {.tv_nsec = 1000000};

    nanosleep(&ts, NULL);
}

/* Wait for the requests of dead processes. Return: whether they have ended. */
static bool wait_for_left(const struct place *place)
{
    uint64_t end_ns = clock_now_ns() + LEFT_WAIT_NS;

    while (rings_kick_left(&place->rings, &place->mmio)) {
        if (clock_now_ns() >= end_ns) {
            return false;
        }
        nap_1ms();
    }
    return true;
}

static void take_ring(struct rings *r, unsigned *ret_left)
{
    for (unsigned i = 0; rings_take(r, ret_left) != 0 && i < TAKE_TRIES; i++) {
        nap_1ms();
    }
}

/* Own a ring. @ret_phase: what may be done with it. Return: 0; RINGPATH_E_NO_RING. */
static int own_ring(struct place *place, enum phase *ret_phase)
{
    struct rings *r = &place->rings;
    uint32_t status = mmio_read(&place->mmio, VGPU_REG_STATUS);
    unsigned left;

    if (status & (VGPU_STATUS_RESETTING | VGPU_STATUS_BROKEN)) {
        *ret_phase = status & VGPU_STATUS_RESETTING ? PHASE_RESET : PHASE_BROKEN;
        return rings_take_any(r) == 0 ? 0 : RINGPATH_E_NO_RING;
    }
    *ret_phase = PHASE_READY;
    take_ring(r, &left);
    /* Alone: nobody would miss what dead processes left. Otherwise it ends some time by itself. */
    if (left && rings_enter_alone(r) == 0) {
        bool ended = wait_for_left(place);

        rings_leave(r);
        if (!ended && reset_alone(place) == 0) {
            *ret_phase = PHASE_RESET;
            return r->mine >= 0 || rings_take_any(r) == 0 ? 0 : RINGPATH_E_NO_RING;
        }
        if (r->mine < 0) {
            take_ring(r, &left);
        }
    }
    return r->mine >= 0 ? 0 : RINGPATH_E_NO_RING;
}

static int new_path(const struct place *place, enum phase phase, struct ringpath **ret)
{
    const struct rings *r = &place->rings;
    struct ringpath *p = calloc(1, sizeof(*p));
    struct slot *slots = calloc(r->shape.entries, sizeof(*slots));

    if (!p || !slots ||
        ring_driver_init(&p->ring, rings_base(r, (unsigned)r->mine), &r->shape,
                         place->write_combining) != 0) {
        free(p);
        free(slots);
        return -ENOMEM;
    }
    p->slots = slots;
    p->place = *place;
    p->t.ops = &ringpath_ops;
    p->t.limits = (struct transport_limits){
        .depth = r->shape.entries - CANCEL_SLOTS,
        .request_max = r->shape.slot_bytes < VGPU_REQ_MAX ? r->shape.slot_bytes : VGPU_REQ_MAX,
        .inline_best = INLINE_BEST,
    };
    p->t.limits.payload_max = p->t.limits.request_max - (uint32_t)sizeof(struct vgpu_resp_hdr);
    place_limits(&p->place, &p->t.limits);
    p->status = VGPU_STATUS_BACKEND_UP; /* no news until it was read */
    p->next_tag = clock_wall_ns();
    p->progress_ns = clock_now_ns();
    begin(p);
    if (phase != PHASE_READY) {
        p->phase = phase;
        p->epoch--; /* whatever its number is, a life other than this one comes next */
        p->why = "";
    }
    *ret = p;
    return 0;
}

int ringpath_open(struct place *place, struct transport **ret_transport)
{
    enum phase phase;
    struct ringpath *p;
    int r;

    if (place->rings.count == 0) {
        return RINGPATH_E_NO_RING;
    }
    if (own_ring(place, &phase) != 0) {
        snprintf(place->no_ring, sizeof(place->no_ring),
                 "other processes of this VM have all %u, or left requests in them",
                 place->rings.count);
        return RINGPATH_E_NO_RING;
    }
    r = new_path(place, phase, &p);
    if (r) {
        return r;
    }
    *ret_transport = &p->t;
    return 0;
}

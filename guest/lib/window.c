/* SPDX-License-Identifier: MIT */
/* window.c - see window.h */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "guest/lib/claims.h"
#include "guest/lib/devlock.h"
#include "guest/lib/err.h"
#include "guest/lib/window.h"

#define GONE UINT32_MAX                      /* what an unplugged device reads as */
#define CANCEL_GRACE_NS (1 * CLOCK_NS_PER_S) /* from a cancel that was to work, to a reset */
#define IN_USE_NS (CLOCK_NS_PER_S / 2)       /* shorter waits for other processes are not news */
#define SETTLE_TRIES 20                      /* a millisecond each */
#define SETTLE_NS (3 * CLOCK_NS_PER_S)
#define INLINE_BEST 256u /* a word of the window costs an exit of the VM, the arena does not */
#define DEADLINE_DEFAULT_MS 60000u

struct window {
    struct transport t; /* first */
    struct window_place place;
    struct devlock lock;
    struct claims claims;
    atomic_bool settled; /* the lock is held and no stale request is left */
    bool active;         /* a request of ours is in flight */
    bool given_up;       /* nobody wants its response any more */
    bool reset_sent;
    uint64_t tag;          /* of it */
    uint64_t cancel_ns;    /* a cancel that has to work was written then; 0: none */
    uint64_t lock_wait_ns; /* waiting for the lock since; 0: not waiting */
    uint32_t status;       /* as last read */
    uint8_t response[VGPU_WINDOW_SIZE];
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

/* A request must end: cancel it, and when that does not help in time, reset the device. */
static void force_end(struct window *w, uint64_t now_ns)
{
    if (w->cancel_ns == 0) {
        mmio_write(&w->place.mmio, VGPU_REG_CONTROL, VGPU_CONTROL_CANCEL);
        w->cancel_ns = now_ns ? now_ns : 1;
    } else if (!w->reset_sent && now_ns - w->cancel_ns > CANCEL_GRACE_NS) {
        mmio_write(&w->place.mmio, VGPU_REG_CONTROL, VGPU_CONTROL_RESET);
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
    if (status == GONE) {
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

static int window_start(struct transport *t, uint64_t tag, const void *request, uint32_t len,
                        uint64_t now_ns, uint32_t *ret_error)
{
    struct window *w = window_of(t);
    const struct mmio *m = &w->place.mmio;
    uint32_t rejects;
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
    mmio_copy_to(m, VGPU_WINDOW_REQUEST, request, len);
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
    if (status == GONE) {
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
    if (!w->active && devlock_try(&w->lock) != 0) {
        return TRANSPORT_E_WAIT;
    }
    mmio_write(&w->place.mmio, VGPU_REG_CONTROL, VGPU_CONTROL_RESET);
    return 0;
}

static int window_reset_done(struct transport *t)
{
    struct window *w = window_of(t);
    uint32_t status = read_status(w);

    if (status == GONE) {
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
    const struct window *w = window_of(t);
    const struct mmio *m = &w->place.mmio;

    if (mmio_read(m, VGPU_REG_MAGIC) != VGPU_MAGIC) {
        return -ENODEV;
    }
    *ret = (struct vgpu_device){
        .abi_version = mmio_read(m, VGPU_REG_ABI_VERSION),
        .features = mmio_read(m, VGPU_REG_FEATURES),
        .vm_id = mmio_read(m, VGPU_REG_VM_ID),
        .pool_id = mmio_read(m, VGPU_REG_POOL_ID),
        .priority = mmio_read(m, VGPU_REG_PRIORITY),
        .status = mmio_read(m, VGPU_REG_STATUS),
        .deadline_ms = mmio_read(m, VGPU_REG_DEADLINE_MS),
        .backend_gen = mmio_read(m, VGPU_REG_BACKEND_GEN),
        .reset_epoch = mmio_read(m, VGPU_REG_RESET_EPOCH),
        .rejects = mmio_read(m, VGPU_REG_REJECTS),
        .reject_error = mmio_read(m, VGPU_REG_REJECT_ERROR),
        .shm_bytes = mmio_read64(m, VGPU_REG_SHM_SIZE_LO),
        .arena_bytes = t->limits.arena_bytes,
    };
    memcpy(ret->address, w->place.address, sizeof(ret->address));
    memcpy(ret->path, w->place.path, sizeof(ret->path));
    memcpy(ret->arena, w->place.arena, sizeof(ret->arena));
    return 0;
}

static uint32_t window_deadline_ms(struct transport *t)
{
    uint32_t ms = mmio_read(&window_of(t)->place.mmio, VGPU_REG_DEADLINE_MS);

    return ms ? ms : DEADLINE_DEFAULT_MS;
}

static void nap_ms(long ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    nanosleep(&ts, NULL);
}

/*
 * A part of the arena that was just claimed may have belonged to a process that died, and the
 * device may still be writing its result there. Nobody's request is in flight while this process
 * has the lock; when another has it for longer, that one has already seen to this.
 */
static void settle(struct window *w)
{
    const struct mmio *m = &w->place.mmio;
    struct window other = {.place = {.mmio = *m}};
    uint64_t give_up_ns = clock_now_ns() + SETTLE_NS;
    int tries = SETTLE_TRIES;

    while (!atomic_load(&w->settled) && flock(w->place.settle_fd, LOCK_EX | LOCK_NB) != 0) {
        if (--tries == 0) {
            return;
        }
        nap_ms(1);
    }
    while (!atomic_load(&w->settled)) {
        uint32_t status = mmio_read(m, VGPU_REG_STATUS);

        if (status == GONE || clock_now_ns() > give_up_ns ||
            (state_of(status) != VGPU_STATUS_BUSY && !(status & VGPU_STATUS_RESETTING))) {
            break;
        }
        force_end(&other, clock_now_ns());
        nap_ms(1);
    }
    flock(w->place.settle_fd, LOCK_UN);
}

static int window_claim(struct transport *t, uint64_t want_bytes, struct ranges_span *ret)
{
    struct window *w = window_of(t);
    int r = claims_take(&w->claims, want_bytes, ret);

    if (r == 0 && w->place.settle_fd >= 0) {
        settle(w);
    }
    return r;
}

static void window_unclaim(struct transport *t, const struct ranges_span *span)
{
    claims_give(&window_of(t)->claims, span);
}

static void window_close(struct transport *t)
{
    struct window *w = window_of(t);

    devlock_pause(&w->lock);
    unlock(w);
    window_place_fini(&w->place);
    free(w);
}

static const struct transport_ops window_ops = {
    .start = window_start,
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

void window_place_fini(struct window_place *place)
{
    if (place->regs) {
        munmap(place->regs, VGPU_BAR_REGS_SIZE);
    }
    if (place->shm && place->shm_fd >= 0) {
        munmap(place->shm, place->shm_bytes);
    }
    for (int i = 0; i < 3; i++) {
        int fd = (const int[]){place->regs_fd, place->settle_fd, place->shm_fd}[i];

        if (fd >= 0) {
            close(fd);
        }
    }
}

static int check_identity(const struct window_place *p, struct vgpu_err *err)
{
    uint32_t magic = mmio_read(&p->mmio, VGPU_REG_MAGIC);
    uint32_t abi = mmio_read(&p->mmio, VGPU_REG_ABI_VERSION);

    if (magic == GONE) {
        return err_set(err, -ENODEV,
                       "%s: the device does not answer (all bits read 1): it was unplugged, or its "
                       "memory decoding is off",
                       p->address);
    }
    if (magic != VGPU_MAGIC) {
        return err_set(err, -EPROTO,
                       "%s: BAR 0 begins with 0x%08" PRIx32 " instead of 0x%08x: the PCI ids are "
                       "those of a vGPU, but this is another device",
                       p->address, magic, VGPU_MAGIC);
    }
    if (abi >> 16 != VGPU_ABI_VERSION >> 16) {
        return err_set(err, -EPROTONOSUPPORT,
                       "%s: the device speaks version %u.%u, this program version %u.%u: use a "
                       "program that is as new as the device",
                       p->address, abi >> 16, abi & 0xffff, VGPU_ABI_VERSION >> 16,
                       VGPU_ABI_VERSION & 0xffff);
    }
    return 0;
}

/* Where the arena is. A place that lies outside the BAR is a device that lies. */
static int find_arena(struct window *w, struct vgpu_err *err)
{
    const struct window_place *p = &w->place;
    uint64_t offset = mmio_read64(&p->mmio, VGPU_REG_ARENA_OFFSET_LO);
    uint64_t size = mmio_read64(&p->mmio, VGPU_REG_ARENA_SIZE_LO);

    if (!p->shm || !(mmio_read(&p->mmio, VGPU_REG_FEATURES) & VGPU_FEATURE_SHM) || size == 0) {
        return 0;
    }
    if (offset > p->shm_bytes || size > p->shm_bytes - offset || offset % VGPU_ARENA_ALIGN != 0) {
        return err_set(err, -EPROTO,
                       "%s: the device says that its arena is at 0x%" PRIx64 ", 0x%" PRIx64
                       " bytes, but BAR 2 has 0x%" PRIx64 " bytes",
                       p->address, offset, size, p->shm_bytes);
    }
    w->t.limits.arena = p->shm + offset;
    w->t.limits.arena_bytes = size - size % VGPU_ARENA_ALIGN;
    w->claims = (struct claims){.fd = p->shm_fd, .start = offset, .size = w->t.limits.arena_bytes};
    return 0;
}

int window_open(struct window_place *place, struct transport **ret_transport,
                struct vgpu_err *ret_err)
{
    struct window *w = calloc(1, sizeof(*w));
    int r = w ? check_identity(place, ret_err)
              : err_set(ret_err, -ENOMEM, "no memory for the state of %s", place->address);

    if (r) {
        free(w);
        window_place_fini(place);
        return r;
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
    r = find_arena(w, ret_err);
    if (r) {
        window_close(&w->t);
        return r;
    }
    *ret_transport = &w->t;
    return 0;
}

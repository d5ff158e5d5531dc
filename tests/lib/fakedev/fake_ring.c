/* SPDX-License-Identifier: MIT */
/* fake_ring.c - the rings of the fake device: its thread is their device's end; see fake.h */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/core/request.h"
#include "tests/lib/fakedev/fake_int.h"

#define NAP_NS (CLOCK_NS_PER_MS / 2) /* while requests dawdle */

static uint8_t *base_of(const struct fake *f, unsigned i)
{
    struct ring_shape shape = fake_ring_shape(f);

    return f->shm + VGPU_SHM_CONTROL_SIZE + i * ring_bytes(&shape);
}

/* As QEMU does; word by word, since another thread may look at the same moment. */
static void clear_pages(const struct ring_map *map, uint32_t index)
{
    uint32_t *words = (uint32_t *)(void *)map->driver;

    for (unsigned i = 0; i < 2 * VGPU_RING_PAGE / sizeof(*words); i++) {
        __atomic_store_n(&words[i], 0, __ATOMIC_RELAXED);
    }
    __atomic_store_n(&map->driver->submit_tail, index, __ATOMIC_RELAXED);
    __atomic_store_n(&map->device->complete_tail, index, __ATOMIC_RELAXED);
    __atomic_store_n(&map->device->submit_event, index, __ATOMIC_SEQ_CST);
}

static void begin(struct fake *f, uint32_t index)
{
    struct ring_shape shape = fake_ring_shape(f);

    for (unsigned i = 0; i < f->config.rings; i++) {
        ring_device_init(&f->rings[i], base_of(f, i), &shape, index, index);
        clear_pages(&f->rings[i].map, index);
        f->failed[i] = false;
    }
    f->npending = 0;
}

void fake_rings_init(struct fake *f)
{
    if (f->config.rings) {
        f->pending = calloc(FAKE_PENDING_MAX, sizeof(*f->pending));
        if (!f->pending || f->config.rings > FAKE_RINGS_MAX) {
            abort();
        }
        begin(f, f->config.index_start);
    }
}

void fake_rings_reset(struct fake *f)
{
    begin(f, 0);
}

/* The driver broke a rule, or the test says so. */
static void break_device(struct fake *f)
{
    f->flags |= VGPU_STATUS_BROKEN;
    f->npending = 0;
    for (unsigned i = 0; i < f->config.rings; i++) {
        ring_device_set_flags(&f->rings[i], VGPU_RING_BROKEN);
    }
}

static bool slot_pending(const struct fake *f, unsigned ring, uint32_t slot)
{
    for (unsigned i = 0; i < f->npending; i++) {
        if (f->pending[i].ring == ring && f->pending[i].desc.slot == slot) {
            return true;
        }
    }
    return false;
}

static uint64_t deadline_of(const struct fake *f, const struct fake_pending *p)
{
    uint32_t ms = 0;

    if (p->copy_len >= sizeof(struct vgpu_req_hdr)) {
        memcpy(&ms, p->copy + offsetof(struct vgpu_req_hdr, deadline_ms), sizeof(ms));
    }
    ms = ms ? ms : f->config.deadline_ms ? f->config.deadline_ms : 60000;
    return clock_now_ns() + ms * CLOCK_NS_PER_MS;
}

static void accept(struct fake *f, unsigned ring, const struct vgpu_desc *desc)
{
    struct fake_pending *p = &f->pending[f->npending++];
    struct vgpu_req_hdr hdr = {0};

    *p = (struct fake_pending){
        .ring = ring, .desc = *desc, .seq = ++f->seq, .copy_len = desc->length};
    memcpy(p->copy, ring_request(&f->rings[ring].map, desc->slot), desc->length);
    memcpy(&hdr, p->copy, p->copy_len < sizeof(hdr) ? p->copy_len : sizeof(hdr));
    p->ordered = hdr.flags & VGPU_REQ_ORDERED;
    p->due_ns = clock_now_ns() + f->config.delay_ms * CLOCK_NS_PER_MS;
    p->end_ns = deadline_of(f, p);
    memcpy(f->last, p->copy, p->copy_len);
    f->last_len = p->copy_len;
}

/* Take what was submitted. Return: whether there was something. */
static bool take_all(struct fake *f)
{
    struct vgpu_desc desc;
    bool any = false;

    for (unsigned i = 0; i < f->config.rings; i++) {
        int r = 0;

        while (f->npending < FAKE_PENDING_MAX && (r = ring_take(&f->rings[i], &desc)) == 0) {
            any = true;
            if (slot_pending(f, i, desc.slot)) {
                r = RING_E_BROKEN;
                break;
            }
            accept(f, i, &desc);
        }
        if (r == RING_E_BROKEN) {
            break_device(f);
            return true;
        }
    }
    return any;
}

static void lie(struct fake *f, struct ring_device *d, struct vgpu_completion *c)
{
    uint32_t entries = d->map.shape.entries;

    switch (f->config.ring_lie) {
    case FAKE_LIE_JUMP:
        __atomic_store_n(&d->map.device->complete_tail, d->complete_tail + entries + 5,
                         __ATOMIC_RELEASE);
        break;
    case FAKE_LIE_SLOT:
        c->slot = entries;
        break;
    case FAKE_LIE_OTHER_SLOT:
        c->slot = (c->slot + 1) % entries;
        break;
    case FAKE_LIE_LENGTH:
        c->length = d->map.shape.slot_bytes + 1;
        break;
    case FAKE_LIE_TAG:
        c->tag++;
        break;
    default:
        break;
    }
}

static void complete(struct fake *f, unsigned at, const struct fake_job *job)
{
    struct fake_pending *p = &f->pending[at];
    struct ring_device *d = &f->rings[p->ring];
    struct vgpu_completion c = {
        .tag = p->desc.tag,
        .seq = p->seq,
        .slot = p->desc.slot,
        .length = job->len,
        .error = job->error,
    };

    memcpy(ring_response(&d->map, p->desc.slot), job->out, job->len);
    f->failed[p->ring] |= job->error != 0;
    lie(f, d, &c);
    f->npending--;
    memmove(p, p + 1, (f->npending - at) * sizeof(*p));
    ring_complete(d, &c);
    f->served++;
}

/* What ends a request now. Return: 0 nothing; 1 its turn has come; otherwise the error above 1. */
static uint32_t ends_with(const struct fake *f, const struct fake_pending *p, bool first)
{
    uint64_t now_ns = clock_now_ns();

    if (p->cancelled) {
        return VGPU_E_CANCELLED;
    }
    if (f->config.hang) {
        return 0;
    }
    if (now_ns >= p->end_ns) {
        return fake_backend_up(f) ? VGPU_E_DEADLINE : VGPU_E_NO_BACKEND;
    }
    if (!fake_backend_up(f) || now_ns < p->due_ns || (p->ordered && !first)) {
        return 0;
    }
    return p->ordered && f->failed[p->ring] ? VGPU_E_DEPENDENCY : 1;
}

static bool is_first(const struct fake *f, unsigned at)
{
    for (unsigned i = 0; i < at; i++) {
        if (f->pending[i].ring == f->pending[at].ring) {
            return false;
        }
    }
    return true;
}

/* Op CANCEL: by the mediator itself, at once. */
static void cancel(struct fake *f, unsigned at, struct fake_job *job)
{
    uint64_t tag;
    uint32_t error = VGPU_E_NOT_FOUND;

    memcpy(&tag, job->copy + sizeof(struct vgpu_req_hdr), sizeof(tag));
    for (unsigned i = 0; i < f->npending && !f->config.ignore_cancel; i++) {
        if (i != at && request_peek_tag(f->pending[i].copy, f->pending[i].copy_len) == tag) {
            f->pending[i].cancelled = true;
            error = 0;
        }
    }
    fake_answer_error(f, job, error, "");
}

static bool end_one(struct fake *f, unsigned at)
{
    struct fake_pending *p = &f->pending[at];
    struct fake_job job = {.copy = p->copy,
                           .copy_len = p->copy_len,
                           .seq = p->seq,
                           .cap = fake_ring_shape(f).slot_bytes};
    uint32_t error;

    if (request_peek_op(p->copy, p->copy_len) == VGPU_OP_CANCEL && fake_backend_up(f)) {
        cancel(f, at, &job);
        complete(f, at, &job);
        return true;
    }
    error = ends_with(f, p, is_first(f, at));
    if (error == 0) {
        return false;
    }
    if (error == 1) {
        uint32_t epoch = f->epoch;

        fake_answer(f, &job);
        if (f->epoch != epoch) { /* it does not hold the lock all the time */
            return true;
        }
    } else {
        fake_answer_error(f, &job, error, "");
    }
    complete(f, at, &job);
    return true;
}

static bool end_all(struct fake *f)
{
    bool any = false;
    unsigned at = f->config.reverse ? f->npending : 0;

    while (f->config.reverse ? at > 0 : at < f->npending) {
        unsigned i = f->config.reverse ? at - 1 : at;

        if (end_one(f, i)) {
            any = true;
            at -= f->config.reverse ? 1 : 0;
        } else {
            at += f->config.reverse ? -1u : 1;
        }
        at = at > f->npending ? f->npending : at;
    }
    return any;
}

static void publish_all(struct fake *f)
{
    for (unsigned i = 0; i < f->config.rings; i++) {
        if (f->config.ring_lie == FAKE_LIE_JUMP && f->served) {
            continue; /* complete_tail is where the lie put it */
        }
        f->notified += ring_device_publish(&f->rings[i]);
        if (f->npending == 0) {
            f->failed[i] = false;
        }
    }
}

/* Spoil the responses that the driver may be reading. */
static void scribble(struct fake *f)
{
    uint8_t *slots = f->rings[0].map.slots;

    for (uint32_t i = 0; i < 64; i++) {
        f->seq++;
        memset(slots + i * VGPU_SLOT_STRIDE(fake_ring_shape(f).slot_bytes) +
                   fake_ring_shape(f).slot_bytes,
               (int)f->seq, 128);
    }
}

static bool arm_all(struct fake *f)
{
    bool any = false;

    for (unsigned i = 0; i < f->config.rings; i++) {
        any |= ring_device_arm(&f->rings[i]);
    }
    return any;
}

static void wait_ns(struct fake *f, uint64_t ns)
{
    uint64_t until = clock_now_ns() + ns;
    struct timespec ts = {.tv_sec = (time_t)(until / CLOCK_NS_PER_S),
                          .tv_nsec = (long)(until % CLOCK_NS_PER_S)};

    pthread_cond_timedwait(&f->changed, &f->lock, &ts);
}

static bool usable(const struct fake *f)
{
    return !f->config.asleep && !(f->flags & (VGPU_STATUS_RESETTING | VGPU_STATUS_BROKEN));
}

void *fake_ring_thread(void *arg)
{
    struct fake *f = arg;

    pthread_mutex_lock(&f->lock);
    while (!f->stop) {
        bool any = false;

        if (usable(f)) {
            any = take_all(f);
        }
        if (usable(f)) {
            any |= end_all(f);
            publish_all(f);
        }
        if (usable(f) && f->config.ring_lie == FAKE_LIE_BROKEN && f->served) {
            break_device(f);
        }
        if (f->config.ring_lie == FAKE_LIE_SCRIBBLE) {
            scribble(f);
            pthread_mutex_unlock(&f->lock);
            pthread_mutex_lock(&f->lock);
        } else if (any || (usable(f) && arm_all(f))) {
            continue;
        } else if (f->npending) {
            wait_ns(f, NAP_NS);
        } else {
            pthread_cond_wait(&f->changed, &f->lock);
        }
    }
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

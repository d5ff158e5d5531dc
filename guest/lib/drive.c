/* SPDX-License-Identifier: MIT */
/*
 * drive - one round of the driver: collect what ended, end what is overdue, start what waits
 *
 * A request whose turn it is becomes a flight: its memory is placed and copied to the arena where
 * that is needed, the transport is asked for room until there is some, and its bytes are written
 * there. One that outlives its deadline by GRACE_NS is given up: its request ends, the flight stays
 * until the transport has seen it end, and the arena puts frees off meanwhile.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "common/clock.h"
#include "common/core/ring.h"
#include "guest/lib/client.h"

#define GRACE_NS CLOCK_NS_PER_S              /* for the device to end a request at its deadline */
#define AWAY_GRACE_NS (CLOCK_NS_PER_S / 10)  /* the same while no mediator could */
#define CANCEL_GRACE_NS (3 * CLOCK_NS_PER_S) /* for the device to end a cancelled request */
#define LOOK_NS CLOCK_NS_PER_MS              /* how often deadlines are looked at */
#define NAP_MIN_NS (20 * UINT64_C(1000))
#define NAP_MAX_NS CLOCK_NS_PER_MS
#define NAP_IDLE_NS (100 * CLOCK_NS_PER_MS)
#define RETRY_MIN_MS 1u
#define RETRY_MAX_MS 5000u

/* ---- ends of requests ---- */

static void wake_owner(struct vgpu_request *req)
{
    struct vgpu *gpu = req->gpu;

    pthread_mutex_lock(&gpu->lock);
    req->state = REQUEST_ENDED; /* from here on its owner may free it */
    pthread_cond_broadcast(&gpu->ended);
    pthread_mutex_unlock(&gpu->lock);
}

static void flight_fini(struct vgpu *gpu, struct flight *f)
{
    for (unsigned i = 0; i < f->nstaged; i++) {
        arena_free(&gpu->arena, f->staged[i]);
    }
    if (f->started && !f->request) {
        arena_unhold(&gpu->arena);
    }
    if (gpu->waiting == f) {
        gpu->waiting = NULL;
    }
    f->used = false;
    f->next = gpu->unused;
    gpu->unused = f;
    gpu->nflights--;
}

static struct flight *flight_find(struct vgpu *gpu, uint64_t tag)
{
    struct flight *f = &gpu->flights[tag & (gpu->flights_max - 1)];

    return f->used && f->started && f->tag == tag ? f : NULL;
}

static uint64_t deadline_ns(const struct vgpu_request *req)
{
    return req->options.deadline_ms ? req->submitted_ns + req->options.deadline_ms * CLOCK_NS_PER_MS
                                    : UINT64_MAX;
}

/* Copy the results to where the caller wants them. Return: 0; -EPROTO they are not all there. */
static int take_outputs(struct vgpu *gpu, struct vgpu_request *req)
{
    for (unsigned i = 0; i < req->spec.nbufs; i++) {
        const struct encode_buf *b = &req->spec.bufs[i];

        if (b->dir != VGPU_BUF_OUT || b->place == ENCODE_ARENA) {
            continue;
        }
        if (b->place == ENCODE_STAGED) {
            memcpy(b->memory, gpu->transport->limits.arena + b->offset, b->length);
            continue;
        }
        if (req->response.payload != VGPU_PAYLOAD_DATA || b->offset > req->payload_len ||
            b->length > req->payload_len - b->offset) {
            client_fail(req, -EPROTO,
                        "the response has %u payload bytes, output %u ends at %" PRIu64,
                        req->payload_len, i, b->offset + b->length);
            return -EPROTO;
        }
        memcpy(b->memory, req->payload + b->offset, b->length);
    }
    return 0;
}

/* Read a response into the request; its result is set. */
static void take_response(struct vgpu *gpu, struct vgpu_request *req, struct flight *f,
                          const struct transport_done *done)
{
    const uint32_t head = sizeof(req->response);
    char why[REQUEST_WHY_MAX];
    uint32_t error;

    if (done->len == 0) {
        client_fail(req, (int)done->error, "%s", "");
        return;
    }
    req->payload_len = 0;
    if (done->len >= head && done->len - head <= sizeof(req->payload)) {
        ring_copy_in(&req->response, done->bytes, head);
        req->payload_len = done->len - head;
        ring_copy_in(req->payload, done->bytes + head, req->payload_len);
    }
    error = response_check(&req->response, done->len, req->spec.hdr.op, f->tag,
                           sizeof(req->payload), &req->response, why);
    if (error) {
        memset(&req->response, 0, head);
        client_fail(req, done->error ? (int)done->error : -EPROTO, "%s", why);
        return;
    }
    if (done->error && !req->response.error) {
        client_fail(req, -EPROTO, "the device says %s, its response says that all went well",
                    vgpu_code_name((int)done->error));
        return;
    }
    if (req->response.error) {
        bool text = req->response.payload == VGPU_PAYLOAD_TEXT;

        client_fail(req, (int)req->response.error, "%.*s", text ? (int)req->payload_len : 0,
                    (const char *)req->payload);
        return;
    }
    req->code = 0;
    req->text[0] = 0;
    take_outputs(gpu, req);
}

static bool try_again(struct vgpu *gpu, struct vgpu_request *req, uint64_t now_ns)
{
    uint32_t after_ms = req->response.retry_after_ms;
    uint64_t again_ns;

    if (req->code != VGPU_E_BUSY || !req->options.retry_busy) {
        return false;
    }
    after_ms = after_ms < RETRY_MIN_MS ? RETRY_MIN_MS : after_ms;
    after_ms = after_ms > RETRY_MAX_MS ? RETRY_MAX_MS : after_ms;
    again_ns = now_ns + after_ms * CLOCK_NS_PER_MS;
    if (again_ns >= deadline_ns(req)) {
        return false;
    }
    pthread_mutex_lock(&gpu->lock);
    if (req->cancel_wanted) {
        pthread_mutex_unlock(&gpu->lock);
        return false;
    }
    req->not_before_ns = again_ns;
    req->state = REQUEST_QUEUED;
    req->next = gpu->head;
    if (!gpu->head) {
        gpu->tail = &req->next;
    }
    gpu->head = req;
    pthread_mutex_unlock(&gpu->lock);
    return true;
}

static void land(struct vgpu *gpu, const struct transport_done *done, uint64_t now_ns)
{
    struct flight *f = flight_find(gpu, done->tag);
    struct vgpu_request *req;

    if (!f) {
        return;
    }
    req = f->request;
    if (req) {
        take_response(gpu, req, f, done);
    }
    flight_fini(gpu, f);
    if (req && !try_again(gpu, req, now_ns)) {
        wake_owner(req);
    }
}

/* ---- overdue ---- */

/* What the passing of a deadline means depends on whom it was waiting for. */
static int late_code(const struct vgpu *gpu)
{
    return gpu->state == VGPU_STATE_NO_BACKEND ? VGPU_E_NO_BACKEND : VGPU_E_DEADLINE;
}

static void give_up(struct vgpu *gpu, struct flight *f, uint64_t now_ns)
{
    struct vgpu_request *req = f->request;

    if (f->cancel_sent) {
        client_fail(req, VGPU_E_CANCELLED, "%s", "the device did not confirm it");
    } else {
        client_fail(req, late_code(gpu), "%s",
                    "the device did not end the request itself, so the library gave it up");
    }
    if (!f->started) {
        flight_fini(gpu, f);
    } else {
        f->request = NULL;
        arena_hold(&gpu->arena);
        gpu->transport->ops->abandon(gpu->transport, f->tag, now_ns);
    }
    wake_owner(req);
}

/* The device may have learnt of a longer deadline since the request was started. */
static bool guard_is_over(struct vgpu *gpu, struct flight *f, uint64_t now_ns)
{
    bool away = gpu->state == VGPU_STATE_NO_BACKEND;
    uint64_t more_ns;

    if (now_ns < f->guard_ns - (away ? GRACE_NS - AWAY_GRACE_NS : 0)) {
        return false;
    }
    if (f->request->options.deadline_ms || f->cancel_sent) {
        return true;
    }
    more_ns = gpu->transport->ops->deadline_ms(gpu->transport) * CLOCK_NS_PER_MS + GRACE_NS;
    f->guard_ns = f->ready_ns + more_ns;
    return now_ns >= f->guard_ns;
}

static bool wants_cancel(struct vgpu_request *req)
{
    bool r;

    pthread_mutex_lock(&req->gpu->lock);
    r = req->cancel_wanted;
    pthread_mutex_unlock(&req->gpu->lock);
    return r;
}

static void drop_unstarted(struct vgpu *gpu, struct flight *f, int code, const char *detail)
{
    struct vgpu_request *req = f->request;

    client_fail(req, code, "%s", detail);
    flight_fini(gpu, f);
    wake_owner(req);
}

/* The device is broken: requests end now, their memory stays in use until it was reset. */
static void break_flights(struct vgpu *gpu, const char *why)
{
    for (unsigned i = 0; gpu->nflights && i < gpu->flights_max; i++) {
        struct flight *f = &gpu->flights[i];
        struct vgpu_request *req = f->used && f->started ? f->request : NULL;

        if (req) {
            client_fail(req, VGPU_E_BROKEN, "%s", why ? why : "");
            f->request = NULL;
            arena_hold(&gpu->arena);
            wake_owner(req);
        }
    }
}

static void check_flight(struct vgpu *gpu, struct flight *f, uint64_t now_ns)
{
    if (!f->request) {
        return;
    }
    if (!f->cancel_sent && wants_cancel(f->request)) {
        if (!f->started) {
            drop_unstarted(gpu, f, VGPU_E_CANCELLED, "it was still waiting in this process");
            return;
        }
        gpu->transport->ops->cancel(gpu->transport, f->tag);
        f->cancel_sent = true;
        f->guard_ns = now_ns + CANCEL_GRACE_NS;
    }
    if (!f->started && now_ns >= deadline_ns(f->request)) {
        drop_unstarted(gpu, f, late_code(gpu), "the device did not become free in time");
    } else if (guard_is_over(gpu, f, now_ns)) {
        give_up(gpu, f, now_ns);
    }
}

static void check_flights(struct vgpu *gpu, uint64_t now_ns)
{
    for (unsigned i = 0; gpu->nflights && i < gpu->flights_max; i++) {
        if (gpu->flights[i].used) {
            check_flight(gpu, &gpu->flights[i], now_ns);
        }
    }
}

/* With the lock: take the request at *@at out of the queue. */
static struct vgpu_request *unlink_at(struct vgpu *gpu, struct vgpu_request **at)
{
    struct vgpu_request *req = *at;

    *at = req->next;
    if (gpu->tail == &req->next) {
        gpu->tail = at;
    }
    req->next = NULL;
    return req;
}

/* Take out of the queue what was cancelled or is past its deadline. Return: NULL when none is. */
static struct vgpu_request *next_overdue(struct vgpu *gpu, uint64_t now_ns)
{
    struct vgpu_request *req = NULL;

    pthread_mutex_lock(&gpu->lock);
    for (struct vgpu_request **at = &gpu->head; *at; at = &(*at)->next) {
        if ((*at)->cancel_wanted || now_ns >= deadline_ns(*at)) {
            req = unlink_at(gpu, at);
            req->state = REQUEST_FLYING; /* the driver's, for a moment */
            break;
        }
    }
    pthread_mutex_unlock(&gpu->lock);
    return req;
}

static void check_queue(struct vgpu *gpu, uint64_t now_ns)
{
    struct vgpu_request *req;

    while ((req = next_overdue(gpu, now_ns)) != NULL) {
        bool late = now_ns >= deadline_ns(req);

        client_fail(req, late ? late_code(gpu) : VGPU_E_CANCELLED, "%s",
                    "it was still waiting in this process");
        wake_owner(req);
    }
}

/* ---- starts ---- */

/* Take the next request whose time has come. @ret_next_ns: when one that has to wait may start. */
static struct vgpu_request *next_ready(struct vgpu *gpu, uint64_t now_ns, uint64_t *ret_next_ns)
{
    struct vgpu_request *req = NULL;

    *ret_next_ns = UINT64_MAX;
    pthread_mutex_lock(&gpu->lock);
    for (struct vgpu_request **at = &gpu->head; *at; at = &(*at)->next) {
        if ((*at)->not_before_ns <= now_ns) {
            req = unlink_at(gpu, at);
            req->state = REQUEST_FLYING;
            break;
        }
        *ret_next_ns = (*at)->not_before_ns < *ret_next_ns ? (*at)->not_before_ns : *ret_next_ns;
    }
    pthread_mutex_unlock(&gpu->lock);
    return req;
}

static int stage(struct vgpu *gpu, struct flight *f, struct encode_buf *b)
{
    uint64_t offset;
    int r = arena_alloc(&gpu->arena, b->length, &offset);

    if (r) {
        return r;
    }
    f->staged[f->nstaged++] = offset;
    b->offset = offset;
    if (b->dir == VGPU_BUF_IN) {
        memcpy(gpu->transport->limits.arena + offset, b->memory, b->length);
    }
    return 0;
}

static int prepare(struct vgpu *gpu, struct flight *f)
{
    struct vgpu_request *req = f->request;
    struct encode_spec *s = &req->spec;
    int r;

    s->hdr.flags = req->options.flags;
    s->hdr.pool = req->options.pool;
    s->hdr.band = req->options.band;
    s->hdr.tag = f->tag;
    r = encode_place(s, &gpu->transport->limits);
    if (r) {
        client_fail(req, r, "it takes at most %u bytes, inputs included, and %u bytes of outputs%s",
                    gpu->transport->limits.request_max, gpu->transport->limits.payload_max,
                    gpu->transport->limits.arena ? "" : "; it has no arena for larger ones");
        return r;
    }
    for (unsigned i = 0; i < s->nbufs; i++) {
        if (s->bufs[i].place != ENCODE_STAGED) {
            continue;
        }
        r = stage(gpu, f, &s->bufs[i]);
        if (r) {
            client_fail(req, r,
                        "buffer %u needs %" PRIu64 " bytes of the arena; it has %" PRIu64
                        ", of which at most %" PRIu64 " are free in one piece",
                        i, s->bufs[i].length, gpu->transport->limits.arena_bytes,
                        arena_largest(&gpu->arena));
            return r;
        }
    }
    return 0;
}

/* Make a flight of a request. Return: NULL, and the request has ended, when that is impossible. */
static struct flight *make_flight(struct vgpu *gpu, struct vgpu_request *req, uint64_t now_ns)
{
    struct flight *f = gpu->unused;

    gpu->unused = f->next;
    f->used = true;
    f->started = false;
    f->cancel_sent = false;
    f->nstaged = 0;
    f->request = req;
    f->tag = gpu->next_tag + (unsigned)(f - gpu->flights);
    gpu->next_tag += gpu->flights_max;
    f->ready_ns = now_ns;
    f->guard_ns = req->options.deadline_ms
                      ? deadline_ns(req) + GRACE_NS
                      : now_ns + GRACE_NS +
                            gpu->transport->ops->deadline_ms(gpu->transport) * CLOCK_NS_PER_MS;
    gpu->nflights++;
    if (prepare(gpu, f) == 0) {
        gpu->waiting = f;
        return f;
    }
    flight_fini(gpu, f);
    wake_owner(req);
    return NULL;
}

/* What is left of the deadline, for the header. */
static uint32_t left_ms(const struct vgpu_request *req, uint64_t now_ns)
{
    uint64_t end_ns = deadline_ns(req);
    uint64_t ms;

    if (end_ns == UINT64_MAX) {
        return 0;
    }
    ms = end_ns > now_ns ? (end_ns - now_ns) / CLOCK_NS_PER_MS : 0;
    return ms ? (uint32_t)ms : 1;
}

/* Write the waiting flight where the transport wants it. Return: as transport_ops.start. */
static int start(struct vgpu *gpu, uint64_t now_ns)
{
    const struct transport_ops *ops = gpu->transport->ops;
    struct flight *f = gpu->waiting;
    uint32_t error = VGPU_E_INTERNAL;
    uint8_t *bytes;
    int r = ops->reserve(gpu->transport, now_ns, &bytes, &error);

    if (r == 0) {
        f->request->spec.hdr.deadline_ms = left_ms(f->request, now_ns);
        r = ops->start(gpu->transport, f->tag, encode_write(&f->request->spec, bytes), &error);
    }
    if (r == 0) {
        f->started = true;
        gpu->waiting = NULL;
    } else if (r == TRANSPORT_E_REFUSED) {
        drop_unstarted(gpu, f, (int)error,
                       error == VGPU_E_BROKEN ? "`vgpu reset` or vgpu_reset() resets it" : "");
    }
    return r;
}

/* Start what can be started. Return: 0; -errno, the device is unusable. */
static int start_all(struct vgpu *gpu, uint64_t now_ns, uint64_t *ret_next_ns)
{
    *ret_next_ns = UINT64_MAX;
    for (;;) {
        struct vgpu_request *req;
        int r;

        if (!gpu->waiting) {
            if (gpu->nflights >= gpu->transport->limits.depth) {
                return 0;
            }
            req = next_ready(gpu, now_ns, ret_next_ns);
            if (!req) {
                return 0;
            }
            gpu->progress_ns = now_ns;
            if (!make_flight(gpu, req, now_ns)) {
                continue;
            }
        }
        r = start(gpu, now_ns);
        if (r == TRANSPORT_E_WAIT || r < 0) {
            return r < 0 ? r : 0;
        }
    }
}

/* The device is unusable: everything ends with @code. */
static void fail_all(struct vgpu *gpu, int code)
{
    struct vgpu_request *req;
    uint64_t next_ns;

    gpu->fault = code;
    for (unsigned i = 0; i < gpu->flights_max; i++) {
        struct flight *f = &gpu->flights[i];

        req = f->used ? f->request : NULL;
        if (f->used) {
            flight_fini(gpu, f);
        }
        if (req) {
            client_fail(req, code, "%s", "");
            wake_owner(req);
        }
    }
    while ((req = next_ready(gpu, UINT64_MAX - 1, &next_ns)) != NULL) {
        client_fail(req, code, "%s", "");
        wake_owner(req);
    }
}

/* ---- a round ---- */

static void report_state(struct vgpu *gpu, uint64_t now_ns)
{
    enum vgpu_state state = gpu->transport->ops->state(gpu->transport, now_ns);

    if (state != gpu->state) {
        gpu->state = state;
        if (gpu->options.on_state) {
            gpu->options.on_state(gpu->options.arg, state);
        }
    }
}

static uint64_t nap(struct vgpu *gpu, uint64_t now_ns, uint64_t next_ns)
{
    uint64_t quiet_ns = now_ns - gpu->progress_ns;
    uint64_t nap_ns = quiet_ns / 8;

    if (gpu->nflights == 0) {
        nap_ns = next_ns > now_ns ? next_ns - now_ns : 0;
        return nap_ns < NAP_IDLE_NS ? nap_ns : NAP_IDLE_NS;
    }
    if (spin_on(&gpu->spin, now_ns)) {
        atomic_fetch_add_explicit(&gpu->spins, 1, memory_order_relaxed);
        spin_pause();
        return 0;
    }
    atomic_fetch_add_explicit(&gpu->naps, 1, memory_order_relaxed);
    nap_ns = nap_ns < NAP_MIN_NS ? NAP_MIN_NS : nap_ns;
    return nap_ns > NAP_MAX_NS ? NAP_MAX_NS : nap_ns;
}

/* Collect what ended. Return: 0; -errno, the device is unusable. */
static int collect(struct vgpu *gpu, uint64_t now_ns)
{
    struct transport_done done;
    int r;

    while ((r = gpu->transport->ops->poll(gpu->transport, now_ns, &done)) > 0) {
        if (r == TRANSPORT_E_BROKEN) {
            break_flights(gpu, done.why);
        } else {
            land(gpu, &done, now_ns);
        }
        gpu->progress_ns = now_ns;
    }
    return r;
}

uint64_t client_drive(struct vgpu *gpu)
{
    uint64_t now_ns = clock_now_ns();
    uint64_t next_ns = UINT64_MAX;
    int r = gpu->fault ? gpu->fault : collect(gpu, now_ns);

    if (r == 0) {
        if (now_ns >= gpu->look_ns || (atomic_load_explicit(&gpu->look, memory_order_relaxed) &&
                                       atomic_exchange(&gpu->look, false))) {
            check_flights(gpu, now_ns);
            check_queue(gpu, now_ns);
            gpu->look_ns = now_ns + LOOK_NS;
        }
        r = start_all(gpu, now_ns, &next_ns);
        gpu->transport->ops->flush(gpu->transport);
    }
    if (r < 0) {
        fail_all(gpu, r);
        return 0;
    }
    if (gpu->progress_ns == now_ns) {
        spin_found(&gpu->spin, now_ns);
    }
    report_state(gpu, now_ns);
    return nap(gpu, clock_now_ns(), next_ns);
}

/* SPDX-License-Identifier: MIT */
#include "local-mediator/shm.h"

#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "local-mediator/bell.h"
#include "local-mediator/job.h"
#include "local-mediator/vmconn.h"

#define IDLE_POLLS 4096u /* in vain, before a ring is left to its doorbell again */
#define CREDIT_AFTER_PAUSE 4

/* ---- what is to be looked at ---- */

static uint64_t all_rings(const struct shm *shm)
{
    return shm->n_rings == 64 ? UINT64_MAX : (UINT64_C(1) << shm->n_rings) - 1;
}

static void activate(struct shm *shm, uint64_t rings)
{
    if (!shm->active && rings) {
        TAILQ_INSERT_TAIL(&shm->m->active_shms, shm, active_link);
    }
    shm->active |= rings;
}

static void deactivate(struct shm *shm, uint64_t rings)
{
    uint64_t before = shm->active;

    shm->active &= ~rings;
    if (before && !shm->active) {
        TAILQ_REMOVE(&shm->m->active_shms, shm, active_link);
    }
}

static void mark_dirty(struct guest_ring *gr)
{
    struct shm *shm = gr->shm;

    if (!shm->dirty) {
        TAILQ_INSERT_TAIL(&shm->m->dirty_shms, shm, dirty_link);
    }
    shm->dirty |= UINT64_C(1) << gr->index;
}

static void clean(struct shm *shm)
{
    if (shm->dirty) {
        TAILQ_REMOVE(&shm->m->dirty_shms, shm, dirty_link);
        shm->dirty = 0;
    }
}

/* ---- doorbells ---- */

static void on_kick(uv_poll_t *bell, int status, int events);
static void break_rings(struct shm *shm, const char *why);

static void listen_bells(struct shm *shm)
{
    for (uint32_t i = 0; i < shm->n_rings; i++) {
        uv_poll_start(&shm->rings[i].bell, UV_READABLE, on_kick);
    }
}

static void ignore_bells(struct shm *shm)
{
    for (uint32_t i = 0; i < shm->n_rings; i++) {
        uv_poll_stop(&shm->rings[i].bell);
    }
}

static void on_pause_over(uv_timer_t *timer)
{
    struct shm *shm = timer->data;

    shm->paused = false;
    shm->credit = CREDIT_AFTER_PAUSE;
    if (shm->zeroed) {
        shm->zeroed = false;
        break_rings(shm, "submit_tail jumped");
    }
    if (shm->serving) {
        listen_bells(shm);
        activate(shm, all_rings(shm)); /* what was submitted meanwhile */
    }
}

/* The guest rings and rings and submits nothing. */
static void pause_bells(struct shm *shm)
{
    struct vm *vm = shm->vm;
    uint32_t suppressed = 0;

    if (log_limit_pass(&vm->log_limit, mediator_now(shm->m), &suppressed)) {
        log_warn("vm rings its doorbells in vain", LOG_S("vm", vm->c.name),
                 LOG_U("left_alone_ms", shm->pause_ms), LOG_U("suppressed", suppressed));
    }
    vm->storms++;
    shm->paused = true;
    ignore_bells(shm);
    uv_update_time(&shm->m->loop);
    uv_timer_start(&shm->pause, on_pause_over, shm->pause_ms, 0);
    shm->pause_ms = 2 * shm->pause_ms < SHM_PAUSE_MAX_MS ? 2 * shm->pause_ms : SHM_PAUSE_MAX_MS;
}

static void on_kick(uv_poll_t *bell, int status, int events)
{
    struct guest_ring *gr = bell->data;
    struct shm *shm = gr->shm;

    (void)events;
    bell_read(gr->kick);
    shm->vm->kicks++;
    if (status < 0) { /* its counter was full: libuv stopped the handle */
        uv_poll_start(bell, UV_READABLE, on_kick);
    }
    if (!shm->serving) {
        return;
    }
    if (ring_waiting(&gr->dev) == 0 && --shm->credit < 0) {
        pause_bells(shm);
        return;
    }
    activate(shm, UINT64_C(1) << gr->index);
}

static void earn_credit(struct shm *shm, uint32_t taken)
{
    shm->credit += (int)taken;
    if (shm->credit >= SHM_KICK_CREDIT) {
        shm->credit = SHM_KICK_CREDIT;
        shm->pause_ms = SHM_PAUSE_MIN_MS;
    }
}

static void signal_guest(struct guest_ring *gr)
{
    bell_ring(gr->call);
    gr->shm->vm->calls++;
}

/* Show the guest what was completed; @shm is in no list of dirty ones any more. */
static void publish(struct shm *shm)
{
    uint64_t left = shm->dirty;

    shm->dirty = 0;
    while (left) {
        struct guest_ring *gr = &shm->rings[__builtin_ctzll(left)];

        left &= left - 1;
        if (ring_device_publish(&gr->dev)) {
            signal_guest(gr);
        }
    }
}

/* ---- lives ---- */

static void *ring_base(const struct shm *shm, uint32_t ring)
{
    return shm->bytes + shm->ring_offset + ring * shm->ring_stride;
}

/* Private state of a ring from where the in-flight area says. */
static void set_ring(struct guest_ring *gr)
{
    struct shm *shm = gr->shm;
    const struct vgpu_inflight_ring *r = &shm->inflight.rings[gr->index];

    gr->count = r->submit_count;
    gr->failed = r->failed;
    gr->idle = 0;
    ring_device_init(&gr->dev, ring_base(shm, gr->index), &shm->shape, (uint32_t)gr->count,
                     r->complete_tail);
}

static void start_life(struct shm *shm, uint32_t epoch)
{
    inflight_reset(&shm->inflight, epoch, shm->m->generation);
    for (uint32_t i = 0; i < shm->n_rings; i++) {
        struct guest_ring *gr = &shm->rings[i];

        memset((uint8_t *)ring_base(shm, i) + VGPU_RING_PAGE, 0, VGPU_RING_PAGE);
        set_ring(gr);
    }
}

static void serve(struct shm *shm)
{
    if (shm->broken || shm->m->draining) {
        return;
    }
    shm->serving = true;
    shm->credit = SHM_KICK_CREDIT;
    shm->pause_ms = SHM_PAUSE_MIN_MS;
    if (!shm->paused) {
        listen_bells(shm);
    }
    activate(shm, all_rings(shm)); /* what was rung for before does not matter */
}

void shm_stop(struct shm *shm)
{
    shm->zeroed = false;
    if (shm->serving) {
        shm->serving = false;
        ignore_bells(shm);
        deactivate(shm, UINT64_MAX);
    }
}

/* The guest lost its rings until it resets its device. */
static void break_rings(struct shm *shm, const char *why)
{
    struct vm *vm = shm->vm;
    uint32_t suppressed = 0;

    if (log_limit_pass(&vm->log_limit, mediator_now(shm->m), &suppressed)) {
        log_warn("vm broke a ring", LOG_S("vm", vm->c.name), LOG_S("why", why),
                 LOG_U("suppressed", suppressed));
    }
    shm_stop(shm);
    shm->broken = true;
    inflight_break(&shm->inflight);
    job_drop_all(vm, "its device is broken");
    clean(shm);
    for (uint32_t i = 0; i < shm->n_rings; i++) {
        ring_device_set_flags(&shm->rings[i].dev, VGPU_RING_BROKEN);
        signal_guest(&shm->rings[i]);
    }
    vmconn_send_state(vm);
}

/* All that was submitted has completed: later ORDERED requests do not depend on it. */
static void forget_failures(struct guest_ring *gr)
{
    if (gr->failed && !gr->shm->adopting && TAILQ_EMPTY(&gr->jobs) && ring_waiting(&gr->dev) == 0) {
        gr->failed = false;
        inflight_forget_failures(&gr->shm->inflight, gr->index);
    }
}

/* What the last mediator had taken and not answered. */
static void adopt_request(struct guest_ring *gr, uint32_t slot)
{
    struct shm *shm = gr->shm;
    struct vgpu_inflight_slot record = *inflight_slot(&shm->inflight, gr->index, slot);
    struct vgpu_desc desc = {.slot = slot, .length = record.length, .tag = record.tag};

    if (record.length == 0 || record.length > shm->shape.slot_bytes || gr->by_slot[slot]) {
        break_rings(shm, "the in-flight area does not fit");
        return;
    }
    job_from_ring(gr, &desc, &record);
}

static void adopt_rings(struct shm *shm)
{
    uint32_t slots[VGPU_RING_ENTRIES_MAX];
    uint32_t adopted = 0;

    shm->adopting = true;
    for (uint32_t i = 0; i < shm->n_rings; i++) {
        uint32_t count = inflight_in_order(&shm->inflight, i, slots);

        for (uint32_t n = 0; n < count && !shm->broken; n++) {
            adopt_request(&shm->rings[i], slots[n]);
            adopted++;
        }
        signal_guest(&shm->rings[i]); /* completions that the last one could not tell of */
    }
    shm->adopting = false;
    for (uint32_t i = 0; i < shm->n_rings; i++) {
        forget_failures(&shm->rings[i]); /* also what the last one was killed before it forgot */
    }
    if (adopted) {
        log_info("jobs adopted", LOG_S("vm", shm->vm->c.name), LOG_U("jobs", adopted));
    }
}

int shm_listen(struct shm *shm)
{
    for (uint32_t i = 0; i < shm->n_rings; i++) {
        struct guest_ring *gr = &shm->rings[i];
        int r = uv_poll_init(&shm->m->loop, &gr->bell, gr->kick);

        if (r < 0) {
            return r;
        }
        gr->bell.data = gr;
        gr->has_bell = true;
        shm->handles++;
    }
    uv_timer_init(&shm->m->loop, &shm->pause);
    shm->pause.data = shm;
    shm->has_timer = true;
    shm->handles++;
    return 0;
}

/* The last mediator was killed between the last completion of a ring and the note that it is empty. */
static void forget_if_empty(struct guest_ring *gr)
{
    if (gr->failed && (uint32_t)gr->count == gr->dev.complete_tail && ring_waiting(&gr->dev) == 0) {
        gr->failed = false;
        inflight_forget_failures(&gr->shm->inflight, gr->index);
    }
}

void shm_adopt(struct shm *shm, uint32_t epoch)
{
    shm->adopted = inflight_adopt(&shm->inflight, epoch, shm->m->generation);
    for (uint32_t i = 0; i < shm->n_rings && shm->adopted == 0; i++) {
        set_ring(&shm->rings[i]);
        forget_if_empty(&shm->rings[i]);
    }
}

void shm_start(struct shm *shm, uint32_t epoch)
{
    switch (shm->adopted) {
    case 0:
        adopt_rings(shm);
        break;
    case INFLIGHT_E_NONE:
        start_life(shm, epoch);
        break;
    default:
        start_life(shm, epoch);
        break_rings(shm, shm->adopted == INFLIGHT_E_BROKEN ? "it did so before the mediator started"
                                                           : "the in-flight area does not fit");
        break;
    }
    serve(shm);
}

void shm_reset(struct shm *shm, uint32_t epoch)
{
    clean(shm);
    shm->broken = false;
    start_life(shm, epoch);
    serve(shm);
}

/* Attempts may hold the memory for long, and many of them; nobody needs the bells any more. */
static void close_bells(struct shm *shm)
{
    for (uint32_t i = 0; i < shm->n_rings; i++) {
        close(shm->rings[i].kick);
        close(shm->rings[i].call);
        shm->rings[i].kick = shm->rings[i].call = -1;
    }
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct guest_ring *gr;
    struct shm *shm;

    if (handle->type == UV_TIMER) {
        shm = handle->data;
    } else {
        gr = handle->data;
        shm = gr->shm;
    }
    if (--shm->handles == 0) {
        close_bells(shm);
        region_unref(shm->m, &shm->region);
    }
}

void shm_close(struct shm *shm)
{
    shm_stop(shm);
    if (shm->dirty) {
        TAILQ_REMOVE(&shm->m->dirty_shms, shm, dirty_link);
        publish(shm); /* what was answered is answered, also when the mediator stops */
    }
    shm->vm = NULL;
    if (!shm->handles) {
        region_unref(shm->m, &shm->region);
        return;
    }
    for (uint32_t i = 0; i < shm->n_rings; i++) {
        if (shm->rings[i].has_bell) {
            uv_close((uv_handle_t *)&shm->rings[i].bell, on_handle_closed);
        }
    }
    if (shm->has_timer) {
        uv_close((uv_handle_t *)&shm->pause, on_handle_closed);
    }
}

/* ---- requests in ---- */

static void take(struct guest_ring *gr, const struct vgpu_desc *desc)
{
    gr->count++;
    job_from_ring(gr, desc, NULL);
}

/* QEMU zeroes the pages of all rings before it sends RESET. */
static bool looks_reset(const struct guest_ring *gr)
{
    return __atomic_load_n(&gr->dev.map.driver->submit_tail, __ATOMIC_RELAXED) == 0;
}

static void on_broken(struct guest_ring *gr)
{
    struct shm *shm = gr->shm;

    if (!looks_reset(gr)) {
        break_rings(shm, gr->dev.wrong);
        return;
    }
    shm_stop(shm);
    shm->zeroed = true;
    uv_update_time(&shm->m->loop);
    uv_timer_start(&shm->pause, on_pause_over, SHM_RESET_MS, 0);
}

/* At most @budget requests. Return: how many. */
static uint32_t take_batch(struct guest_ring *gr, uint32_t budget)
{
    struct shm *shm = gr->shm;
    struct vgpu_desc desc;
    uint32_t taken = 0;
    int r = 0;

    while (taken < budget && shm->serving && (r = ring_take(&gr->dev, &desc)) == 0) {
        if (gr->by_slot[desc.slot]) {
            break_rings(shm, "a slot that is in use was submitted again");
            return taken;
        }
        if (taken++ == 0) {
            mediator_now(shm->m);
        }
        take(gr, &desc);
    }
    if (r == RING_E_BROKEN) {
        on_broken(gr);
    }
    return taken;
}

/* A ring in which nothing was found for long goes back to its doorbell. */
static void poll_idle(struct guest_ring *gr)
{
    if (++gr->idle >= IDLE_POLLS) {
        gr->idle = 0;
        if (!ring_device_arm(&gr->dev)) {
            deactivate(gr->shm, UINT64_C(1) << gr->index);
        }
    }
}

/* Every ring in turn, beginning with another one each time. Return: requests taken. */
static uint32_t poll_rings(struct shm *shm)
{
    uint32_t budget = SHM_TURN;
    uint32_t taken = 0;

    for (uint32_t n = 0; n < shm->n_rings && shm->serving; n++) {
        uint32_t i = (shm->turn + n) % shm->n_rings;
        uint32_t got;

        if (!(shm->active >> i & 1)) {
            continue;
        }
        got = budget ? take_batch(&shm->rings[i], budget) : 0;
        if (got) {
            shm->rings[i].idle = 0;
        } else if (budget) {
            poll_idle(&shm->rings[i]);
        }
        budget -= got;
        taken += got;
    }
    shm->turn = shm->turn + 1 < shm->n_rings ? shm->turn + 1 : 0;
    return taken;
}

bool shm_poll_all(struct mediator *m)
{
    struct shm *shm = TAILQ_FIRST(&m->active_shms);
    bool found = false;

    while (shm) {
        struct shm *next = TAILQ_NEXT(shm, active_link);
        uint32_t taken = poll_rings(shm);

        if (taken) {
            earn_credit(shm, taken);
            found = true;
        }
        shm = next;
    }
    return found;
}

bool shm_arm_all(struct mediator *m)
{
    struct shm *shm = TAILQ_FIRST(&m->active_shms);
    bool work = false;

    while (shm) {
        struct shm *next = TAILQ_NEXT(shm, active_link);
        uint64_t left = shm->active;

        while (left) {
            uint32_t i = (uint32_t)__builtin_ctzll(left);

            left &= left - 1;
            if (ring_device_arm(&shm->rings[i].dev)) {
                work = true;
            } else {
                deactivate(shm, UINT64_C(1) << i);
            }
        }
        shm = next;
    }
    return work;
}

/* ---- answers out ---- */

void shm_started(struct job *job)
{
    inflight_start(&job->ring->shm->inflight, job->ring->index, job->slot);
}

/* The longest sentence that fits the slot. */
static void cut_text(struct job *job, uint32_t most)
{
    struct vgpu_resp_hdr hdr;

    while (most > sizeof(hdr) && (job->response[most] & 0xc0) == 0x80) {
        most--; /* not inside a character */
    }
    memcpy(&hdr, job->response, sizeof(hdr));
    hdr.size = most;
    memcpy(job->response, &hdr, sizeof(hdr));
    job->response_len = most;
}

/* ORDERED requests at the head of the ring: nothing that they have to wait for is left. */
static void release_waiting(struct guest_ring *gr)
{
    struct job *job;

    if (gr->releasing) {
        return;
    }
    gr->releasing = true;
    while ((job = TAILQ_FIRST(&gr->jobs)) && job->state == JOB_WAITING) {
        job_release(job);
    }
    gr->releasing = false;
}

void shm_answer(struct job *job)
{
    struct guest_ring *gr = job->ring;
    struct shm *shm = gr->shm;
    struct vgpu_completion completion = {.tag = job->desc_tag, .seq = job->seq, .slot = job->slot};
    struct vgpu_resp_hdr hdr;

    if (job->response_len > shm->shape.slot_bytes) {
        cut_text(job, shm->shape.slot_bytes);
    }
    memcpy(&hdr, job->response, sizeof(hdr));
    completion.length = job->response_len;
    completion.error = hdr.error;
    memcpy(ring_response(&gr->dev.map, job->slot), job->response, job->response_len);
    ring_complete(&gr->dev, &completion);
    inflight_complete(&shm->inflight, gr->index, job->slot, gr->dev.complete_tail - 1, hdr.error);
    gr->failed |= hdr.error != VGPU_E_OK;
    mark_dirty(gr);
    job_answered(job);
    forget_failures(gr);
    release_waiting(gr);
}

void shm_refuse(struct guest_ring *gr, const struct vgpu_desc *desc,
                const struct vgpu_inflight_slot *adopted)
{
    struct inflight *inflight = &gr->shm->inflight;
    const struct vgpu_inflight_slot record = {
        .index = gr->dev.submit_head - 1,
        .seq = adopted ? adopted->seq : VGPU_RING_SEQ(gr->index, gr->count),
        .tag = desc->tag,
        .length = desc->length,
    };
    struct vgpu_completion completion = {
        .tag = desc->tag, .seq = record.seq, .slot = desc->slot, .error = VGPU_E_INTERNAL};

    if (!adopted) {
        inflight_take(inflight, gr->index, desc->slot, &record);
    }
    completion.length =
        response_error(ring_response(&gr->dev.map, desc->slot), gr->shm->shape.slot_bytes,
                       VGPU_OP_INFO, desc->tag, VGPU_E_INTERNAL, "the mediator is out of memory");
    ring_complete(&gr->dev, &completion);
    inflight_complete(inflight, gr->index, desc->slot, gr->dev.complete_tail - 1, VGPU_E_INTERNAL);
    gr->failed = true;
    mark_dirty(gr);
    forget_failures(gr);
}

void shm_flush_all(struct mediator *m)
{
    struct shm *shm;

    while ((shm = TAILQ_FIRST(&m->dirty_shms))) {
        TAILQ_REMOVE(&m->dirty_shms, shm, dirty_link);
        publish(shm);
    }
}

/* ---- jobs by slot, order and tag ---- */

static struct tag_head *bucket(const struct shm *shm, uint64_t tag)
{
    uint64_t mixed = tag * UINT64_C(0x9e3779b97f4a7c15);

    return (struct tag_head *)&shm->tags[mixed >> 56];
}

void shm_parsed(struct job *job)
{
    LIST_INSERT_HEAD(bucket(job->ring->shm, job->request.hdr.tag), job, tag_link);
}

struct job *shm_by_tag(const struct shm *shm, uint64_t tag, const struct job *but)
{
    struct job *job;

    LIST_FOREACH (job, bucket(shm, tag), tag_link) {
        if (job != but && !job->answered && job->request.hdr.tag == tag) {
            return job;
        }
    }
    return NULL;
}

void shm_forget(struct job *job)
{
    struct guest_ring *gr = job->ring;

    TAILQ_REMOVE(&gr->jobs, job, ring_link);
    gr->by_slot[job->slot] = NULL;
    if (job->tag_link.le_prev) {
        LIST_REMOVE(job, tag_link);
    }
}

uint32_t shm_payload_max(const struct shm *shm)
{
    uint32_t most = shm->shape.slot_bytes < VGPU_REQ_MAX ? shm->shape.slot_bytes : VGPU_REQ_MAX;

    return most - (uint32_t)sizeof(struct vgpu_resp_hdr);
}

uint32_t shm_in_flight(const struct shm *shm)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < shm->n_rings; i++) {
        count += (uint32_t)shm->rings[i].count - shm->rings[i].dev.complete_tail;
    }
    return count;
}

/* SPDX-License-Identifier: MIT */
/*
 * admit.c - from a request to the queue (declared in job.h)
 *
 * Copy once, validate the copy, stamp what the operator's configuration says, check the limits. On the
 * socket path: make room for the buffers, take the inputs. Write the identity down where the next
 * mediator finds it (the in-flight area; for the windows ACCEPT at the stub), and only then queue.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "local-mediator/dispatch.h"
#include "local-mediator/info.h"
#include "local-mediator/job.h"
#include "local-mediator/shm.h"
#include "local-mediator/vm.h"
#include "local-mediator/vmconn.h"

#define TEXT_MAX 200

/* The VM came back to a request that this mediator still has. */
static void adopt(struct vmconn *vc, struct job *job)
{
    log_info("job adopted", LOG_U("job", job->id), LOG_S("vm", vc->vm->c.name),
             LOG_S("state", jobstate_name(job->state)));
    job->orphan_ns = 0;
    vmconn_send_accept(vc, job);
    if (job->state == JOB_SENDING && !job->sending) {
        vmconn_answer(vc, job);
    }
}

static struct job *from_window(struct vmconn *vc, const struct vgpu_request *message, size_t length)
{
    struct mediator *m = vc->vm->m;
    struct vm *vm = vc->vm;
    struct job *job = job_new(vm);
    uint64_t left_ms = message->deadline_left_ms;

    if (!job) {
        return NULL;
    }
    left_ms = left_ms && left_ms < m->c.deadline ? left_ms : m->c.deadline;
    job->boot_id = vc->boot_id;
    job->epoch = vc->epoch;
    job->seq = message->seq;
    job->accept_ns = mediator_now(m);
    job->deadline_ns = job->accept_ns + left_ms * CLOCK_NS_PER_MS;
    memcpy(job->copy, message + 1, length - sizeof(*message));
    if (vc->shm) {
        TAILQ_INSERT_HEAD(&vm->jobs, job, vm_link);
    } else {
        TAILQ_INSERT_TAIL(&vm->jobs, job, vm_link);
    }
    vm->n_window_jobs++;
    return job;
}

/* ---- checks; each answers the request and returns false when it fails ---- */

static bool parse(struct job *job, size_t length)
{
    struct vmconn *vc = job->vm->conn;
    const struct request_limits limits = {
        .max_size = job->ring ? job_payload_max(job) + (uint32_t)sizeof(struct vgpu_resp_hdr)
                              : VGPU_WINDOW_SIZE,
        .payload_max = job_payload_max(job),
        .arena_size = vc->arena_size,
    };
    char why[REQUEST_WHY_MAX];
    uint32_t error = request_parse(job->copy, length, &limits, &job->request, why);

    if (error) {
        job_fail(job, error, why);
        return false;
    }
    job->bytes = job->request.arena_in + job->request.arena_out;
    if (job->ring) {
        shm_parsed(job);
    }
    return true;
}

static bool choose_pool(struct vmconn *vc, struct job *job)
{
    struct mediator *m = vc->vm->m;
    uint32_t wanted = job->request.hdr.pool;
    char text[TEXT_MAX];

    if (!wanted) {
        job->pool = vmconn_pool(vc);
        return true;
    }
    for (uint32_t i = 0; i < m->n_pools; i++) {
        if (m->pools[i]->removed || m->pools[i]->c.id != wanted) {
            continue;
        }
        if (vc->vm->pools >> i & 1) {
            job->pool = m->pools[i];
            return true;
        }
        snprintf(text, sizeof(text), "VM %s may not use pool %u; ask the operator", vc->vm->c.name,
                 wanted);
        job_fail(job, VGPU_E_DENIED, text);
        return false;
    }
    snprintf(text, sizeof(text), "there is no pool %u; 0 is this VM's default, pool %u", wanted,
             vmconn_pool(vc)->c.id);
    job_fail(job, VGPU_E_NO_POOL, text);
    return false;
}

static bool is_offered(struct job *job)
{
    const struct vgpu_req_hdr *hdr = &job->request.hdr;
    struct need need = classes_need(hdr->op, job->copy + job->request.body_offset, hdr->body_len);
    char text[TEXT_MAX];

    if (hdr->op > VGPU_OP_NUMBER_MAX) {
        snprintf(text, sizeof(text), "there is no operation %u", hdr->op);
    } else if (dispatch_workers(job->vm->m, job->pool) &&
               !classes_offers(&job->pool->offered, need)) {
        snprintf(text, sizeof(text), "no worker of pool %s offers operation %u (%s)%s",
                 job->pool->c.name, hdr->op, vgpu_op_name(hdr->op),
                 job->pool->offered.ops >> hdr->op & 1 ? " for this data type" : "");
    } else {
        return true;
    }
    job_fail(job, VGPU_E_UNSUPPORTED, text);
    return false;
}

/* Attempts whose jobs are dropped: nobody waits for them, but they may still write. */
static bool too_many_linger(const struct vm *vm)
{
    uint32_t wanted = vm->in_state[JOB_RUNNING] + vm->in_state[JOB_ENDING];

    return vm->n_writers >= wanted + VM_WRITERS_MAX;
}

static bool within_limits(struct job *job)
{
    struct tenant *tenant = job->vm->tenant;
    uint64_t most = vm_max_bytes(job->vm);
    char text[TEXT_MAX];

    if (job->bytes > most) {
        snprintf(text, sizeof(text),
                 "the request needs %" PRIu64 " bytes, the operator allows this VM %" PRIu64,
                 job->bytes, most);
        job_fail(job, VGPU_E_TOO_LARGE, text);
        return false;
    }
    if (job->vm->m->draining) {
        job_fail_busy(job, "the mediator is about to stop; another will take over");
    } else if (tenant->jobs >= tenant->c.max_queued) {
        snprintf(text, sizeof(text), "tenant %s has %u requests waiting or running, its limit",
                 tenant->c.name, tenant->jobs);
        job_fail_busy(job, text);
    } else if (job->bytes > tenant->c.max_bytes - tenant->bytes ||
               tenant->bytes > tenant->c.max_bytes) {
        snprintf(text, sizeof(text),
                 "tenant %s has %" PRIu64 " bytes in requests, its limit is %" PRIu64,
                 tenant->c.name, tenant->bytes, tenant->c.max_bytes);
        job_fail_busy(job, text);
    } else if ((!job->ring && job->vm->n_window_jobs > VM_JOBS_MAX) || too_many_linger(job->vm)) {
        job_fail_busy(job, "too many earlier requests of this VM are still being ended");
    } else {
        return true;
    }
    return false;
}

static bool make_room(struct job *job)
{
    struct shm *shm = job->vm->conn->shm;
    struct staging *s = job->vm->staging;

    if (!job->bytes) {
        return true;
    }
    if (shm) {
        job->region = region_ref(&shm->region); /* in place */
        return true;
    }
    job->region = region_ref(&s->region);
    job->staging = s;
    s->idle_ns = 0;
    for (uint32_t i = 0; i < job->request.hdr.nbufs; i++) {
        const struct vgpu_buf *buf = &job->request.bufs[i];
        int r;

        if (buf->kind != VGPU_BUF_ARENA) {
            continue;
        }
        r = ranges_alloc(&s->ranges, buf->length, &job->spans[i].offset);
        if (r == RANGES_E_NEVER) {
            job_fail(job, VGPU_E_TOO_LARGE, NULL);
        } else if (r > 0) {
            job_fail_busy(job, "this VM's staging memory is held by earlier requests");
        } else if (r < 0) {
            job_fail(job, VGPU_E_INTERNAL, "the mediator is out of memory");
        }
        if (r != 0) {
            return false;
        }
        job->spans[i].length = buf->length;
    }
    return true;
}

/* ---- from inputs to the queue ---- */

static void queue(struct job *job)
{
    struct mediator *m = job->vm->m;
    const struct vgpu_req_hdr *hdr = &job->request.hdr;
    struct need need = classes_need(hdr->op, job->copy + job->request.body_offset, hdr->body_len);

    if (classes_get(&job->pool->classes, need, &job->sched.klass) != 0) {
        job_fail_busy(job, "too many kinds of requests are queued");
        return;
    }
    job->has_class = true;
    job->sched.tenant = job->tenant->index;
    job->sched.band = job->band;
    job->sched.kind = hdr->op;
    job->sched.bytes = job->bytes;
    job->sched.deadline_ns = SCHED_NO_DEADLINE; /* the mediator's own heap has it */
    switch (sched_submit(job->pool->sched, &job->sched, m->now_ns)) {
    case 0:
        job_set_state(job, JOB_EVENT_ACCEPTED);
        dispatch_soon(m, job->pool);
        break;
    case SCHED_E_TENANT_JOBS:
    case SCHED_E_TENANT_BYTES:
        job_fail_busy(job, "the tenant has as many requests as it may");
        break;
    case SCHED_E_POOL_JOBS:
    case SCHED_E_POOL_BYTES:
        job_fail_busy(job, "the pool has as many requests as it may");
        break;
    default:
        job_fail(job, VGPU_E_INTERNAL, NULL);
    }
}

/* Nothing that a ring request has to wait for is left. */
static void run(struct job *job)
{
    if (job->request.hdr.op < VGPU_OP_FIRST_COMPUTE) {
        info_answer(job->vm->conn, job);
    } else {
        queue(job);
    }
}

static bool is_ordered(const struct job *job)
{
    return job->request.hdr.flags & VGPU_REQ_ORDERED;
}

void job_release(struct job *job)
{
    if (job->ring->failed) {
        job_fail(job, VGPU_E_DEPENDENCY, NULL);
    } else {
        run(job);
    }
}

static bool watch_deadline(struct job *job)
{
    struct mediator *m = job->vm->m;

    if (job->deadline_index == UINT32_MAX && heap_insert(&m->deadlines, job) < 0) {
        job_fail(job, VGPU_E_INTERNAL, "the mediator is out of memory");
        return false;
    }
    job_set_deadline_timer(m);
    return true;
}

static void queue_in_order(struct job *job)
{
    if (!is_ordered(job)) {
        run(job);
    } else if (TAILQ_FIRST(&job->ring->jobs) == job) {
        job_release(job);
    } else if (watch_deadline(job)) { /* of an INFO or a CANCEL it was of no interest before */
        job_set_state(job, JOB_EVENT_HELD);
    }
}

void job_accepts_left(struct vm *vm)
{
    struct job *job = TAILQ_FIRST(&vm->jobs);

    while (job) {
        struct job *next = TAILQ_NEXT(job, vm_link);

        if (job->state == JOB_ACCEPTING) {
            queue(job);
        }
        job = next;
    }
}

static void inputs_complete(struct vmconn *vc, struct job *job)
{
    job_set_state(job, JOB_EVENT_INPUTS);
    if (job->ring) {
        queue_in_order(job);
        return;
    }
    vmconn_send_accept(vc, job);
    /* A request that may not run twice must not run before its ACCEPT is on its way. */
    if (!msgconn_pending(&vc->conn)) {
        queue(job);
    }
}

static void admit(struct vmconn *vc, struct job *job)
{
    if (!choose_pool(vc, job)) {
        return;
    }
    if (!is_offered(job) || !within_limits(job)) {
        return;
    }
    job->tenant = job->vm->tenant;
    job->tenant->jobs++;
    job->tenant->bytes += job->bytes;
    if (!make_room(job)) {
        return;
    }
    if (!watch_deadline(job)) {
        return;
    }
    if (!job->staging || !job_next_buffer(job, VGPU_BUF_IN)) {
        inputs_complete(vc, job);
    }
}

/* After parse(). */
static void go_on(struct vmconn *vc, struct job *job)
{
    uint8_t wish = job->request.hdr.band;

    job->band = vm_clamp_band(vc->vm, wish == VGPU_BAND_DEFAULT ? vc->band_wish : wish);
    if (job->request.hdr.op >= VGPU_OP_FIRST_COMPUTE) {
        admit(vc, job);
    } else if (job->ring) {
        job_set_state(job, JOB_EVENT_INPUTS);
        queue_in_order(job);
    } else {
        info_answer(vc, job);
    }
}

const char *job_request(struct vmconn *vc, const struct vgpu_request *message, size_t length)
{
    bool again = message->flags & VGPU_REQUEST_AGAIN;
    struct job *job = job_find_window(vc, message->seq);

    if (message->flags & ~(VGPU_REQUEST_AGAIN | VGPU_REQUEST_ACCEPTED)) {
        return "REQUEST with unknown flags";
    }
    if (again && job && job->orphan_ns) {
        vc->last_seq = message->seq > vc->last_seq ? message->seq : vc->last_seq;
        adopt(vc, job);
        return NULL;
    }
    if (message->seq <= vc->last_seq) {
        return "REQUEST with a sequence number that was used before";
    }
    if (vc->vm->n_window_jobs >= 2 * VM_JOBS_MAX) {
        return "more unanswered requests than a VM may have";
    }
    vc->last_seq = message->seq;
    job = from_window(vc, message, length);
    if (!job) {
        return "the mediator is out of memory";
    }
    if (!parse(job, length - sizeof(*message))) {
        return NULL;
    }
    if (again && (message->flags & VGPU_REQUEST_ACCEPTED) &&
        (job->request.hdr.flags & VGPU_REQ_NO_RETRY)) {
        job_fail(job, VGPU_E_BACKEND_RESTARTED, NULL);
    } else if (vc->shm && vc->shm->broken) {
        job_fail(job, VGPU_E_BROKEN, NULL);
    } else {
        go_on(vc, job);
    }
    return NULL;
}

/* ---- from a ring ---- */

static uint64_t ring_deadline(const struct job *job, size_t length)
{
    uint64_t most_ms = job->vm->m->c.deadline;
    struct vgpu_req_hdr hdr;
    uint64_t ms = 0;

    if (length >= sizeof(hdr)) {
        memcpy(&hdr, job->copy, sizeof(hdr));
        ms = hdr.deadline_ms;
    }
    return job->accept_ns + (ms && ms < most_ms ? ms : most_ms) * CLOCK_NS_PER_MS;
}

/* Write it down for the next mediator: from here on the request is this one's. */
static void record(const struct job *job, const struct vgpu_desc *desc)
{
    const struct vgpu_inflight_slot entry = {
        .index = job->ring->dev.submit_head - 1,
        .seq = job->seq,
        .tag = desc->tag,
        .length = desc->length,
        .deadline_ns = job->deadline_ns,
    };

    inflight_take(&job->ring->shm->inflight, job->ring->index, desc->slot, &entry);
}

static void into_ring(struct job *job, struct guest_ring *gr, const struct vgpu_desc *desc)
{
    struct vmconn *vc = job->vm->conn;

    job->ring = gr;
    job->slot = desc->slot;
    job->desc_tag = desc->tag;
    job->boot_id = vc->boot_id;
    job->epoch = vc->epoch;
    gr->by_slot[desc->slot] = job;
    TAILQ_INSERT_TAIL(&gr->jobs, job, ring_link);
    TAILQ_INSERT_TAIL(&job->vm->jobs, job, vm_link);
}

void job_from_ring(struct guest_ring *gr, const struct vgpu_desc *desc,
                   const struct vgpu_inflight_slot *adopted)
{
    struct vm *vm = gr->shm->vm;
    struct job *job = job_new(vm);
    size_t length = desc->length < VGPU_REQ_MAX ? desc->length : VGPU_REQ_MAX;

    if (!job) {
        shm_refuse(gr, desc, adopted);
        return;
    }
    into_ring(job, gr, desc);
    ring_copy_in(job->copy, ring_request(&gr->dev.map, desc->slot), length);
    job->accept_ns = vm->m->now_ns;
    job->deadline_ns = ring_deadline(job, length);
    if (adopted) {
        job->seq = adopted->seq;
        job->deadline_ns =
            adopted->deadline_ns < job->deadline_ns ? adopted->deadline_ns : job->deadline_ns;
    } else {
        job->seq = VGPU_RING_SEQ(gr->index, gr->count);
        record(job, desc);
    }
    if (!parse(job, desc->length)) {
        return;
    }
    if (adopted && adopted->state == VGPU_INFLIGHT_STARTED &&
        (job->request.hdr.flags & VGPU_REQ_NO_RETRY)) {
        job_fail(job, VGPU_E_BACKEND_RESTARTED, NULL);
    } else {
        go_on(vm->conn, job);
    }
}

const char *job_input(struct vmconn *vc, const struct vgpu_data *message, size_t length)
{
    struct job *job = job_find_window(vc, message->seq);
    uint64_t bytes = length - sizeof(*message);

    if (vc->shm) {
        return "DATA on the shared-memory path";
    }
    /* Answered, adopted or given up meanwhile: the rest of its inputs is of no use. */
    if (!job || job->state != JOB_RECEIVING) {
        return message->seq <= vc->last_seq ? NULL : "DATA for a request that was never sent";
    }
    if (!job_next_buffer(job, VGPU_BUF_IN) || message->buffer != job->cursor_buffer ||
        message->offset != job->cursor_offset ||
        bytes > job->request.bufs[job->cursor_buffer].length - job->cursor_offset) {
        return "DATA that is not the next of its request";
    }
    memcpy(job->staging->bytes + job->spans[job->cursor_buffer].offset + job->cursor_offset,
           message + 1, bytes);
    job->staging->dirty = true;
    job->cursor_offset += bytes;
    vc->vm->bytes_in += bytes;
    if (!job_next_buffer(job, VGPU_BUF_IN)) {
        inputs_complete(vc, job);
    }
    return NULL;
}

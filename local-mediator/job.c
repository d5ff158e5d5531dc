/* SPDX-License-Identifier: MIT */
#include "local-mediator/job.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "local-mediator/dispatch.h"
#include "local-mediator/history.h"
#include "local-mediator/shm.h"
#include "local-mediator/vm.h"
#include "local-mediator/vmconn.h"

#define TEXT_MAX 190u /* of a sentence: fits the smallest slot */
#define RETRY_MIN_MS 20u
#define RETRY_MAX_MS 10000u
#define SPARE_JOBS_MAX 4096u

void job_set_state(struct job *job, enum job_event event)
{
    enum job_state next;

    if (jobstate_next(job->state, event, &next) != 0) {
        log_error("fault: event does not fit the state of a job", LOG_U("job", job->id),
                  LOG_S("state", jobstate_name(job->state)), LOG_U("event", event));
        return;
    }
    job->vm->in_state[job->state]--;
    job->vm->in_state[next]++;
    job->state = next;
    if (event == JOB_EVENT_PICKED && job->ring) {
        shm_started(job);
    }
}

struct job *job_new(struct vm *vm)
{
    struct mediator *m = vm->m;
    struct job *job = TAILQ_FIRST(&m->spare_jobs);

    if (job) {
        TAILQ_REMOVE(&m->spare_jobs, job, vm_link);
        m->n_spare_jobs--;
    } else {
        job = malloc(sizeof(*job));
    }
    if (!job) {
        return NULL;
    }
    /* The header of the copy, too: it is looked at when less was submitted, and was another VM's. */
    memset(job, 0, offsetof(struct job, copy) + sizeof(struct vgpu_req_hdr));
    job->vm = vm;
    job->id = ++m->next_job;
    job->deadline_index = UINT32_MAX;
    vm->in_state[job->state]++;
    vm->n_jobs++;
    m->n_jobs++;
    return job;
}

void job_free_spare(struct mediator *m, uint32_t keep)
{
    while (m->n_spare_jobs > keep) {
        struct job *job = TAILQ_LAST(&m->spare_jobs, job_head);

        TAILQ_REMOVE(&m->spare_jobs, job, vm_link);
        m->n_spare_jobs--;
        free(job);
    }
}

static void recycle(struct mediator *m, struct job *job)
{
    if (m->n_spare_jobs < SPARE_JOBS_MAX && !m->stopping) {
        TAILQ_INSERT_HEAD(&m->spare_jobs, job, vm_link);
        m->n_spare_jobs++;
    } else {
        free(job);
    }
}

uint32_t job_payload_max(const struct job *job)
{
    return job->ring ? shm_payload_max(job->ring->shm) : VGPU_PAYLOAD_MAX;
}

bool job_next_buffer(struct job *job, uint8_t dir)
{
    for (; job->cursor_buffer < job->request.hdr.nbufs; job->cursor_buffer++) {
        const struct vgpu_buf *buf = &job->request.bufs[job->cursor_buffer];

        if (buf->kind == VGPU_BUF_ARENA && buf->dir == dir && job->cursor_offset < buf->length) {
            return true;
        }
        job->cursor_offset = 0;
    }
    return false;
}

/* ---- the end of a job ---- */

static void release_spans(struct job *job)
{
    if (!job->staging) {
        return;
    }
    for (uint32_t i = 0; i < VGPU_BUFS_MAX; i++) {
        if (job->spans[i].length) {
            ranges_free(&job->staging->ranges, job->spans[i].offset, job->spans[i].length);
            job->spans[i].length = 0;
        }
    }
}

/* Take the job out of the queue or from its worker, whatever state it is in. */
static void leave_pool(struct job *job)
{
    if (job->sched.state == SCHED_QUEUED) {
        sched_remove(job->pool->sched, &job->sched);
    } else if (job->sched.state == SCHED_BOUND) {
        sched_done(job->pool->sched, &job->sched,
                   job->run_ns ? job->run_ns : job->vm->m->now_ns - job->start_ns);
    }
    if (job->attempt) {
        dispatch_abandon(job->attempt);
        job->attempt = NULL;
    }
    if (job->writer) {
        job->writer->waiter = NULL;
        job->writer = NULL;
    }
    if (job->has_class) {
        classes_put(&job->pool->classes, job->sched.klass);
        job->has_class = false;
    }
}

static void leave_deadlines(struct job *job)
{
    struct mediator *m = job->vm->m;

    if (job->deadline_index != UINT32_MAX) {
        heap_remove(&m->deadlines, job->deadline_index);
        job->deadline_index = UINT32_MAX;
    }
}

static void free_job(struct job *job)
{
    struct vm *vm = job->vm;
    struct mediator *m = vm->m;

    if (job->sending && vm->conn) {
        TAILQ_REMOVE(&vm->conn->sending, job, send_link);
    }
    leave_deadlines(job);
    release_spans(job);
    if (job->region) {
        region_unref(m, job->region);
    }
    if (job->ring) {
        shm_forget(job);
    } else {
        vm->n_window_jobs--;
    }
    if (job->tenant) {
        job->tenant->jobs--;
        job->tenant->bytes -= job->bytes;
    }
    TAILQ_REMOVE(&vm->jobs, job, vm_link);
    vm->in_state[job->state]--;
    vm->n_jobs--;
    m->n_jobs--;
    recycle(m, job);
    vm_put(vm);
    mediator_drained(m);
}

void job_answered(struct job *job)
{
    job_set_state(job, JOB_EVENT_SENT);
    free_job(job);
}

void job_drop(struct job *job, const char *why)
{
    log_debug("job dropped", LOG_U("job", job->id), LOG_S("vm", job->vm->c.name),
              LOG_S("state", jobstate_name(job->state)), LOG_S("why", why));
    if (job->state != JOB_SENDING) {
        leave_pool(job);
        history_add(job, VGPU_E_CANCELLED);
    }
    job_set_state(job, JOB_EVENT_DROP);
    free_job(job);
}

/* ---- answers ---- */

/* Complete what only the mediator knows of a response. */
static void complete_response(struct job *job)
{
    struct vgpu_resp_hdr hdr;

    memcpy(&hdr, job->response, sizeof(hdr));
    hdr.seq = job->seq;
    hdr.attempts = (uint16_t)job->tries;
    hdr.worker = job->worker;
    hdr.queued_ns = (job->start_ns ? job->start_ns : job->vm->m->now_ns) - job->accept_ns;
    memcpy(job->response, &hdr, sizeof(hdr));
}

static void count(struct job *job, uint32_t error)
{
    struct vm *vm = job->vm;

    if (error) {
        vm->failed++;
    } else {
        vm->done++;
    }
    if (job->tenant && error) {
        job->tenant->failed++;
    } else if (job->tenant) {
        job->tenant->done++;
        job->tenant->busy_ns += job->run_ns;
    }
    history_add(job, error);
}

/* In place: a range is handed back only when nobody writes to it any more. */
static bool has_writer(const struct job *job)
{
    return job->region && !job->staging && job->request.arena_out && (job->attempt || job->writer);
}

/* From now on the job waits for the end of @attempt. */
static void wait_for(struct job *job, struct attempt *attempt)
{
    job->attempt = NULL;
    job->writer = attempt;
    attempt->waiter = job;
    job_set_state(job, JOB_EVENT_UNWIND);
}

static void log_answer(const struct job *job, const struct vgpu_resp_hdr *hdr)
{
    log_debug("job answered", LOG_U("job", job->id), LOG_S("vm", job->vm->c.name),
              LOG_S("op", vgpu_op_name(hdr->op)), LOG_S("error", vgpu_error_name(hdr->error)),
              LOG_U("attempts", hdr->attempts), LOG_U("queued_ns", hdr->queued_ns),
              LOG_U("run_ns", hdr->run_ns));
}

void job_respond(struct job *job, bool success)
{
    struct vgpu_resp_hdr hdr;

    if (has_writer(job)) {
        struct attempt *attempt = job->attempt;

        job->answered = true;
        leave_deadlines(job);
        if (attempt) {
            dispatch_abandon(attempt);
            wait_for(job, attempt);
        }
        return;
    }
    leave_pool(job);
    leave_deadlines(job);
    complete_response(job);
    memcpy(&hdr, job->response, sizeof(hdr));
    count(job, hdr.error);
    job_set_state(job, JOB_EVENT_ANSWER);
    job->success = success;
    if (log_enabled(LOG_LEVEL_DEBUG)) {
        log_answer(job, &hdr);
    }
    if (job->ring) {
        shm_answer(job);
    } else if (!job->orphan_ns && job->vm->conn) {
        vmconn_answer(job->vm->conn, job);
    }
}

static void fail(struct job *job, uint32_t error, uint32_t retry_after_ms, const char *text)
{
    struct vgpu_resp_hdr hdr;

    job->response_len = response_error(job->response, sizeof(hdr) + TEXT_MAX,
                                       request_peek_op(job->copy, sizeof(hdr)),
                                       request_peek_tag(job->copy, sizeof(hdr)), error, text);
    memcpy(&hdr, job->response, sizeof(hdr));
    hdr.retry_after_ms = retry_after_ms;
    memcpy(job->response, &hdr, sizeof(hdr));
    job_respond(job, false);
}

void job_fail(struct job *job, uint32_t error, const char *text)
{
    fail(job, error, 0, text);
}

/* When the queue may have room again: its length times the mean cost, over the workers' depth. */
static uint32_t estimate_retry_ms(struct mediator *m, const struct pool *pool)
{
    uint64_t queued = 0, done = 0, busy_ns = 0, wait_ms;
    uint32_t slots = dispatch_slots(m, pool);

    for (uint8_t band = 0; band < VGPU_BANDS; band++) {
        struct sched_count c;

        sched_count_band(pool->sched, band, &c);
        queued += c.queued + c.bound;
        done += c.done;
        busy_ns += c.busy_ns;
    }
    wait_ms = done ? queued * (busy_ns / done) / CLOCK_NS_PER_MS / (slots ? slots : 1) : 100;
    wait_ms = wait_ms < RETRY_MIN_MS ? RETRY_MIN_MS : wait_ms;
    return wait_ms < RETRY_MAX_MS ? (uint32_t)wait_ms : RETRY_MAX_MS;
}

void job_fail_busy(struct job *job, const char *text)
{
    const struct pool *pool = job->pool ? job->pool : job->vm->pool;

    if (job->tenant) {
        job->tenant->refused++;
    } else {
        job->vm->tenant->refused++;
    }
    fail(job, VGPU_E_BUSY, estimate_retry_ms(job->vm->m, pool), text);
}

/* ---- after a loss ---- */

/* New OUT ranges for the next try. Return: whether there was room. */
static bool make_out_spans(struct job *job)
{
    for (uint32_t i = 0; job->staging && i < job->request.hdr.nbufs; i++) {
        const struct vgpu_buf *buf = &job->request.bufs[i];

        if (buf->kind != VGPU_BUF_ARENA || buf->dir != VGPU_BUF_OUT || job->spans[i].length) {
            continue;
        }
        if (ranges_alloc(&job->staging->ranges, buf->length, &job->spans[i].offset) != 0) {
            return false;
        }
        job->spans[i].length = buf->length;
    }
    return true;
}

static void run_again(struct job *job)
{
    if (!make_out_spans(job)) {
        job_fail_busy(job, "this VM's staging memory is held by lost workers");
        return;
    }
    job_set_state(job, JOB_EVENT_RETRY);
    sched_requeue(job->pool->sched, &job->sched);
    dispatch_soon(job->vm->m, job->pool);
}

void job_lost(struct job *job, struct attempt *attempt, uint32_t error)
{
    job->attempt = attempt; /* for has_writer(): it may still write */
    if (has_writer(job)) {
        wait_for(job, attempt);
    } else {
        job->attempt = NULL;
    }
    if (error) {
        job_fail(job, error, NULL);
    } else if (job->orphan_ns) {
        job_drop(job, "its VM is away; it sends the request again if it comes back");
    } else if (!job->writer) {
        run_again(job);
    }
}

void job_writer_gone(struct job *job)
{
    job->writer = NULL;
    if (job->answered) {
        job_respond(job, false);
    } else {
        run_again(job);
    }
}

/* ---- several jobs at a time ---- */

struct job *job_find_window(struct vmconn *vc, uint64_t seq)
{
    struct job *job;

    TAILQ_FOREACH (job, &vc->vm->jobs, vm_link) {
        if (job->ring) {
            return NULL; /* those of the windows come first */
        }
        if (job->seq == seq && job->boot_id == vc->boot_id && job->epoch == vc->epoch) {
            return job;
        }
    }
    return NULL;
}

void job_cancel_seq(struct vmconn *vc, uint64_t seq, uint32_t reason)
{
    struct job *job = job_find_window(vc, seq);

    if (job && vc->shm && job->state != JOB_SENDING && !job->answered) {
        job_fail(job, reason, NULL);
    } else if (job && !vc->shm) {
        job_drop(job, "given up by the guest");
    }
}

void job_drop_all(struct vm *vm, const char *why)
{
    uint32_t left = vm->n_jobs;

    while (left-- > 0) {
        job_drop(TAILQ_FIRST(&vm->jobs), why);
    }
}

void job_drop_other_lives(struct vm *vm, uint64_t boot_id, uint32_t epoch)
{
    struct job *job = TAILQ_FIRST(&vm->jobs);

    while (job) {
        struct job *next = TAILQ_NEXT(job, vm_link);

        if (job->boot_id != boot_id || job->epoch != epoch) {
            job_drop(job, "of another life of the device");
        }
        job = next;
    }
}

void job_orphan_all(struct vm *vm, struct vmconn *vc)
{
    struct job *job = TAILQ_FIRST(&vm->jobs);

    while (job) {
        struct job *next = TAILQ_NEXT(job, vm_link);

        if (job->sending) {
            TAILQ_REMOVE(&vc->sending, job, send_link);
            job->sending = false;
        }
        if (job->state == JOB_RUNNING || job->state == JOB_SENDING) {
            if (!job->orphan_ns) {
                job->orphan_ns = mediator_now(vm->m);
            }
        } else {
            job_drop(job, "its VM's connection broke");
        }
        job = next;
    }
}

void job_drop_orphans(struct vm *vm, uint64_t now_ns)
{
    uint64_t grace_ns = vm->m->c.reconnect * CLOCK_NS_PER_MS;
    struct job *job = TAILQ_FIRST(&vm->jobs);

    if (vm->conn && vm->conn->shm) {
        return; /* this path has none */
    }
    while (job) {
        struct job *next = TAILQ_NEXT(job, vm_link);

        if (job->orphan_ns && now_ns - job->orphan_ns >= grace_ns) {
            job_drop(job, "its VM did not come back in time");
        }
        job = next;
    }
}

/* ---- deadlines ---- */

static void expire(struct job *job)
{
    char text[128];

    if (job->state == JOB_QUEUED && !dispatch_can_run(job)) {
        snprintf(text, sizeof(text), "pool %s had no worker for %s before the deadline",
                 job->pool->c.name, vgpu_op_name(job->request.hdr.op));
        job_fail(job, VGPU_E_NO_WORKER, text);
        return;
    }
    snprintf(text, sizeof(text), "the deadline passed while the request was %s",
             jobstate_name(job->state));
    job_fail(job, VGPU_E_DEADLINE, text);
}

static void on_deadline(uv_timer_t *timer)
{
    struct mediator *m = timer->data;
    uint64_t now_ns = mediator_now(m);
    struct job *job;

    m->deadline_armed_ns = 0;
    while ((job = heap_first(&m->deadlines)) && job->deadline_ns <= now_ns) {
        expire(job);
    }
    job_set_deadline_timer(m);
}

/* The timer may end before the first deadline, when the job that it was set for is gone: it is set
 * again then, and not for every job that comes and goes. */
void job_set_deadline_timer(struct mediator *m)
{
    const struct job *first = heap_first(&m->deadlines);
    uint64_t now_ns, wait_ms;

    if (m->stopping || !first ||
        (m->deadline_armed_ns && m->deadline_armed_ns <= first->deadline_ns)) {
        return;
    }
    now_ns = mediator_now(m);
    wait_ms = first->deadline_ns > now_ns ? (first->deadline_ns - now_ns) / CLOCK_NS_PER_MS + 1 : 0;
    m->deadline_armed_ns = first->deadline_ns;
    uv_update_time(&m->loop);
    uv_timer_start(&m->deadline, on_deadline, wait_ms, 0);
}

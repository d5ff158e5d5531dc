/* SPDX-License-Identifier: MIT */
#include "local-mediator/dispatch.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "local-mediator/execconn.h"
#include "local-mediator/job.h"
#include "local-mediator/vm.h"
#include "local-mediator/vmconn.h"

/* ---- who can take work ---- */

static bool takes_work(const struct worker *w)
{
    return w->registered && w->connected && !w->draining && w->liveness == LIVENESS_UP && w->exec &&
           w->exec->channel && w->exec->liveness == LIVENESS_UP && !w->exec->kill_sent;
}

static uint32_t credits(const struct worker *w)
{
    return takes_work(w) && w->exec->held < w->depth ? w->depth - w->exec->held : 0;
}

uint32_t dispatch_workers(struct mediator *m, const struct pool *pool)
{
    uint32_t count = 0;
    struct worker *w;

    TAILQ_FOREACH (w, &m->workers, link) {
        count += w->registered && w->connected && w->pool == pool;
    }
    return count;
}

uint32_t dispatch_slots(struct mediator *m, const struct pool *pool)
{
    uint32_t count = 0;
    struct worker *w;

    TAILQ_FOREACH (w, &m->workers, link) {
        count += w->pool == pool && takes_work(w) ? w->depth : 0;
    }
    return count;
}

uint32_t dispatch_held(struct mediator *m, const struct pool *pool)
{
    uint32_t count = 0;
    struct worker *w;

    TAILQ_FOREACH (w, &m->workers, link) {
        count += w->pool == pool && w->exec ? w->exec->held : 0;
    }
    return count;
}

bool dispatch_can_run(struct job *job)
{
    struct need need = job->pool->classes.rows[job->sched.klass].need;
    struct worker *w;

    TAILQ_FOREACH (w, &job->vm->m->workers, link) {
        if (w->pool == job->pool && takes_work(w) && classes_offers(&w->offer, need)) {
            return true;
        }
    }
    return false;
}

/* ---- starting an attempt ---- */

static void free_spans(struct attempt *a)
{
    for (uint32_t i = 0; i < VGPU_BUFS_MAX; i++) {
        if (a->spans[i].length) {
            ranges_free(&a->staging->ranges, a->spans[i].offset, a->spans[i].length);
            a->spans[i].length = 0;
        }
    }
}

/* The first try writes to the ranges made at admission; they are the attempt's from now on. */
static void take_out_spans(struct job *job, struct attempt *a)
{
    for (uint32_t i = 0; i < job->request.hdr.nbufs; i++) {
        if (job->request.bufs[i].dir == VGPU_BUF_OUT) {
            a->spans[i] = job->spans[i];
            job->spans[i].length = 0;
        }
    }
}

static struct attempt *new_attempt(struct job *job, struct exec *exec)
{
    struct attempt *a = calloc(1, sizeof(*a));
    uint32_t max_job_ms = (uint32_t)job->pool->c.bands[job->band].max_job;
    struct mediator *m = job->vm->m;

    if (!a) {
        return NULL;
    }
    a->vm = job->vm;
    a->job = job;
    a->exec = exec;
    a->job_id = job->id;
    a->number = job->tries + 1;
    a->epoch = job->epoch;
    a->op = job->request.hdr.op;
    a->tag = job->request.hdr.tag;
    a->payload_len = job->request.payload_len;
    a->max_job_ms = max_job_ms;
    a->start_ns = mediator_now(m);
    /* Jobs that the executor holds already may run before this one. */
    a->limit_ns =
        a->start_ns + (max_job_ms * (UINT64_C(1) + exec->held) + m->c.kill_grace) * CLOCK_NS_PER_MS;
    if (job->staging) {
        a->staging = staging_ref(job->staging);
        a->staging->dirty = true;
        take_out_spans(job, a);
    }
    TAILQ_INSERT_TAIL(&job->vm->writers, a, vm_link);
    job->vm->n_writers++;
    TAILQ_INSERT_TAIL(&exec->attempts, a, exec_link);
    exec->held++;
    return a;
}

static void send_job(struct exec *exec, struct job *job, struct attempt *a)
{
    struct request rebased = job->request;
    _Alignas(8) uint8_t bytes[VGPU_REQ_MAX];
    uint64_t offsets[VGPU_BUFS_MAX];
    struct vgpu_job message = {
        .job = job->id,
        .attempt = a->number,
        .region = job->staging ? job->staging->region : 0,
        .tenant = job->tenant->index + 1,
        .max_job_ms = a->max_job_ms,
        .band = job->band,
    };

    memcpy(bytes, job->copy, job->request.hdr.size);
    for (uint32_t i = 0; i < VGPU_BUFS_MAX; i++) {
        offsets[i] = a->spans[i].length ? a->spans[i].offset : job->spans[i].offset;
    }
    request_rebase(bytes, &rebased, offsets);
    seqpacket_start(&message.msg, VGPU_MSG_JOB, sizeof(message) + job->request.hdr.size, 0);
    msgconn_send(&exec->conn, &message.msg, sizeof(message), bytes, -1);
}

/* Return: false when there is no memory for it. */
static bool start(struct job *job, struct worker *w)
{
    struct attempt *a = new_attempt(job, w->exec);

    if (!a) {
        return false;
    }
    job_set_state(job, JOB_EVENT_PICKED);
    job->attempt = a;
    job->tries++;
    job->start_ns = a->start_ns;
    job->worker = w->id;
    if (job->staging) {
        exec_attach(w->exec, job->staging);
    }
    send_job(w->exec, job, a);
    return true;
}

/* The worker with the largest part of its credits free, of those not marked with @turn. */
static struct worker *next_worker(struct mediator *m, const struct pool *pool, uint32_t turn)
{
    struct worker *best = NULL;
    struct worker *w;

    TAILQ_FOREACH (w, &m->workers, link) {
        if (w->pool != pool || w->turn == turn || !credits(w)) {
            continue;
        }
        if (!best || (uint64_t)credits(w) * best->depth > (uint64_t)credits(best) * w->depth) {
            best = w;
        }
    }
    return best;
}

void dispatch_pool(struct mediator *m, struct pool *pool)
{
    uint32_t turn = ++m->turn; /* workers for whom nothing was found are marked with it */
    struct worker *w;

    if (m->draining || m->stopping) {
        return;
    }
    while ((w = next_worker(m, pool, turn))) {
        const struct sched_worker able = {.classes = classes_mask(&pool->classes, &w->offer)};
        struct sched_job *picked = sched_pick(pool->sched, &able, mediator_now(m));
        struct job *job;

        if (!picked) {
            w->turn = turn;
            continue;
        }
        job = (struct job *)((char *)picked - offsetof(struct job, sched));
        if (!start(job, w)) {
            sched_requeue(pool->sched, picked);
            return;
        }
    }
}

/* ---- the end of an attempt ---- */

static void drop_credit(struct attempt *a)
{
    if (!a->lost) {
        a->lost = true;
        a->exec->held--;
    }
}

static void free_attempt(struct attempt *a)
{
    struct vm *vm = a->vm;
    struct worker *w = a->exec->worker;
    struct exec *exec = a->exec;

    drop_credit(a);
    if (a->staging) {
        free_spans(a);
        vm_drop_staging(vm->m, a->staging);
    }
    TAILQ_REMOVE(&exec->attempts, a, exec_link);
    TAILQ_REMOVE(&vm->writers, a, vm_link);
    vm->n_writers--;
    free(a);
    vmconn_writers_changed(vm);
    dispatch_pool(vm->m, w->pool);
    vm_put(vm);
}

void dispatch_abandon(struct attempt *a)
{
    struct vgpu_job_cancel cancel = {.job = a->job_id, .attempt = a->number};

    a->job = NULL;
    if (a->cancel_ns) {
        return;
    }
    a->cancel_ns = mediator_now(a->vm->m);
    seqpacket_start(&cancel.msg, VGPU_MSG_JOB_CANCEL, sizeof(cancel), 0);
    msgconn_send(&a->exec->conn, &cancel.msg, sizeof(cancel), NULL, -1);
}

static struct attempt *find_attempt(struct exec *exec, uint64_t job, uint32_t number)
{
    struct attempt *a;

    TAILQ_FOREACH (a, &exec->attempts, exec_link) {
        if (a->job_id == job && a->number == number) {
            return a;
        }
    }
    return NULL;
}

/* The result counts: the ranges it was written to become the job's. */
static void deliver(struct attempt *a, const uint8_t *response, size_t length)
{
    struct worker *w = a->exec->worker;
    struct job *job = a->job;
    struct vgpu_resp_hdr hdr;
    char why[REQUEST_WHY_MAX];

    job->attempt = NULL;
    a->job = NULL;
    if (response_check(response, length, a->op, a->tag, VGPU_PAYLOAD_MAX, &hdr, why) != VGPU_E_OK) {
        log_error("worker sent a bad response", LOG_S("worker", w->name), LOG_U("job", job->id),
                  LOG_S("why", why));
        w->failed++;
        job_fail(job, VGPU_E_INTERNAL, "the worker's response is not well formed");
        return;
    }
    w->done += hdr.error == VGPU_E_OK;
    w->failed += hdr.error != VGPU_E_OK;
    w->busy_ns += hdr.run_ns;
    for (uint32_t i = 0; i < VGPU_BUFS_MAX; i++) {
        if (a->spans[i].length) {
            job->spans[i] = a->spans[i];
            a->spans[i].length = 0;
        }
    }
    job->run_ns = hdr.run_ns;
    memcpy(job->response, response, length);
    job->response_len = (uint32_t)length;
    job_respond(job, hdr.error == VGPU_E_OK);
}

void dispatch_done(struct exec *exec, const struct vgpu_done *message, size_t length)
{
    struct attempt *a = find_attempt(exec, message->job, message->attempt);
    struct worker *w = exec->worker;
    uint32_t suppressed = 0;

    if (!a) {
        if (log_limit_pass(&w->log_limit, mediator_now(w->m), &suppressed)) {
            log_warn("DONE for no attempt", LOG_S("worker", w->name), LOG_U("job", message->job),
                     LOG_U("attempt", message->attempt), LOG_U("suppressed", suppressed));
        }
        return;
    }
    if (a->job) {
        deliver(a, (const uint8_t *)(message + 1), length - sizeof(*message));
    } else {
        w->late++;
        log_at(a->lost ? LOG_LEVEL_WARN : LOG_LEVEL_DEBUG, "late result dropped",
               LOG_S("worker", w->name), LOG_U("job", a->job_id), LOG_U("attempt", a->number));
    }
    free_attempt(a);
}

/* New OUT ranges for the next try. Return: whether there was room. */
static bool make_out_spans(struct job *job)
{
    for (uint32_t i = 0; job->staging && i < job->request.hdr.nbufs; i++) {
        const struct vgpu_buf *buf = &job->request.bufs[i];

        if (buf->kind != VGPU_BUF_ARENA || buf->dir != VGPU_BUF_OUT) {
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
    dispatch_pool(job->vm->m, job->pool);
}

void dispatch_lost(struct attempt *a, bool too_long, const char *why)
{
    struct worker *w = a->exec->worker;
    struct job *job = a->job;
    struct job_loss loss = {.too_long = too_long, .cancelled = a->cancel_ns != 0};
    uint32_t error;

    if (a->lost) {
        return;
    }
    drop_credit(a);
    w->lost++;
    a->job = NULL;
    if (!job) {
        return;
    }
    job->attempt = NULL;
    loss.tries = job->tries;
    loss.no_retry = job->request.hdr.flags & VGPU_REQ_NO_RETRY;
    error = jobstate_after_loss(&loss);
    log_warn("attempt lost", LOG_S("worker", w->name), LOG_U("job", job->id),
             LOG_S("vm", job->vm->c.name), LOG_U("attempt", a->number), LOG_S("why", why),
             LOG_S("then", error ? vgpu_error_name(error) : "runs again"));
    if (error) {
        job_fail(job, error, NULL);
    } else if (job->orphan_ns) {
        job_drop(job, "its VM is away; it sends the request again if it comes back");
    } else {
        run_again(job);
    }
}

void dispatch_gone(struct attempt *a)
{
    free_attempt(a);
}

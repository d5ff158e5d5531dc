/* SPDX-License-Identifier: MIT */
#include "local-mediator/dispatch.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "local-mediator/execconn.h"
#include "local-mediator/execring.h"
#include "local-mediator/job.h"
#include "local-mediator/region.h"
#include "local-mediator/vm.h"
#include "local-mediator/vmconn.h"

/*
 * Jobs that take less than a wake-up are given to a worker beyond its credits, so that they travel in
 * batches: an op is quick at a worker after QUICK_RUNS such jobs in a row, until one takes longer.
 */
#define QUICK_NS 20000u
#define QUICK_RUNS 64u
#define QUICK_HELD 32u /* jobs of a worker up to which more are given */

/* ---- who can take work ---- */

static bool takes_work(const struct worker *w)
{
    return w->registered && w->connected && !w->draining && w->liveness == LIVENESS_UP && w->exec &&
           w->exec->channel && w->exec->liveness == LIVENESS_UP && !w->exec->kill_sent;
}

static uint32_t credits(const struct worker *w)
{
    bool able = takes_work(w) && w->exec->held < w->depth && execring_has_room(w->exec);

    return able ? w->depth - w->exec->held : 0;
}

/* The same for quick jobs, when there are no credits. */
static uint32_t quick_credits(const struct worker *w)
{
    bool able = w->quick_ops && takes_work(w) && w->exec->held >= w->depth &&
                w->exec->held < QUICK_HELD && execring_has_room(w->exec);

    return able ? QUICK_HELD - w->exec->held : 0;
}

static void note_run(struct worker *w, uint16_t op, uint64_t run_ns)
{
    uint64_t bit = UINT64_C(1) << op;

    if (run_ns > QUICK_NS) {
        w->quick_runs[op] = 0;
        w->quick_ops &= ~bit;
    } else if (w->quick_runs[op] < QUICK_RUNS && ++w->quick_runs[op] == QUICK_RUNS) {
        w->quick_ops |= bit;
    }
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
        if (w->pool == pool && w->exec) {
            count += w->exec->held < w->depth ? w->exec->held : w->depth;
        }
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

/* NULL: the executor's ring is full. */
static struct attempt *new_attempt(struct job *job, struct exec *exec)
{
    uint32_t max_job_ms = (uint32_t)job->pool->c.bands[job->band].max_job;
    struct attempt *a = execring_take(exec);
    struct mediator *m = job->vm->m;

    if (!a) {
        return NULL;
    }
    a->vm = job->vm;
    a->job = job;
    a->job_id = job->id;
    a->number = job->tries + 1;
    a->epoch = job->epoch;
    a->op = job->request.hdr.op;
    a->tag = job->request.hdr.tag;
    a->payload_len = job->request.payload_len;
    a->max_job_ms = max_job_ms;
    a->start_ns = m->now_ns;
    /* Jobs that the executor holds already may run before this one. */
    a->limit_ns =
        a->start_ns + (max_job_ms * (UINT64_C(1) + exec->held) + m->c.kill_grace) * CLOCK_NS_PER_MS;
    if (job->region) {
        a->region = region_ref(job->region);
        exec_attach(exec, a->region);
        regionset_hold(&exec->regions, a->region->number);
    }
    if (job->staging) {
        a->staging = job->staging;
        a->staging->dirty = true;
        take_out_spans(job, a);
    }
    TAILQ_INSERT_TAIL(&job->vm->writers, a, vm_link);
    job->vm->n_writers++;
    TAILQ_INSERT_TAIL(&exec->attempts, a, exec_link);
    exec->held++;
    return a;
}

/* On the socket path buffers lie elsewhere than the guest said: in the staging memory. */
static void rebase(const struct job *job, const struct attempt *a, uint8_t *bytes)
{
    struct request rebased = job->request;
    uint64_t offsets[VGPU_BUFS_MAX];

    for (uint32_t i = 0; i < VGPU_BUFS_MAX; i++) {
        offsets[i] = a->spans[i].length ? a->spans[i].offset : job->spans[i].offset;
    }
    request_rebase(bytes, &rebased, offsets);
}

static void submit(const struct job *job, struct attempt *a)
{
    const struct vgpu_job head = {
        .job = job->id,
        .attempt = a->number,
        .region = a->region ? a->region->number : 0,
        .tenant = job->tenant->index + 1,
        .max_job_ms = a->max_job_ms,
        .band = job->band,
    };
    uint8_t *bytes = execring_request(a);

    memcpy(bytes, &head, sizeof(head));
    memcpy(bytes + sizeof(head), job->copy, job->request.hdr.size);
    if (a->staging) {
        rebase(job, a, bytes + sizeof(head));
    }
    execring_submit(a, (uint32_t)sizeof(head) + job->request.hdr.size);
}

/* Return: false when there is no room for it. */
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
    submit(job, a);
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

/* The worker that has the least to do, of those that take quick jobs. */
static struct worker *next_quick_worker(struct mediator *m, const struct pool *pool, uint32_t turn)
{
    struct worker *best = NULL;
    struct worker *w;

    TAILQ_FOREACH (w, &m->workers, link) {
        if (w->pool == pool && w->turn != turn &&
            quick_credits(w) > (best ? quick_credits(best) : 0)) {
            best = w;
        }
    }
    return best;
}

static bool has_queued(const struct pool *pool)
{
    uint64_t queued = 0;

    for (uint8_t band = 0; band < VGPU_BANDS; band++) {
        struct sched_count count;

        sched_count_band(pool->sched, band, &count);
        queued += count.queued;
    }
    return queued > 0;
}

/* Return: whether to go on. */
static bool give_one(struct pool *pool, struct worker *w, const struct sched_worker *able,
                     uint32_t turn)
{
    struct sched_job *picked = sched_pick(pool->sched, able, w->m->now_ns);

    if (!picked) {
        w->turn = turn;
        return has_queued(pool);
    }
    if (!start((struct job *)((char *)picked - offsetof(struct job, sched)), w)) {
        sched_requeue(pool->sched, picked);
        return false;
    }
    return true;
}

/* For credits; or, @quick, beyond them. Return: whether something is left that may be given. */
static bool give_all(struct mediator *m, struct pool *pool, bool quick)
{
    uint32_t turn = ++m->turn; /* workers for whom nothing was found are marked with it */
    struct worker *w, *before = NULL;
    struct sched_worker able = {0};

    while ((w = quick ? next_quick_worker(m, pool, turn) : next_worker(m, pool, turn))) {
        if (w != before) {
            const struct offer offer = {w->offer.ops & (quick ? w->quick_ops : UINT64_MAX),
                                        w->offer.dtypes};

            able.classes = classes_mask(&pool->classes, &offer);
            before = w;
        }
        if (!give_one(pool, w, &able, turn)) {
            return false;
        }
    }
    return has_queued(pool);
}

void dispatch_pool(struct mediator *m, struct pool *pool)
{
    if (m->draining || m->stopping || !has_queued(pool)) {
        return;
    }
    mediator_now(m);
    if (give_all(m, pool, false)) {
        give_all(m, pool, true);
    }
}

void dispatch_soon(struct mediator *m, struct pool *pool)
{
    if (pool && !pool->wants_dispatch) {
        pool->wants_dispatch = true;
        TAILQ_INSERT_TAIL(&m->dispatch_pools, pool, dispatch_link);
    }
}

void dispatch_flush_all(struct mediator *m)
{
    struct pool *pool;

    while ((pool = TAILQ_FIRST(&m->dispatch_pools))) {
        TAILQ_REMOVE(&m->dispatch_pools, pool, dispatch_link);
        pool->wants_dispatch = false;
        dispatch_pool(m, pool);
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

/* @completed: its slot is free, too. */
static void free_attempt(struct attempt *a, bool completed)
{
    struct job *waiter = a->waiter;
    struct exec *exec = a->exec;
    struct vm *vm = a->vm;

    drop_credit(a);
    if (a->staging) {
        free_spans(a);
    }
    if (a->region) {
        regionset_release(&exec->regions, a->region->number);
        region_unref(vm->m, a->region);
    }
    TAILQ_REMOVE(&exec->attempts, a, exec_link);
    TAILQ_REMOVE(&vm->writers, a, vm_link);
    a->vm = NULL;
    if (completed) {
        execring_give_back(a);
    }
    if (waiter) {
        job_writer_gone(waiter);
    }
    vm->n_writers--; /* only now may @vm be freed */
    dispatch_soon(vm->m, exec->worker->pool);
    vmconn_writers_changed(vm);
    vm_put(vm);
}

void dispatch_abandon(struct attempt *a)
{
    a->job = NULL;
    if (!a->cancel_ns) {
        a->cancel_ns = mediator_now(a->vm->m);
        execring_cancel(a);
    }
}

/* The result counts: the ranges it was written to become the job's. */
static void deliver(struct attempt *a, const uint8_t *shared, size_t length)
{
    struct worker *w = a->exec->worker;
    struct job *job = a->job;
    struct vgpu_resp_hdr hdr;
    char why[REQUEST_WHY_MAX];

    job->attempt = NULL;
    a->job = NULL;
    ring_copy_in(job->response, shared, length); /* the executor may go on writing */
    if (response_check(job->response, length, a->op, a->tag, job_payload_max(job), &hdr, why) !=
        VGPU_E_OK) {
        log_error("worker sent a bad response", LOG_S("worker", w->name), LOG_U("job", job->id),
                  LOG_S("why", why));
        w->failed++;
        job_fail(job, VGPU_E_INTERNAL, "the worker's response is not well formed");
        return;
    }
    w->done += hdr.error == VGPU_E_OK;
    w->failed += hdr.error != VGPU_E_OK;
    w->busy_ns += hdr.run_ns;
    note_run(w, a->op, hdr.run_ns);
    for (uint32_t i = 0; i < VGPU_BUFS_MAX; i++) {
        if (a->spans[i].length) {
            job->spans[i] = a->spans[i];
            a->spans[i].length = 0;
        }
    }
    job->run_ns = hdr.run_ns;
    job->response_len = (uint32_t)length;
    job_respond(job, hdr.error == VGPU_E_OK);
}

void dispatch_done(struct attempt *a, const uint8_t *shared, size_t length)
{
    struct worker *w = a->exec->worker;

    if (a->job) {
        deliver(a, shared, length);
    } else {
        w->late++;
        log_at(a->lost ? LOG_LEVEL_WARN : LOG_LEVEL_DEBUG, "late result dropped",
               LOG_S("worker", w->name), LOG_U("job", a->job_id), LOG_U("attempt", a->number));
    }
    free_attempt(a, true);
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
    job_lost(job, a, error);
}

void dispatch_gone(struct attempt *a)
{
    free_attempt(a, false);
}

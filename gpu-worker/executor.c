/* SPDX-License-Identifier: MIT */
/*
 * executor.c - the process that computes; see executor.h
 *
 * Life of a job: JOB -> job_prepare() -> backend -> on_completion() -> DONE. A slot is taken in
 * between; the mediator never has more jobs here than it has credits, and a job too many is
 * answered with BUSY.
 *
 * Time limit: a timer runs while jobs are in flight. A job that has run longer than its max_job_ms
 * is asked to stop; ops that look at the flag end with JOB_TOO_LONG. One that has not ended
 * OVERRUN_GRACE_MS later ends this process, because only then is it certain that it writes no more.
 */
#include "gpu-worker/executor.h"

#include <errno.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>
#include <uv.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/msgconn.h"
#include "gpu-worker/job.h"
#include "gpu-worker/pulse.h"
#include "gpu-worker/region.h"
#include "gpu-worker/sandbox.h"

#define LIMIT_TICK_MS 20
#define OVERRUN_GRACE_MS 1000 /* between the request to stop and the end of the process */
#define END_GRACE_MS 1000     /* for running jobs when the mediator has gone */
#define POLL_BATCH 32

struct executor {
    const struct options *options;
    const struct gpu_backend *backend;
    struct gpu *gpu;
    struct pulse *pulse;
    uv_loop_t loop;
    struct msgconn channel;
    uv_poll_t completion;
    uv_timer_t heartbeat;
    uv_timer_t limits; /* active while jobs are in flight */
    uv_timer_t grace;  /* active while ending */
    struct region_table regions;
    struct job *slots;
    uint32_t slot_count;
    struct job *free_slots;
    uint32_t in_flight;
    uint64_t done;
    bool ending;
    int exit_code;
    struct log_limit refused_log;
};

/* ---- answers ------------------------------------------------------------------------------- */

static void send_done(struct executor *x, uint64_t job, uint32_t attempt, const void *response,
                      uint32_t size)
{
    struct vgpu_done done = {.job = job, .attempt = attempt};

    seqpacket_start(&done.msg, VGPU_MSG_DONE, sizeof(done) + size, 0);
    msgconn_send(&x->channel, &done.msg, sizeof(done), response, -1);
}

/* A job that never reached the backend. */
static void refuse_job(struct executor *x, const struct vgpu_job *msg, uint32_t error,
                       const char *why)
{
    const void *request = msg + 1;
    size_t length = msg->msg.length - sizeof(*msg);
    _Alignas(8) uint8_t response[VGPU_REQ_MAX];
    uint32_t suppressed;
    uint32_t size = response_error(response, sizeof(response), request_peek_op(request, length),
                                   request_peek_tag(request, length), error, why);

    if (log_limit_pass(&x->refused_log, clock_now_ns(), &suppressed)) {
        log_info("job refused", LOG_U("job", msg->job), LOG_S("error", vgpu_error_name(error)),
                 LOG_S("why", why), LOG_U("suppressed", suppressed));
    }
    send_done(x, msg->job, msg->attempt, response, size);
}

static void send_detached(struct executor *x, uint32_t region)
{
    struct vgpu_detached detached = {.region = region};

    seqpacket_start(&detached.msg, VGPU_MSG_DETACHED, sizeof(detached), 0);
    msgconn_send(&x->channel, &detached.msg, sizeof(detached), NULL, -1);
}

static void send_heartbeat(struct executor *x)
{
    struct vgpu_heartbeat beat = {.progress = x->done};

    seqpacket_start(&beat.msg, VGPU_MSG_HEARTBEAT, sizeof(beat), 0);
    msgconn_send(&x->channel, &beat.msg, sizeof(beat), NULL, -1);
}

/* ---- slots --------------------------------------------------------------------------------- */

static void on_limit_tick(uv_timer_t *timer);
static void collect(struct executor *x);

static struct job *slot_take(struct executor *x)
{
    struct job *job = x->free_slots;

    if (job) {
        x->free_slots = job->next_free;
        job->next_free = job; /* in use */
    }
    return job;
}

static void slot_give_back(struct executor *x, struct job *job)
{
    job->next_free = x->free_slots;
    x->free_slots = job;
}

static bool slot_used(const struct job *job)
{
    return job->next_free == job;
}

static struct job *slot_find(struct executor *x, uint64_t id, uint32_t attempt)
{
    for (uint32_t i = 0; i < x->slot_count; i++) {
        struct job *job = &x->slots[i];
        if (slot_used(job) && job->id == id && job->attempt == attempt) {
            return job;
        }
    }
    return NULL;
}

static void count_in_flight(struct executor *x, int change)
{
    x->in_flight += change;
    atomic_store(&x->pulse->in_flight, x->in_flight);
    if (x->in_flight == 0) {
        uv_timer_stop(&x->limits);
    } else if (!uv_is_active((uv_handle_t *)&x->limits)) {
        uv_timer_start(&x->limits, on_limit_tick, LIMIT_TICK_MS, LIMIT_TICK_MS);
    }
}

/* ---- the end ------------------------------------------------------------------------------- */

static void on_grace_over(uv_timer_t *timer)
{
    struct executor *x = timer->data;

    log_warn("jobs still running at the end", LOG_U("jobs", x->in_flight));
    _exit(x->exit_code);
}

static void finish_if_idle(struct executor *x)
{
    if (x->ending && x->in_flight == 0) {
        uv_stop(&x->loop);
    }
}

static void begin_end(struct executor *x, int exit_code)
{
    if (x->ending) {
        return;
    }
    x->ending = true;
    x->exit_code = exit_code;
    msgconn_close(&x->channel, NULL);
    for (uint32_t i = 0; i < x->slot_count; i++) {
        if (slot_used(&x->slots[i])) {
            x->backend->cancel(x->gpu, &x->slots[i].gpu, VGPU_E_CANCELLED);
        }
    }
    uv_timer_start(&x->grace, on_grace_over, END_GRACE_MS, 0);
    finish_if_idle(x);
}

static void protocol_error(struct executor *x, const char *what, uint64_t number)
{
    log_error("the mediator broke the protocol", LOG_S("what", what), LOG_U("number", number));
    begin_end(x, EXECUTOR_EXIT_PROTOCOL);
}

/* ---- messages ------------------------------------------------------------------------------ */

static void on_attach(struct executor *x, const struct seqpacket_message *message)
{
    const struct vgpu_attach *attach = (const void *)message->msg;
    CLEANUP(cleanup_fd) int fd = message->fd;
    char why[GPU_WHY_MAX];

    if (region_attach(&x->regions, attach->region, fd, attach->size, why) != 0) {
        log_error("region refused", LOG_U("region", attach->region), LOG_U("bytes", attach->size),
                  LOG_S("why", why));
        send_detached(x, attach->region);
        return;
    }
    log_debug("region attached", LOG_U("region", attach->region), LOG_U("bytes", attach->size));
}

static void on_detach(struct executor *x, const struct vgpu_detach *detach)
{
    struct region *region = region_find(&x->regions, detach->region);

    if (!region) {
        protocol_error(x, "DETACH of a region that is not attached", detach->region);
        return;
    }
    if (region_detach(&x->regions, region)) {
        send_detached(x, detach->region);
    }
}

static void submit(struct executor *x, struct job *job, const struct vgpu_job *msg)
{
    struct region *region = msg->region ? region_find(&x->regions, msg->region) : NULL;
    char why[REQUEST_WHY_MAX];
    uint32_t e;

    if (msg->region && !region) {
        snprintf(why, sizeof(why), "region %u is not attached to this executor", msg->region);
        e = VGPU_E_INTERNAL;
    } else {
        e = job_prepare(job, msg, msg + 1, region, x->backend->caps(x->gpu), why);
    }
    if (!e && x->backend->submit(x->gpu, &job->gpu) != 0) {
        snprintf(why, sizeof(why), "the backend did not take the job");
        e = VGPU_E_INTERNAL;
    }
    if (e) {
        refuse_job(x, msg, e, why);
        slot_give_back(x, job);
        return;
    }
    region_hold(region);
    count_in_flight(x, 1);
    collect(x); /* a job of a few microseconds is done already */
}

static void on_job(struct executor *x, const struct vgpu_job *msg)
{
    if (slot_find(x, msg->job, msg->attempt)) {
        protocol_error(x, "JOB that is running already", msg->job);
        return;
    }
    struct job *job = slot_take(x);
    if (!job) {
        refuse_job(x, msg, VGPU_E_BUSY, "the worker has as many jobs as it announced credits");
        return;
    }
    submit(x, job, msg);
}

static void on_job_cancel(struct executor *x, const struct vgpu_job_cancel *cancel)
{
    struct job *job = slot_find(x, cancel->job, cancel->attempt);

    if (job) {
        x->backend->cancel(x->gpu, &job->gpu, VGPU_E_CANCELLED);
    }
}

static void on_message(struct msgconn *c, const struct seqpacket_message *message)
{
    struct executor *x = c->user;

    switch (message->msg->type) {
    case VGPU_MSG_ATTACH:
        on_attach(x, message);
        break;
    case VGPU_MSG_DETACH:
        on_detach(x, (const void *)message->msg);
        break;
    case VGPU_MSG_JOB:
        on_job(x, (const void *)message->msg);
        break;
    case VGPU_MSG_JOB_CANCEL:
        on_job_cancel(x, (const void *)message->msg);
        break;
    default: /* HEARTBEAT: the supervisor watches the mediator */
        break;
    }
}

static void on_end(struct msgconn *c, const char *why, bool bad)
{
    if (bad) {
        log_error("executor channel closed", LOG_S("why", why));
    }
    begin_end(c->user, bad ? EXECUTOR_EXIT_PROTOCOL : EXECUTOR_EXIT_OK);
}

static const struct msgconn_ops channel_ops = {.on_message = on_message, .on_end = on_end};

/* ---- completion, time ---------------------------------------------------------------------- */

static void end_job(struct executor *x, struct job *job)
{
    uint32_t size = job_respond(job);
    uint32_t region_id = job->region ? job->region->id : 0;

    x->done++;
    atomic_store(&x->pulse->done, x->done);
    send_done(x, job->id, job->attempt, job->response, size);
    if (region_release(&x->regions, job->region)) {
        send_detached(x, region_id);
    }
    slot_give_back(x, job);
    count_in_flight(x, -1);
}

static void collect(struct executor *x)
{
    struct gpu_job *batch[POLL_BATCH];
    size_t n;

    do {
        n = x->backend->poll(x->gpu, batch, POLL_BATCH);
        for (size_t i = 0; i < n; i++) {
            end_job(x, batch[i]->user);
        }
    } while (n == POLL_BATCH);
}

static void on_completion(uv_poll_t *poll, int status, int events)
{
    struct executor *x = poll->data;

    (void)status, (void)events;
    collect(x);
    finish_if_idle(x);
}

static void give_up(struct executor *x, const struct job *job, uint64_t ran_ms)
{
    log_error("a job ran too long and cannot be stopped; the executor ends", LOG_U("job", job->id),
              LOG_S("op", vgpu_op_name(job->request.hdr.op)), LOG_U("ran_ms", ran_ms),
              LOG_U("max_job_ms", job->max_job_ms));
    atomic_store(&x->pulse->overran_job, job->id);
    atomic_store(&x->pulse->overran_ms, (uint32_t)ran_ms);
    _exit(EXECUTOR_EXIT_OVERRAN);
}

static void check_limit(struct executor *x, struct job *job, uint64_t now_ns)
{
    uint64_t started_ns = atomic_load(&job->gpu.started_ns);
    uint64_t ran_ns = started_ns && now_ns > started_ns ? now_ns - started_ns : 0;

    if (!job->max_job_ms || ran_ns <= job->max_job_ms * CLOCK_NS_PER_MS) {
        return;
    }
    if (!job->overran_ns) {
        job->overran_ns = now_ns;
        x->backend->cancel(x->gpu, &job->gpu, VGPU_E_JOB_TOO_LONG);
    } else if (now_ns - job->overran_ns > OVERRUN_GRACE_MS * CLOCK_NS_PER_MS) {
        give_up(x, job, ran_ns / CLOCK_NS_PER_MS);
    }
}

static void on_limit_tick(uv_timer_t *timer)
{
    struct executor *x = timer->data;
    uint64_t now_ns = clock_now_ns();

    for (uint32_t i = 0; i < x->slot_count; i++) {
        if (slot_used(&x->slots[i])) {
            check_limit(x, &x->slots[i], now_ns);
        }
    }
}

static void on_heartbeat(uv_timer_t *timer)
{
    struct executor *x = timer->data;

    atomic_fetch_add(&x->pulse->beat, 1);
    send_heartbeat(x);
}

/* ---- start --------------------------------------------------------------------------------- */

static int make_slots(struct executor *x)
{
    x->slot_count = x->options->depth + 1; /* the express credit */
    x->slots = calloc(x->slot_count, sizeof(*x->slots));
    if (!x->slots) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < x->slot_count; i++) {
        slot_give_back(x, &x->slots[i]);
    }
    return 0;
}

static int open_backend(struct executor *x)
{
    struct gpu_config config = {
        .threads = x->options->threads,
        .depth = x->slot_count,
    };
    char why[GPU_WHY_MAX];

    x->backend = gpu_backend_find(x->options->backend);
    int r = x->backend ? x->backend->open(&config, &x->gpu, why) : -ENOENT;
    if (r != 0) {
        log_error("the backend cannot be opened", LOG_S("backend", x->options->backend),
                  LOG_S("why", x->backend ? why : "there is no such backend"));
        return r < 0 ? r : -ENODEV;
    }
    x->regions.backend = x->backend;
    x->regions.gpu = x->gpu;
    return 0;
}

static int start_loop(struct executor *x)
{
    int r = uv_loop_init(&x->loop);

    if (r < 0) {
        return r;
    }
    uv_timer_init(&x->loop, &x->heartbeat);
    uv_timer_init(&x->loop, &x->limits);
    uv_timer_init(&x->loop, &x->grace);
    x->heartbeat.data = x->limits.data = x->grace.data = x;
    r = uv_poll_init(&x->loop, &x->completion, x->backend->completion_fd(x->gpu));
    if (r < 0) {
        return r;
    }
    x->completion.data = x;
    uv_poll_start(&x->completion, UV_READABLE, on_completion);
    uv_timer_start(&x->heartbeat, on_heartbeat, 0, x->options->heartbeat_ms);
    return msgconn_open(&x->channel, &x->loop, EXECUTOR_FD_CHANNEL, MSGCHECK_TO_EXECUTOR,
                        &channel_ops, x);
}

static int confine(struct executor *x)
{
    int r = x->backend->confined ? sandbox_enter() : SANDBOX_E_NONE;

    log_debug("sandbox", LOG_S("state", r == 0 ? "entered" : r > 0 ? "none" : "failed"));
    return r < 0 ? r : 0;
}

static int start(struct executor *x)
{
    int r = pulse_map(EXECUTOR_FD_PULSE, &x->pulse);

    if (r == 0) {
        r = make_slots(x);
    }
    if (r == 0) {
        r = open_backend(x);
    }
    if (r == 0) {
        r = start_loop(x);
    }
    return r < 0 ? r : confine(x);
}

static void close_handle(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (!uv_is_closing(handle)) {
        uv_close(handle, NULL);
    }
}

static void stop(struct executor *x)
{
    uv_walk(&x->loop, close_handle, NULL);
    uv_run(&x->loop, UV_RUN_DEFAULT);
    uv_loop_close(&x->loop);
    region_detach_all(&x->regions);
    x->backend->close(x->gpu);
    pulse_free(x->pulse);
    free(x->slots);
}

/* Nothing of the supervisor's: no descriptors but the known ones, its death is ours. */
static bool isolate(const struct options *options)
{
    close_range(EXECUTOR_FD_PULSE + 1, ~0U, 0);
    signal(SIGPIPE, SIG_IGN);
    /* These go to the whole group or control group: the supervisor decides. */
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_NAME, "vgpu-executor");
    return (uint32_t)getppid() == options->parent;
}

int executor_main(const struct options *options)
{
    struct executor x = {.options = options, .refused_log.burst = 10};

    if (!isolate(options)) {
        return EXECUTOR_EXIT_FAILED;
    }
    int r = start(&x);
    if (r < 0) {
        log_error("the executor cannot start", LOG_S("why", strerror(-r)));
        free(x.slots);
        return EXECUTOR_EXIT_FAILED;
    }
    log_debug("executor runs", LOG_U("threads", options->threads), LOG_U("depth", options->depth));
    uv_run(&x.loop, UV_RUN_DEFAULT);
    stop(&x);
    return x.exit_code;
}

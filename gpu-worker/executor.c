/* SPDX-License-Identifier: MIT */
/*
 * executor.c - the process that computes; see executor.h
 *
 * Life of a job: descriptor in the job ring -> take() -> start_job() -> backend -> end_job() ->
 * completion. All of it happens in on_poll(), which the poller (common/poller.h) calls after a bell,
 * or again and again while work flows. Jobs beyond the announced depth wait here for a thread.
 *
 * Channel and ring are not ordered against each other. A job whose region is unknown has the channel
 * read; a JOB_CANCEL for an unknown job has the ring read, but only as far as take() goes, so that the
 * two never nest.
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
#include <sys/resource.h>
#include <unistd.h>
#include <uv.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/msgconn.h"
#include "common/poller.h"
#include "gpu-worker/job.h"
#include "gpu-worker/jobring.h"
#include "gpu-worker/pulse.h"
#include "gpu-worker/region.h"
#include "gpu-worker/sandbox.h"

#define LIMIT_TICK_MS 20
#define OVERRUN_GRACE_MS 1000 /* between the request to stop and the end of the process */
#define END_GRACE_MS 1000     /* for running jobs when the mediator has gone */
#define POLL_BATCH 32
#define TAKE_BATCH 64 /* descriptors before the loop has its turn */
/* The mediator sees completions after so many, or so much work, at the latest. */
#define PUBLISH_BATCH 32u
#define PUBLISH_NS 10000u
#define OTHER_FILES 64u /* descriptors that are no region's */

struct executor {
    const struct options *options;
    const struct gpu_backend *backend;
    struct gpu *gpu;
    struct pulse *pulse;
    uv_loop_t loop;
    struct msgconn channel;
    struct jobring ring;
    uv_poll_t bell; /* the ring's kick */
    uv_poll_t completion;
    struct poller poller;
    uv_timer_t heartbeat;
    uv_timer_t limits; /* active while jobs are in flight */
    uv_timer_t grace;  /* active while ending */
    struct region_table regions;
    struct job *jobs; /* one per slot of the ring */
    struct job_list taken, running;
    uint32_t in_flight; /* of both lists */
    uint32_t n_running;
    bool cancelled;        /* some of `taken` are */
    uint32_t most;         /* running at a time */
    uint32_t completed;    /* not published yet */
    uint64_t completed_ns; /* what they took */
    uint64_t done;
    bool refused_region; /* one at least */
    bool ending;
    int exit_code;
    struct log_limit refused_log;
};

/* ---- messages out -------------------------------------------------------------------------- */

static void send_detached(struct executor *x, uint32_t region)
{
    struct vgpu_detached detached = {.region = region};

    seqpacket_start(&detached.msg, VGPU_MSG_DETACHED, sizeof(detached), 0);
    msgconn_send(&x->channel, &detached.msg, sizeof(detached), NULL);
}

static void send_heartbeat(struct executor *x)
{
    struct vgpu_heartbeat beat = {.progress = x->done};

    seqpacket_start(&beat.msg, VGPU_MSG_HEARTBEAT, sizeof(beat), 0);
    msgconn_send(&x->channel, &beat.msg, sizeof(beat), NULL);
}

/* ---- jobs ---------------------------------------------------------------------------------- */

static void drop_job(struct executor *x, struct job_list *list, struct job *job)
{
    TAILQ_REMOVE(list, job, link);
    x->n_running -= job->state == JOB_RUNNING;
    job->state = JOB_FREE;
    x->in_flight--;
}

static void publish(struct executor *x)
{
    x->completed = 0;
    x->completed_ns = 0;
    jobring_publish(&x->ring);
}

/* The response of @bytes is in job->response. */
static void complete(struct executor *x, struct job_list *list, struct job *job, uint32_t bytes)
{
    jobring_respond(&x->ring, job, bytes);
    drop_job(x, list, job);
    x->completed_ns += job->gpu.run_ns;
    if (++x->completed >= PUBLISH_BATCH || x->completed_ns >= PUBLISH_NS) {
        publish(x);
    }
}

/* A job that never reached the backend. */
static void refuse(struct executor *x, struct job *job, uint32_t error, const char *why)
{
    uint32_t suppressed;

    job->gpu.run_ns = 0;
    if (error != VGPU_E_CANCELLED && log_limit_pass(&x->refused_log, clock_now_ns(), &suppressed)) {
        log_info("job refused", LOG_U("job", job->head.job), LOG_S("error", vgpu_error_name(error)),
                 LOG_S("why", why ? why : ""), LOG_U("suppressed", suppressed));
    }
    complete(x, &x->taken, job, job_refuse(job, error, why));
}

static void end_job(struct executor *x, struct job *job)
{
    struct region *region = job->region;
    uint32_t region_id = region ? region->id : 0;

    complete(x, &x->running, job, job_respond(job));
    x->done++;
    if (region_release(&x->regions, region)) {
        publish(x); /* its completion comes first */
        send_detached(x, region_id);
    }
}

/* Return: whether a job had ended. */
static bool collect(struct executor *x)
{
    struct gpu_job *batch[POLL_BATCH];
    bool any = false;
    size_t n;

    do {
        n = x->backend->poll(x->gpu, batch, POLL_BATCH);
        for (size_t i = 0; i < n; i++) {
            end_job(x, batch[i]->user);
            any = true;
        }
    } while (n == POLL_BATCH);
    return any;
}

static struct job *find_in(const struct job_list *list, uint64_t id, uint32_t attempt)
{
    struct job *job;

    TAILQ_FOREACH (job, list, link) {
        if (job->head.job == id && job->head.attempt == attempt) {
            return job;
        }
    }
    return NULL;
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
    struct job *job;

    if (x->ending) {
        return;
    }
    x->ending = true;
    x->exit_code = exit_code;
    msgconn_close(&x->channel, NULL);
    while ((job = TAILQ_FIRST(&x->taken))) {
        drop_job(x, &x->taken, job);
    }
    TAILQ_FOREACH (job, &x->running, link) {
        x->backend->cancel(x->gpu, &job->gpu, VGPU_E_CANCELLED);
    }
    uv_timer_start(&x->grace, on_grace_over, END_GRACE_MS, 0);
    finish_if_idle(x);
}

static void protocol_error(struct executor *x, const char *what, uint64_t number)
{
    log_error("the mediator broke the protocol", LOG_S("what", what), LOG_U("number", number));
    begin_end(x, EXECUTOR_EXIT_PROTOCOL);
}

/* ---- the ring ------------------------------------------------------------------------------ */

static void take_job(struct executor *x, const struct vgpu_desc *desc)
{
    struct job *job = &x->jobs[desc->slot];
    const char *wrong;

    if (job->state != JOB_FREE) {
        protocol_error(x, "a descriptor for a slot that is in use", desc->slot);
        return;
    }
    wrong = job_load(job, ring_request(&x->ring.end.map, desc->slot), desc->length, desc->tag);
    if (wrong) {
        protocol_error(x, wrong, desc->tag);
        return;
    }
    job->slot = desc->slot;
    job->state = JOB_TAKEN;
    TAILQ_INSERT_TAIL(&x->taken, job, link);
    x->in_flight++;
}

/* Copy what waits in the ring. Return: whether there was something. */
static bool take(struct executor *x)
{
    struct vgpu_desc desc;
    uint32_t count = 0;

    while (x->ring.memory && !x->ending && count < TAKE_BATCH) {
        int r = ring_take(&x->ring.end, &desc);

        if (r == RING_E_EMPTY) {
            break;
        }
        if (r != 0) {
            protocol_error(x, x->ring.end.wrong, x->ring.end.submit_head);
            return true;
        }
        take_job(x, &desc);
        count++;
    }
    return count > 0;
}

/* The region of @job, by what the channel says by now. */
static struct region *find_region(struct executor *x, const struct job *job)
{
    struct region *region = region_find(&x->regions, job->head.region);

    if (!region) {
        msgconn_read_all(&x->channel);
        region = x->ending ? NULL : region_find(&x->regions, job->head.region);
    }
    return region;
}

static void start_job(struct executor *x, struct job *job)
{
    struct region *region = job->head.region ? find_region(x, job) : NULL;
    char why[REQUEST_WHY_MAX];
    uint32_t e;

    if (x->ending) {
        return;
    }
    if (job->cancelled) {
        refuse(x, job, VGPU_E_CANCELLED, NULL);
        return;
    }
    if (job->head.region && !region) {
        snprintf(why, sizeof(why), "region %u is not attached to this executor", job->head.region);
        e = VGPU_E_INTERNAL;
    } else {
        e = job_prepare(job, region, x->backend->caps(x->gpu), why);
    }
    if (!e && x->backend->submit(x->gpu, &job->gpu) != 0) {
        snprintf(why, sizeof(why), "the backend did not take the job");
        e = VGPU_E_INTERNAL;
    }
    if (e) {
        refuse(x, job, e, why);
        return;
    }
    region_hold(region);
    TAILQ_REMOVE(&x->taken, job, link);
    TAILQ_INSERT_TAIL(&x->running, job, link);
    x->n_running++;
    job->state = JOB_RUNNING;
    collect(x); /* a job of a few microseconds is done already */
}

static void update_pulse(struct executor *x)
{
    atomic_store_explicit(&x->pulse->in_flight, x->in_flight, memory_order_relaxed);
    atomic_store_explicit(&x->pulse->done, x->done, memory_order_relaxed);
}

static void on_limit_tick(uv_timer_t *timer);

/* Those that were given up while they waited for room at the backend. */
static void end_cancelled(struct executor *x)
{
    struct job *job = TAILQ_FIRST(&x->taken);

    x->cancelled = false;
    while (job) {
        struct job *next = TAILQ_NEXT(job, link);

        if (job->cancelled) {
            refuse(x, job, VGPU_E_CANCELLED, NULL);
        }
        job = next;
    }
}

/* Serve what is there. Return: whether there was something. */
static bool on_poll(void *user)
{
    struct executor *x = user;
    bool any = collect(x);

    any |= take(x) | x->cancelled;
    if (x->cancelled) {
        end_cancelled(x);
    }
    while (!x->ending && !TAILQ_EMPTY(&x->taken) && x->n_running < x->most) {
        start_job(x, TAILQ_FIRST(&x->taken));
        any = true;
    }
    if (any) {
        publish(x);
        update_pulse(x);
        finish_if_idle(x);
    }
    if (!TAILQ_EMPTY(&x->running) && !uv_is_active((uv_handle_t *)&x->limits)) {
        uv_timer_start(&x->limits, on_limit_tick, LIMIT_TICK_MS, LIMIT_TICK_MS);
    }
    return any;
}

/* The loop is about to sleep. Return: whether there is something to do already. */
static bool on_arm(void *user)
{
    struct executor *x = user;
    bool any = x->backend->arm(x->gpu) | x->cancelled;

    if (x->ring.memory && !x->ending) {
        any |= ring_device_arm(&x->ring.end);
    }
    return any;
}

static const struct poller_ops poller_ops = {.poll = on_poll, .arm = on_arm};

/* What rang is looked at by the poller. */
static void on_bell(uv_poll_t *bell, int status, int events)
{
    struct executor *x = bell->data;

    (void)status, (void)events;
    (void)!read(x->ring.kick, &(uint64_t){0}, sizeof(uint64_t));
}

static void on_completion(uv_poll_t *poll, int status, int events)
{
    (void)poll, (void)status, (void)events;
}

/* ---- messages in --------------------------------------------------------------------------- */

static int make_jobs(struct executor *x)
{
    x->jobs = calloc(x->ring.end.map.shape.entries, sizeof(*x->jobs));
    return x->jobs ? 0 : -ENOMEM;
}

static int listen_to_bell(struct executor *x)
{
    int r = uv_poll_init(&x->loop, &x->bell, x->ring.kick);

    if (r == 0) {
        x->bell.data = x;
        uv_poll_start(&x->bell, UV_READABLE, on_bell);
    }
    return r;
}

/* The last that needs more than the sandbox allows, and before it no job is there. */
static int confine(struct executor *x)
{
    int r = x->backend->confined ? sandbox_enter() : SANDBOX_E_NONE;

    log_debug("sandbox", LOG_S("state", r == 0 ? "entered" : r > 0 ? "none" : "failed"));
    return r < 0 ? r : 0;
}

static void on_ring(struct executor *x, struct seqpacket_message *message)
{
    const struct vgpu_exec_ring *m = (const void *)message->msg;
    char why[GPU_WHY_MAX];
    int r;

    if (jobring_open(&x->ring, message, why) != 0) {
        log_error("the job ring cannot be used", LOG_S("why", why));
        begin_end(x, EXECUTOR_EXIT_PROTOCOL);
        return;
    }
    r = make_jobs(x);
    r = r < 0 ? r : listen_to_bell(x);
    r = r < 0 ? r : confine(x);
    if (r < 0) {
        log_error("the executor cannot start", LOG_S("why", strerror(-r)));
        begin_end(x, EXECUTOR_EXIT_FAILED);
        return;
    }
    poller_set_cap(&x->poller, m->spin_us * UINT64_C(1000));
    log_debug("job ring", LOG_U("entries", m->entries), LOG_U("spin_us", m->spin_us));
}

static void on_attach(struct executor *x, struct seqpacket_message *message)
{
    const struct vgpu_attach *attach = (const void *)message->msg;
    CLEANUP(cleanup_fd) int fd = seqpacket_take_fd(message, 0);
    int writers = seqpacket_take_fd(message, 1);
    char why[GPU_WHY_MAX];

    if (region_attach(&x->regions, attach, fd, writers, why) != 0) {
        log_error("region refused", LOG_U("region", attach->region), LOG_U("bytes", attach->size),
                  LOG_S("why", why));
        x->refused_region = true;
        send_detached(x, attach->region);
        return;
    }
    log_debug("region attached", LOG_U("region", attach->region), LOG_U("bytes", attach->size));
}

static void on_detach(struct executor *x, const struct vgpu_detach *detach)
{
    struct region *region = region_find(&x->regions, detach->region);

    if (!region && x->refused_region) {
        return; /* it crossed the refusal, which is its answer */
    }
    if (!region) {
        protocol_error(x, "DETACH of a region that is not attached", detach->region);
        return;
    }
    if (region_detach(&x->regions, region)) {
        send_detached(x, detach->region);
    }
}

static void on_job_cancel(struct executor *x, const struct vgpu_job_cancel *cancel)
{
    struct job *running = find_in(&x->running, cancel->job, cancel->attempt);
    struct job *taken = find_in(&x->taken, cancel->job, cancel->attempt);

    if (running) {
        x->backend->cancel(x->gpu, &running->gpu, VGPU_E_CANCELLED);
        return;
    }
    while (!taken && take(x)) {
        taken = find_in(&x->taken, cancel->job, cancel->attempt);
    }
    if (taken) {
        taken->cancelled = x->cancelled = true;
    }
}

static void on_message(struct msgconn *c, struct seqpacket_message *message)
{
    uint16_t type = message->msg->type;
    struct executor *x = c->user;

    if (type == VGPU_MSG_HEARTBEAT) {
        return; /* the supervisor watches the mediator */
    }
    if ((type == VGPU_MSG_RING) == (x->ring.memory != NULL)) {
        protocol_error(x, "RING must come first, once", type);
        return;
    }
    switch (type) {
    case VGPU_MSG_RING:
        on_ring(x, message);
        break;
    case VGPU_MSG_ATTACH:
        on_attach(x, message);
        break;
    case VGPU_MSG_DETACH:
        on_detach(x, (const void *)message->msg);
        break;
    default:
        on_job_cancel(x, (const void *)message->msg);
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

/* ---- time ---------------------------------------------------------------------------------- */

static void give_up(struct executor *x, const struct job *job, uint64_t ran_ms)
{
    log_error("a job ran too long and cannot be stopped; the executor ends",
              LOG_U("job", job->head.job), LOG_S("op", vgpu_op_name(job->request.hdr.op)),
              LOG_U("ran_ms", ran_ms), LOG_U("max_job_ms", job->head.max_job_ms));
    atomic_store(&x->pulse->overran_job, job->head.job);
    atomic_store(&x->pulse->overran_ms, (uint32_t)ran_ms);
    _exit(EXECUTOR_EXIT_OVERRAN);
}

static void check_limit(struct executor *x, struct job *job, uint64_t now_ns)
{
    uint64_t started_ns = atomic_load(&job->gpu.started_ns);
    uint64_t ran_ns = started_ns && now_ns > started_ns ? now_ns - started_ns : 0;

    if (!job->head.max_job_ms || ran_ns <= job->head.max_job_ms * CLOCK_NS_PER_MS) {
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
    struct job *job;

    if (TAILQ_EMPTY(&x->running)) {
        uv_timer_stop(timer);
    }
    TAILQ_FOREACH (job, &x->running, link) {
        check_limit(x, job, now_ns);
    }
}

static void on_heartbeat(uv_timer_t *timer)
{
    struct executor *x = timer->data;

    atomic_fetch_add(&x->pulse->beat, 1);
    send_heartbeat(x);
}

/* ---- start --------------------------------------------------------------------------------- */

static int open_backend(struct executor *x)
{
    struct gpu_config config = {
        .threads = x->options->threads,
        .depth = x->most,
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
    sandbox_forbid_io_uring();
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
    poller_start(&x->poller, &x->loop, 0, &poller_ops, x); /* polls as RING says */
    return msgconn_open(&x->channel, &x->loop, EXECUTOR_FD_CHANNEL, MSGCHECK_TO_EXECUTOR,
                        &channel_ops, x);
}

static int start(struct executor *x)
{
    int r = pulse_map(EXECUTOR_FD_PULSE, &x->pulse);

    if (r == 0) {
        r = open_backend(x);
    }
    return r == 0 ? start_loop(x) : r;
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
    jobring_close(&x->ring);
    pulse_free(x->pulse);
    free(x->jobs);
}

/* Every region may have a pipe's end. Return: how many regions there is room for. */
static uint32_t raise_limits(void)
{
    struct rlimit files = {.rlim_cur = 0};

    getrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
        getrlimit(RLIMIT_NOFILE, &files);
    }
    if (files.rlim_cur >= REGIONS_MAX + OTHER_FILES) {
        return REGIONS_MAX;
    }
    return files.rlim_cur > OTHER_FILES ? (uint32_t)files.rlim_cur - OTHER_FILES : 0;
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
    struct executor x = {
        .options = options,
        .most = options->depth + 1, /* the express credit */
        .refused_log.burst = 10,
    };

    x.regions.most = raise_limits();
    TAILQ_INIT(&x.taken);
    TAILQ_INIT(&x.running);
    if (!isolate(options)) {
        return EXECUTOR_EXIT_FAILED;
    }
    int r = start(&x);
    if (r < 0) {
        log_error("the executor cannot start", LOG_S("why", strerror(-r)));
        return EXECUTOR_EXIT_FAILED;
    }
    log_debug("executor runs", LOG_U("threads", options->threads), LOG_U("depth", options->depth));
    uv_run(&x.loop, UV_RUN_DEFAULT);
    stop(&x);
    return x.exit_code;
}

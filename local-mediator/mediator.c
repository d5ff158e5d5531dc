/* SPDX-License-Identifier: MIT */
/*
 * mediator.c - owns the loop: start, signals, time, stop
 *
 * SIGTERM and SIGINT: drain, then stop; a second one stops at once. SIGHUP: read the pool file again.
 */
#include "local-mediator/mediator.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/conf_text.h"
#include "local-mediator/admin.h"
#include "local-mediator/dispatch.h"
#include "local-mediator/execring.h"
#include "local-mediator/exits.h"
#include "local-mediator/job.h"
#include "local-mediator/listen.h"
#include "local-mediator/notify.h"
#include "local-mediator/registry.h"
#include "local-mediator/shm.h"
#include "local-mediator/vm.h"
#include "local-mediator/vmconn.h"
#include "local-mediator/workerconn.h"

#define LOG_BURST 10
#define HELD_UP_TICKS 4u
#define SPARE_JOBS_IDLE 64u
#define SPIN_CPUS 4u /* with fewer who polls keeps the others from working */
#define SPIN_NS 50000u

uint64_t mediator_now(struct mediator *m)
{
    m->now_ns = clock_now_ns();
    return m->now_ns;
}

/* ---- stopping ---- */

static bool is_busy(struct mediator *m)
{
    struct vm *vm;
    struct job *job;

    TAILQ_FOREACH (vm, &m->vms, link) {
        if (vm->conn && msgconn_pending(&vm->conn->conn)) {
            return true; /* an answer is still on its way out */
        }
        TAILQ_FOREACH (job, &vm->jobs, vm_link) {
            if (!job->orphan_ns && (job->state == JOB_RUNNING || job->state == JOB_ENDING ||
                                    job->state == JOB_SENDING)) {
                return true;
            }
        }
    }
    return false;
}

void mediator_drained(struct mediator *m)
{
    if (m->draining && !m->stopping && !m->drain_check.data) {
        /* Looked at from the loop: the caller is in the middle of something. */
        m->drain_check.data = m;
        uv_idle_start(&m->drain_check, m->on_drain_check);
    }
}

static void on_drain_check(uv_idle_t *idle)
{
    struct mediator *m = idle->data;

    uv_idle_stop(idle);
    idle->data = NULL;
    if (!is_busy(m)) {
        log_info("drained");
        mediator_stop(m);
    }
}

/* Requests that wait are left to the next mediator, which the VMs send them to again; those that
 * may not be sent again, because they were accepted, are told to the guest. */
static void hand_back_queued(struct vm *vm)
{
    struct job *job = TAILQ_FIRST(&vm->jobs);

    while (job) {
        struct job *next = TAILQ_NEXT(job, vm_link);

        if (!job->ring && (job->state == JOB_QUEUED || job->state == JOB_ACCEPTING) &&
            (job->request.hdr.flags & VGPU_REQ_NO_RETRY)) {
            job_fail_busy(job, "the mediator stops; it did not run");
        }
        job = next;
    }
}

static void drain(struct mediator *m)
{
    struct vm *vm = TAILQ_FIRST(&m->vms);

    log_info("draining", LOG_U("jobs", m->n_jobs), LOG_U("at_most_ms", m->c.drain));
    notify_send("STOPPING=1");
    m->draining = true;
    m->drain_until_ns = mediator_now(m) + m->c.drain * CLOCK_NS_PER_MS;
    while (vm) {
        struct vm *next = TAILQ_NEXT(vm, link);

        vmconn_send_state(vm);
        if (vm->conn && vm->conn->shm) {
            shm_stop(vm->conn->shm); /* what waits in its rings is the next mediator's */
        }
        hand_back_queued(vm);
        vm = next;
    }
    mediator_drained(m);
}

static void close_handle(uv_handle_t *handle)
{
    if (!uv_is_closing(handle)) {
        uv_close(handle, NULL);
    }
}

void mediator_stop(struct mediator *m)
{
    struct vm *vm;
    struct worker *w;

    if (m->stopping) {
        return;
    }
    log_info("stopping");
    m->stopping = true;
    while ((vm = vm_first_present(m))) {
        vm_remove(vm, NULL);
    }
    w = TAILQ_FIRST(&m->workers);
    while (w) {
        struct worker *next = TAILQ_NEXT(w, link);

        worker_close(w);
        w = next;
    }
    listen_stop(&m->worker_listener, NULL);
    admin_free(m->admin);
    m->admin = NULL;
    close_handle((uv_handle_t *)&m->tick);
    close_handle((uv_handle_t *)&m->deadline);
    close_handle((uv_handle_t *)&m->drain_check);
    poller_stop(&m->poller);
    for (size_t i = 0; i < sizeof(m->signals) / sizeof(m->signals[0]); i++) {
        close_handle((uv_handle_t *)&m->signals[i]);
    }
}

/* ---- signals and time ---- */

static void on_tick(uv_timer_t *timer);

static uint64_t tick_period_ms(const struct mediator *m)
{
    uint64_t period_ms = m->c.heartbeat / 2;

    return period_ms < MEDIATOR_TICK_MS_MAX ? period_ms : MEDIATOR_TICK_MS_MAX;
}

static void start_tick(struct mediator *m)
{
    m->tick_ns = mediator_now(m);
    uv_update_time(&m->loop); /* after a long reload: not before what peers sent is read */
    uv_timer_start(&m->tick, on_tick, tick_period_ms(m), tick_period_ms(m));
}

static void set_spin(struct mediator *m)
{
    m->spin_ns =
        m->c.spin == CONF_AUTO ? poller_default_cap_ns(SPIN_CPUS, SPIN_NS) : m->c.spin * 1000;
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct mediator *m = handle->data;

    if (number == SIGHUP) {
        notify_send("RELOADING=1");
        registry_reload(m);
        set_spin(m);
        poller_set_cap(&m->poller, m->spin_ns);
        start_tick(m);
        notify_send("READY=1");
    } else if (m->draining) {
        log_warn("second signal: stopping at once", LOG_I("signal", number));
        mediator_stop(m);
    } else {
        log_info("signal", LOG_I("signal", number));
        drain(m);
    }
}

static void tick_vms(struct mediator *m, uint64_t now_ns)
{
    struct vm *vm = TAILQ_FIRST(&m->vms);

    while (vm) {
        struct vm *next = TAILQ_NEXT(vm, link);

        if (!vm->removed) {
            listen_resume(&vm->listener);
            vmconn_tick(vm, now_ns);
            vm_release_idle(vm, now_ns);
            job_drop_orphans(vm, now_ns);
        }
        vm = next;
    }
}

/* This process was stopped or starved: what peers sent meanwhile is still unread. */
static bool was_held_up(struct mediator *m, uint64_t now_ns)
{
    uint64_t gap_ns = now_ns - m->tick_ns;
    bool held_up = gap_ns > HELD_UP_TICKS * tick_period_ms(m) * CLOCK_NS_PER_MS;

    m->tick_ns = now_ns;
    if (held_up) {
        log_warn("the mediator was held up", LOG_U("ms", gap_ns / CLOCK_NS_PER_MS));
    }
    return held_up;
}

static void on_tick(uv_timer_t *timer)
{
    struct mediator *m = timer->data;
    uint64_t now_ns = mediator_now(m);
    bool held_up = was_held_up(m, now_ns);
    struct worker *w = TAILQ_FIRST(&m->workers);

    while (w) {
        struct worker *next = TAILQ_NEXT(w, link);

        if (held_up) {
            worker_excuse(w, now_ns);
        }
        worker_tick(w, now_ns);
        w = next;
    }
    tick_vms(m, now_ns);
    job_free_spare(m, m->n_jobs + SPARE_JOBS_IDLE);
    listen_resume(&m->worker_listener);
    if (m->draining && !m->stopping && now_ns >= m->drain_until_ns) {
        log_warn("not drained in time", LOG_U("jobs", m->n_jobs));
        mediator_stop(m);
    }
    mediator_drained(m);
}

/* ---- shared memory ---- */

static void flush_all(struct mediator *m)
{
    dispatch_flush_all(m);
    exec_flush_all(m);
    shm_flush_all(m);
}

static bool poll_all(void *user)
{
    struct mediator *m = user;
    bool completed = exec_poll_all(m);
    bool submitted = shm_poll_all(m);

    flush_all(m);
    return completed || submitted;
}

static bool arm_all(void *user)
{
    struct mediator *m = user;
    bool completed, submitted;

    flush_all(m);
    completed = exec_arm_all(m);
    submitted = shm_arm_all(m);
    return completed || submitted;
}

static const struct poller_ops poller_ops = {poll_all, arm_all};

/* ---- starting ---- */

static bool comes_before(const void *a, const void *b)
{
    return ((const struct job *)a)->deadline_ns < ((const struct job *)b)->deadline_ns;
}

static void set_index(void *item, uint32_t index)
{
    ((struct job *)item)->deadline_index = index;
}

static int start_loop(struct mediator *m)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP};
    int r;

    uv_timer_init(&m->loop, &m->tick);
    uv_timer_init(&m->loop, &m->deadline);
    uv_idle_init(&m->loop, &m->drain_check);
    m->tick.data = m->deadline.data = m;
    set_spin(m);
    poller_start(&m->poller, &m->loop, m->spin_ns, &poller_ops, m);
    m->drain_check.data = NULL;
    m->on_drain_check = on_drain_check;
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        uv_signal_init(&m->loop, &m->signals[i]);
        m->signals[i].data = m;
    }
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        r = uv_signal_start(&m->signals[i], on_signal, numbers[i]);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static int start_worker_socket(struct mediator *m)
{
    const struct listen_owner owner = {.shared = true};
    char why[256];
    int r;

    snprintf(m->worker_listener.path, sizeof(m->worker_listener.path), "%s/worker.sock",
             m->run_dir);
    m->worker_listener.on_connect = worker_on_connect;
    m->worker_listener.user = m;
    r = listen_start(&m->worker_listener, &m->loop, SOCK_SEQPACKET, &owner, why);
    if (r < 0) {
        log_error("worker socket refused", LOG_S("why", why));
    }
    return r;
}

static int start(struct mediator *m, const struct conf *conf)
{
    int r;

    m->c = conf->mediator;
    r = start_loop(m);
    r = r < 0 ? r : registry_apply(m, conf);
    r = r < 0 ? r : admin_new(m, &m->admin);
    r = r < 0 ? r : start_worker_socket(m); /* last: who sees it sees all the others */
    if (r == 0) {
        start_tick(m);
    }
    return r;
}

static void init(struct mediator *m, const char *config_path, const char *run_dir)
{
    m->config_path = config_path;
    m->run_dir = run_dir;
    m->euid = geteuid();
    m->start_ns = clock_now_ns();
    m->log_limit.burst = LOG_BURST;
    m->worker_listener.fd = -1;
    m->deadlines.less = comes_before;
    m->deadlines.set_index = set_index;
    TAILQ_INIT(&m->vms);
    TAILQ_INIT(&m->workers);
    TAILQ_INIT(&m->busy_execs);
    TAILQ_INIT(&m->flush_execs);
    TAILQ_INIT(&m->dispatch_pools);
    TAILQ_INIT(&m->spare_jobs);
    TAILQ_INIT(&m->active_shms);
    TAILQ_INIT(&m->dirty_shms);
    if (getrandom(&m->generation, sizeof(m->generation), 0) != sizeof(m->generation)) {
        m->generation = clock_wall_ns();
    }
}

static int serve(struct mediator *m, const struct conf *conf)
{
    int r = start(m, conf);

    if (r < 0) {
        mediator_stop(m);
    } else {
        log_info("ready", LOG_S("run_dir", m->run_dir), LOG_U("vms", m->n_vms),
                 LOG_U("pools", m->n_pools));
        notify_send("READY=1");
    }
    uv_run(&m->loop, UV_RUN_DEFAULT);
    if (r < 0) {
        return r == -EADDRINUSE ? EXIT_IN_USE : EXIT_START;
    }
    return EXIT_OK;
}

int mediator_run(const char *config_path, const char *run_dir)
{
    CLEANUP(conf_freep) struct conf *conf = NULL;
    CLEANUP(cleanup_free) struct conf_errors *errors = malloc(sizeof(*errors));
    CLEANUP(cleanup_free) struct mediator *m = calloc(1, sizeof(*m));
    int status;

    if (!m || !errors || uv_loop_init(&m->loop) < 0) {
        log_error("cannot start: out of memory");
        return EXIT_START;
    }
    init(m, config_path, run_dir);
    if (conf_load(config_path, &conf, errors) != 0) {
        registry_log_errors(errors);
        uv_loop_close(&m->loop);
        return EXIT_CONFIG;
    }
    status = serve(m, conf);
    if (uv_loop_close(&m->loop) < 0) {
        log_error("fault: a handle was left open");
    }
    registry_fini(m);
    job_free_spare(m, 0);
    heap_fini(&m->deadlines);
    return status;
}

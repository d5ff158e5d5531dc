/* SPDX-License-Identifier: MIT */
/*
 * supervisor.c - see supervisor.h
 *
 * Invariants:
 *   - there is at most one executor, and it belongs to the connection that is up: when the
 *     connection ends the executor is killed, and a new connection is made only when it was reaped
 *   - EXECUTOR_GONE is sent only for a reaped executor
 *   - every way out passes leave_if_gone(): the process ends when it has no executor
 */
#include "gpu-worker/supervisor.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/msgconn.h"
#include "gpu-worker/child.h"
#include "gpu-worker/gpu.h"

#define CONNECT_RETRY_MIN_MS 50u
#define CONNECT_RETRY_MAX_MS 2000u
#define REFUSED_RETRY_MS 2000u /* at least, after a REFUSED */
#define REGISTER_TIMEOUT_MS 10000u
#define RESTART_MIN_MS 20u
#define RESTART_MAX_MS 5000u
#define RESTART_GOOD_NS (10 * CLOCK_NS_PER_S) /* an executor that ran this long was all right */
#define HEARTBEAT_MIN_MS 10u
#define HEARTBEAT_MAX_MS 60000u
#define SILENT_PERIODS_MAX 6u
#define DRAIN_TICK_MS 50u
#define DRAIN_QUIET_TICKS 6u /* without a job, before a draining worker is finished */

enum state { STATE_DOWN, STATE_REGISTERING, STATE_UP };

struct supervisor {
    const struct options *options;
    const struct gpu_backend *backend;
    struct gpu_caps caps;
    uint64_t boot_id;
    uv_loop_t loop;
    uv_signal_t term, interrupt;
    enum state state;
    struct msgconn conn;
    bool conn_closing;
    uv_timer_t connect_timer; /* DOWN: next try; REGISTERING: the answer is late */
    uint32_t connect_retry_ms;
    int last_connect_error;
    uv_timer_t heartbeat;
    uint32_t heartbeat_ms;
    uint32_t silent_periods; /* of the mediator */
    uint64_t beats;
    struct child child;
    uint32_t executors; /* started so far */
    uv_timer_t restart;
    uint32_t restart_ms;
    uv_timer_t drain_timer;
    uint32_t quiet_ticks;
    bool draining; /* asked to end */
    bool leaving;  /* ends as soon as the executor is gone */
    int exit_code;
};

static void connect_later(struct supervisor *s, uint32_t least_ms);
static void start_executor(struct supervisor *s);

/* ---- messages to the mediator -------------------------------------------------------------- */

static uint64_t all_dtypes(const struct gpu_caps *caps)
{
    uint64_t dtypes = 0;

    for (unsigned op = 0; op < GPU_OPS_MAX; op++) {
        dtypes |= caps->op_dtypes[op];
    }
    return dtypes;
}

static void copy_name(char *to, const char *from)
{
    memcpy(to, from, strnlen(from, VGPU_NAME_MAX)); /* the rest of a fixed name is zero */
}

static void send_register(struct supervisor *s)
{
    struct vgpu_register reg = {
        .version_min = VGPU_LOCAL_VERSION_MIN,
        .version_max = VGPU_LOCAL_VERSION_MAX,
        .depth = s->options->depth,
        .ops = s->caps.ops,
        .dtypes = all_dtypes(&s->caps),
        .memory_bytes = s->caps.memory_bytes,
        .boot_id = s->boot_id,
    };

    seqpacket_start(&reg.msg, VGPU_MSG_REGISTER, sizeof(reg), 0);
    copy_name(reg.name, s->options->name);
    copy_name(reg.pool, s->options->pool);
    copy_name(reg.backend, s->backend->name);
    copy_name(reg.device, s->caps.device);
    msgconn_send(&s->conn, &reg.msg, sizeof(reg), NULL);
}

static void send_executor(struct supervisor *s, int channel)
{
    struct vgpu_executor executor = {
        .executor = s->child.number,
        .pid = (uint32_t)s->child.process.pid,
    };

    seqpacket_start(&executor.msg, VGPU_MSG_EXECUTOR, sizeof(executor), 0);
    msgconn_send_fds(&s->conn, &executor.msg, sizeof(executor), NULL, &channel, 1);
}

static void send_executor_gone(struct supervisor *s, uint32_t status)
{
    struct vgpu_executor_gone gone = {.executor = s->child.number, .status = status};
    size_t text = strlen(s->child.why);

    seqpacket_start(&gone.msg, VGPU_MSG_EXECUTOR_GONE, sizeof(gone) + text, 0);
    msgconn_send(&s->conn, &gone.msg, sizeof(gone), s->child.why);
}

static void send_heartbeat(struct supervisor *s)
{
    struct vgpu_heartbeat beat = {.progress = s->beats};

    seqpacket_start(&beat.msg, VGPU_MSG_HEARTBEAT, sizeof(beat), 0);
    msgconn_send(&s->conn, &beat.msg, sizeof(beat), NULL);
}

static void send_drain(struct supervisor *s)
{
    struct vgpu_drain drain;

    seqpacket_start(&drain.msg, VGPU_MSG_DRAIN, sizeof(drain), 0);
    msgconn_send(&s->conn, &drain.msg, sizeof(drain), NULL);
}

/* ---- the end ------------------------------------------------------------------------------- */

static void leave_if_gone(struct supervisor *s)
{
    if (s->leaving && !s->child.running) {
        msgconn_close(&s->conn, NULL);
        uv_stop(&s->loop);
    }
}

static void leave(struct supervisor *s, int exit_code)
{
    s->leaving = true;
    s->exit_code = exit_code;
    child_kill(&s->child, "the worker ends");
    leave_if_gone(s);
}

static void on_drain_tick(uv_timer_t *timer)
{
    struct supervisor *s = timer->data;

    s->quiet_ticks = child_jobs(&s->child) ? 0 : s->quiet_ticks + 1;
    if (s->quiet_ticks >= DRAIN_QUIET_TICKS && !s->leaving) {
        log_info("drained");
        leave(s, SUPERVISOR_EXIT_DRAINED);
    }
}

static void drain(struct supervisor *s)
{
    if (s->draining) {
        return;
    }
    s->draining = true;
    if (s->state != STATE_UP) {
        leave(s, SUPERVISOR_EXIT_DRAINED);
        return;
    }
    log_info("draining", LOG_U("jobs", child_jobs(&s->child)));
    send_drain(s);
    uv_timer_start(&s->drain_timer, on_drain_tick, DRAIN_TICK_MS, DRAIN_TICK_MS);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct supervisor *s = handle->data;

    if (!s->draining) {
        drain(s);
    } else if (!s->leaving) {
        log_warn("asked twice to end: jobs are cut off", LOG_I("signal", number),
                 LOG_U("jobs", child_jobs(&s->child)));
        leave(s, SUPERVISOR_EXIT_HURRIED);
    }
}

/* ---- the executor -------------------------------------------------------------------------- */

static void on_restart(uv_timer_t *timer)
{
    start_executor(timer->data);
}

static void restart_later(struct supervisor *s)
{
    uv_timer_start(&s->restart, on_restart, s->restart_ms, 0);
    s->restart_ms = s->restart_ms * 2 > RESTART_MAX_MS ? RESTART_MAX_MS : s->restart_ms * 2;
}

static void on_child_gone(struct child *child, uint32_t status)
{
    struct supervisor *s = child->user;

    if (s->state == STATE_UP) {
        send_executor_gone(s, status);
    }
    if (clock_now_ns() - child->started_ns > RESTART_GOOD_NS) {
        s->restart_ms = RESTART_MIN_MS;
    }
    if (s->leaving) {
        leave_if_gone(s);
    } else if (s->state == STATE_UP && !s->draining) {
        restart_later(s);
    } else if (s->state == STATE_DOWN) {
        connect_later(s, 0);
    }
}

static void start_executor(struct supervisor *s)
{
    CLEANUP(cleanup_fd) int channel = -1;

    if (s->state != STATE_UP || s->draining || s->child.running) {
        return;
    }
    int r = child_start(&s->child, &s->loop, s->options, ++s->executors, s->heartbeat_ms, &channel);
    if (r < 0) {
        log_error("the executor cannot be started", LOG_S("why", strerror(-r)));
        restart_later(s);
        return;
    }
    log_info("executor started", LOG_U("executor", s->child.number),
             LOG_I("pid", s->child.process.pid));
    send_executor(s, channel);
}

/* ---- the mediator -------------------------------------------------------------------------- */

static void on_conn_closed(struct msgconn *c)
{
    struct supervisor *s = c->user;

    s->conn_closing = false;
    if (!s->leaving && !s->child.running) {
        connect_later(s, 0);
    }
}

/* The connection is of no use any more. Jobs whose mediator cannot hear of their end must end. */
static void drop_connection(struct supervisor *s)
{
    s->state = STATE_DOWN;
    s->conn_closing = true;
    uv_timer_stop(&s->heartbeat);
    uv_timer_stop(&s->restart);
    uv_timer_stop(&s->connect_timer);
    msgconn_close(&s->conn, on_conn_closed);
    child_kill(&s->child, "the mediator is gone");
    if (s->draining) {
        leave(s, SUPERVISOR_EXIT_DRAINED);
    }
}

static void on_heartbeat(uv_timer_t *timer)
{
    struct supervisor *s = timer->data;

    s->beats++;
    send_heartbeat(s);
    child_watch(&s->child);
    if (++s->silent_periods > SILENT_PERIODS_MAX) {
        log_warn("the mediator is silent", LOG_U("periods", s->silent_periods - 1),
                 LOG_U("period_ms", s->heartbeat_ms));
        drop_connection(s);
    }
}

static uint32_t bound(uint32_t value, uint32_t least, uint32_t most)
{
    return value < least ? least : value > most ? most : value;
}

static void on_register_ack(struct supervisor *s, const struct vgpu_register_ack *ack)
{
    if (ack->version < VGPU_LOCAL_VERSION_MIN || ack->version > VGPU_LOCAL_VERSION_MAX) {
        log_error("the mediator chose a version that this worker does not speak",
                  LOG_U("version", ack->version));
        drop_connection(s);
        return;
    }
    s->state = STATE_UP;
    s->connect_retry_ms = CONNECT_RETRY_MIN_MS;
    s->restart_ms = RESTART_MIN_MS;
    s->silent_periods = 0;
    s->heartbeat_ms = bound(ack->heartbeat_ms, HEARTBEAT_MIN_MS, HEARTBEAT_MAX_MS);
    uv_timer_stop(&s->connect_timer);
    uv_timer_start(&s->heartbeat, on_heartbeat, s->heartbeat_ms, s->heartbeat_ms);
    log_info("registered", LOG_S("name", s->options->name), LOG_U("worker", ack->worker_id),
             LOG_U("heartbeat_ms", s->heartbeat_ms), LOG_U("max_job_ms", ack->max_job_ms));
    start_executor(s);
}

static void on_refused(struct supervisor *s, const struct vgpu_refused *refused)
{
    int length = (int)(refused->msg.length - sizeof(*refused));
    char text[CHILD_WHY_MAX];

    snprintf(text, sizeof(text), "%.*s", length, (const char *)(refused + 1));
    log_error("the mediator refused this worker", LOG_S("name", s->options->name),
              LOG_U("reason", refused->reason), LOG_S("text", text));
    s->connect_retry_ms = REFUSED_RETRY_MS;
    drop_connection(s);
}

static void on_kill_executor(struct supervisor *s, const struct vgpu_kill_executor *kill)
{
    if (s->child.running && s->child.number == kill->executor) {
        log_warn("the mediator ends the executor", LOG_U("executor", kill->executor),
                 LOG_S("reason", vgpu_error_name(kill->reason)));
        child_kill(&s->child, "the mediator asked for it");
    }
}

/* Which message may come in which state; everything else ends the connection. */
static bool expected(enum state state, uint16_t type)
{
    bool answer = type == VGPU_MSG_REGISTER_ACK || type == VGPU_MSG_REFUSED;

    return state == STATE_REGISTERING ? answer : state == STATE_UP && type != VGPU_MSG_REGISTER_ACK;
}

static void on_message(struct msgconn *c, struct seqpacket_message *message)
{
    struct supervisor *s = c->user;

    s->silent_periods = 0;
    if (!expected(s->state, message->msg->type)) {
        log_error("the mediator broke the protocol", LOG_S("what", "a message out of its state"),
                  LOG_S("message", msgcheck_name(message->msg->type)));
        drop_connection(s);
        return;
    }
    switch (message->msg->type) {
    case VGPU_MSG_REGISTER_ACK:
        on_register_ack(s, (const void *)message->msg);
        break;
    case VGPU_MSG_REFUSED:
        on_refused(s, (const void *)message->msg);
        break;
    case VGPU_MSG_KILL_EXECUTOR:
        on_kill_executor(s, (const void *)message->msg);
        break;
    case VGPU_MSG_DRAIN:
        drain(s);
        break;
    default: /* HEARTBEAT */
        break;
    }
}

static void on_end(struct msgconn *c, const char *why, bool bad)
{
    struct supervisor *s = c->user;

    log_at(bad ? LOG_LEVEL_ERROR : LOG_LEVEL_WARN, "the mediator is gone", LOG_S("why", why));
    drop_connection(s);
}

static const struct msgconn_ops conn_ops = {.on_message = on_message, .on_end = on_end};

/* ---- connecting ---------------------------------------------------------------------------- */

static void on_register_late(uv_timer_t *timer)
{
    log_warn("the mediator does not answer REGISTER", LOG_U("waited_ms", REGISTER_TIMEOUT_MS));
    drop_connection(timer->data);
}

/* Connecting to a Unix socket succeeds or fails at once. Return: a descriptor; -errno. */
static int connect_socket(const char *path)
{
    CLEANUP(cleanup_fd) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (fd < 0) {
        return -errno;
    }
    memcpy(address.sun_path, path, strnlen(path, sizeof(address.sun_path) - 1));
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        return -errno;
    }
    return TAKE_FD(fd);
}

static int try_connect(struct supervisor *s)
{
    int fd = connect_socket(s->options->mediator);

    if (fd < 0) {
        return fd;
    }
    memset(&s->conn, 0, sizeof(s->conn));
    int r = msgconn_open(&s->conn, &s->loop, fd, MSGCHECK_TO_SUPERVISOR, &conn_ops, s);
    if (r < 0) {
        close(fd);
    }
    return r;
}

static void on_connect(uv_timer_t *timer)
{
    struct supervisor *s = timer->data;
    int r = try_connect(s);

    if (r < 0) {
        if (r != s->last_connect_error) {
            log_warn("no mediator yet; trying again until it is there",
                     LOG_S("path", s->options->mediator), LOG_S("why", strerror(-r)));
        }
        s->last_connect_error = r;
        connect_later(s, 0);
        return;
    }
    s->last_connect_error = 0;
    s->state = STATE_REGISTERING;
    send_register(s);
    uv_timer_start(&s->connect_timer, on_register_late, REGISTER_TIMEOUT_MS, 0);
}

static void connect_later(struct supervisor *s, uint32_t least_ms)
{
    uint32_t wait_ms = s->connect_retry_ms > least_ms ? s->connect_retry_ms : least_ms;

    if (s->leaving || s->conn_closing || s->state != STATE_DOWN) {
        return;
    }
    uv_timer_start(&s->connect_timer, on_connect, wait_ms, 0);
    s->connect_retry_ms =
        bound(s->connect_retry_ms * 2, CONNECT_RETRY_MIN_MS, CONNECT_RETRY_MAX_MS);
}

/* ---- start --------------------------------------------------------------------------------- */

static int start_loop(struct supervisor *s)
{
    int r = uv_loop_init(&s->loop);

    if (r < 0) {
        return r;
    }
    uv_signal_init(&s->loop, &s->term);
    uv_signal_init(&s->loop, &s->interrupt);
    uv_timer_init(&s->loop, &s->connect_timer);
    uv_timer_init(&s->loop, &s->heartbeat);
    uv_timer_init(&s->loop, &s->restart);
    uv_timer_init(&s->loop, &s->drain_timer);
    s->term.data = s->interrupt.data = s;
    s->connect_timer.data = s->heartbeat.data = s->restart.data = s->drain_timer.data = s;
    uv_signal_start(&s->term, on_signal, SIGTERM);
    uv_signal_start(&s->interrupt, on_signal, SIGINT);
    uv_timer_start(&s->connect_timer, on_connect, 0, 0);
    return 0;
}

static int start(struct supervisor *s)
{
    const struct gpu_config config = {
        .threads = s->options->threads,
        .depth = s->options->depth,
    };
    char why[GPU_WHY_MAX];

    s->backend = gpu_backend_find(s->options->backend);
    if (!s->backend || s->backend->probe(&config, &s->caps, why) != 0) {
        log_error("the backend cannot be used", LOG_S("backend", s->options->backend),
                  LOG_S("why", s->backend ? why : "there is no such backend"));
        return -ENODEV;
    }
    if (getrandom(&s->boot_id, sizeof(s->boot_id), 0) != sizeof(s->boot_id)) {
        return -errno;
    }
    signal(SIGPIPE, SIG_IGN);
    return start_loop(s);
}

static void close_handle(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (!uv_is_closing(handle)) {
        uv_close(handle, NULL);
    }
}

int supervisor_main(const struct options *options)
{
    struct supervisor s = {
        .options = options,
        .connect_retry_ms = CONNECT_RETRY_MIN_MS,
        .restart_ms = RESTART_MIN_MS,
        .child.on_gone = on_child_gone,
    };

    s.child.user = &s;
    int r = start(&s);
    if (r < 0) {
        log_error("the worker cannot start", LOG_S("why", strerror(-r)));
        return SUPERVISOR_EXIT_FAILED;
    }
    uv_run(&s.loop, UV_RUN_DEFAULT);
    uv_walk(&s.loop, close_handle, NULL);
    uv_run(&s.loop, UV_RUN_DEFAULT);
    uv_loop_close(&s.loop);
    return s.exit_code;
}

/* SPDX-License-Identifier: MIT */
#include "local-mediator/workerconn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/conf_text.h"
#include "local-mediator/dispatch.h"
#include "local-mediator/execconn.h"
#include "local-mediator/listen.h"

#define LOG_BURST 10
#define SEND(w, message) msgconn_send(&(w)->conn, &(message).msg, sizeof(message), NULL)

/* ---- coming and going ---- */

static void forget(struct worker *w)
{
    TAILQ_REMOVE(&w->m->workers, w, link);
    w->m->n_workers--;
    free(w);
}

void worker_put(struct worker *w)
{
    bool named = w->registered && !w->replaced && !w->m->stopping;

    if (w->connected || w->closing || !TAILQ_EMPTY(&w->execs)) {
        return;
    }
    if (!named || w->m->n_workers > REMEMBERED_WORKERS_MAX) {
        forget(w);
    }
}

static void on_closed(struct msgconn *c)
{
    struct worker *w = c->user;

    w->closing = false;
    worker_put(w);
}

static void disconnect(struct worker *w)
{
    if (!w->connected) {
        return;
    }
    w->connected = false;
    w->closing = true;
    w->m->n_connected--;
    msgconn_close(&w->conn, on_closed);
    exec_unsupervised(w);
}

static void on_end(struct msgconn *c, const char *why, bool bad)
{
    struct worker *w = c->user;
    uint32_t suppressed = 0;

    if (log_limit_pass(&w->m->log_limit, mediator_now(w->m), &suppressed)) {
        log_at(bad ? LOG_LEVEL_WARN : LOG_LEVEL_INFO, "worker disconnected",
               LOG_S("worker", w->registered ? w->name : "?"), LOG_U("pid", w->pid),
               LOG_S("why", why), LOG_U("suppressed", suppressed));
    }
    disconnect(w);
}

static void refuse(struct worker *w, uint32_t reason, const char *text)
{
    struct vgpu_refused message = {.reason = reason};

    seqpacket_start(&message.msg, VGPU_MSG_REFUSED, sizeof(message) + strlen(text), 0);
    msgconn_send(&w->conn, &message.msg, sizeof(message), text);
    on_end(&w->conn, text, true);
}

/* ---- registration ---- */

static bool is_text(const char *field)
{
    bool ended = false;

    for (uint32_t i = 0; i < VGPU_NAME_MAX; i++) {
        if ((ended && field[i]) || (!ended && field[i] && (unsigned char)field[i] < ' ')) {
            return false;
        }
        ended |= !field[i];
    }
    return ended;
}

static struct pool *find_pool(struct mediator *m, const char *name)
{
    for (uint32_t i = 0; i < m->n_pools; i++) {
        if (!m->pools[i]->removed && (!name[0] || strcmp(m->pools[i]->c.name, name) == 0)) {
            return m->pools[i];
        }
    }
    return NULL;
}

static struct worker *find_named(struct mediator *m, const char *name)
{
    struct worker *w;

    TAILQ_FOREACH (w, &m->workers, link) {
        if (w->registered && !w->replaced && strcmp(w->name, name) == 0) {
            return w;
        }
    }
    return NULL;
}

/* What is wrong with a registration; 0: nothing. */
static uint32_t check_registration(struct worker *w, const struct vgpu_register *r, char *why,
                                   size_t size)
{
    const struct worker *other;

    if (r->version_min > VGPU_LOCAL_VERSION_MAX || r->version_max < VGPU_LOCAL_VERSION_MIN ||
        r->version_min > r->version_max) {
        snprintf(why, size, "this mediator speaks versions %u to %u, the worker %u to %u",
                 VGPU_LOCAL_VERSION_MIN, VGPU_LOCAL_VERSION_MAX, r->version_min, r->version_max);
        return VGPU_REFUSED_VERSION;
    }
    if (!is_text(r->name) || !is_text(r->pool) || !is_text(r->backend) || !is_text(r->device) ||
        !conf_text_is_name(r->name)) {
        snprintf(why, size, "a name is not well formed");
        return VGPU_REFUSED_MALFORMED;
    }
    if (r->flags || r->depth < 1 || r->depth > WORKER_DEPTH_MAX) {
        snprintf(why, size, "depth %u is not between 1 and %u, or a flag is unknown", r->depth,
                 WORKER_DEPTH_MAX);
        return VGPU_REFUSED_MALFORMED;
    }
    if (!find_pool(w->m, r->pool)) {
        snprintf(why, size, "there is no pool '%s' in the pool file", r->pool);
        return VGPU_REFUSED_POOL;
    }
    other = find_named(w->m, r->name);
    if (other && other->connected) {
        snprintf(why, size, "the name '%s' is in use by the worker with pid %u", r->name,
                 other->pid);
        return VGPU_REFUSED_NAME;
    }
    return 0;
}

/* A worker of this name was here before: keep its number and counters. */
static void replace(struct worker *w, struct worker *before)
{
    w->id = before->id;
    w->done = before->done;
    w->failed = before->failed;
    w->lost = before->lost;
    w->late = before->late;
    w->busy_ns = before->busy_ns;
    before->replaced = true;
    worker_put(before);
}

static void fill_in(struct worker *w, const struct vgpu_register *r)
{
    memcpy(w->name, r->name, sizeof(w->name));
    memcpy(w->backend, r->backend, sizeof(w->backend));
    memcpy(w->device, r->device, sizeof(w->device));
    w->pool = find_pool(w->m, r->pool);
    w->offer = (struct offer){r->ops, r->dtypes};
    w->depth = r->depth;
    w->memory_bytes = r->memory_bytes;
    w->boot_id = r->boot_id;
    w->pool->offered.ops |= r->ops;
    w->pool->offered.dtypes |= r->dtypes;
}

static uint32_t longest_job_ms(const struct pool *pool)
{
    uint64_t most = 0;

    for (uint32_t i = 0; i < VGPU_BANDS; i++) {
        most = pool->c.bands[i].max_job > most ? pool->c.bands[i].max_job : most;
    }
    return (uint32_t)most;
}

static void on_register(struct worker *w, const struct vgpu_register *r)
{
    struct vgpu_register_ack ack = {.version = VGPU_LOCAL_VERSION_MAX};
    struct worker *before;
    char why[200];
    uint32_t reason = check_registration(w, r, why, sizeof(why));

    if (reason) {
        refuse(w, reason, why);
        return;
    }
    before = find_named(w->m, r->name);
    fill_in(w, r);
    if (before) {
        replace(w, before);
    } else {
        w->id = ++w->m->next_worker;
    }
    w->registered = true;
    ack.worker_id = w->id;
    ack.heartbeat_ms = (uint32_t)w->m->c.heartbeat;
    w->period_ns = w->m->c.heartbeat * CLOCK_NS_PER_MS;
    ack.max_job_ms = longest_job_ms(w->pool);
    seqpacket_start(&ack.msg, VGPU_MSG_REGISTER_ACK, sizeof(ack), 0);
    SEND(w, ack);
    log_info("worker registered", LOG_S("worker", w->name), LOG_U("number", w->id),
             LOG_U("pid", w->pid), LOG_S("pool", w->pool->c.name), LOG_S("backend", w->backend),
             LOG_S("device", w->device), LOG_U("depth", w->depth));
}

/* ---- messages ---- */

static const char *act(struct worker *w, struct seqpacket_message *message)
{
    const struct vgpu_msg *msg = message->msg;

    if (!w->registered) {
        if (msg->type != VGPU_MSG_REGISTER) {
            return "the first message must be REGISTER";
        }
        on_register(w, (const struct vgpu_register *)msg);
        return NULL;
    }
    switch (msg->type) {
    case VGPU_MSG_EXECUTOR:
        return exec_new(w, (const struct vgpu_executor *)msg, seqpacket_take_fd(message, 0));
    case VGPU_MSG_EXECUTOR_GONE:
        return exec_reaped(w, (const struct vgpu_executor_gone *)msg, message->length);
    case VGPU_MSG_HEARTBEAT:
        w->progress = ((const struct vgpu_heartbeat *)msg)->progress;
        return NULL;
    case VGPU_MSG_DRAIN:
        log_info("worker drains", LOG_S("worker", w->name));
        w->draining = true;
        return NULL;
    default:
        return "a message out of its state";
    }
}

static void on_message(struct msgconn *c, struct seqpacket_message *message)
{
    struct worker *w = c->user;
    const char *wrong;

    w->heard_ns = mediator_now(w->m);
    wrong = act(w, message);
    if (wrong && w->connected) {
        on_end(c, wrong, true);
    }
}

static const struct msgconn_ops worker_ops = {on_message, NULL, on_end};

void worker_on_connect(struct listener *l, int fd)
{
    struct mediator *m = l->user;
    struct worker *w = m->n_connected < m->c.max_workers ? calloc(1, sizeof(*w)) : NULL;
    uint32_t uid = UINT32_MAX, suppressed = 0;

    if (!w) {
        if (log_limit_pass(&m->log_limit, mediator_now(m), &suppressed)) {
            log_warn("worker not accepted", LOG_S("why", "max_workers are connected"),
                     LOG_U("suppressed", suppressed));
        }
        close(fd);
        return;
    }
    listen_peer(fd, &uid, &w->pid);
    w->m = m;
    w->since_ns = w->heard_ns = mediator_now(m);
    w->log_limit.burst = LOG_BURST;
    TAILQ_INIT(&w->execs);
    if (uid != m->euid ||
        msgconn_open(&w->conn, &m->loop, fd, MSGCHECK_SUPERVISOR, &worker_ops, w) < 0) {
        log_warn("worker not accepted", LOG_U("pid", w->pid), LOG_U("uid", uid));
        close(fd);
        free(w);
        return;
    }
    w->connected = true;
    m->n_connected++;
    TAILQ_INSERT_TAIL(&m->workers, w, link);
    m->n_workers++;
}

void worker_kill_executor(struct worker *w, struct exec *exec, uint32_t reason)
{
    struct vgpu_kill_executor message = {.executor = exec->number, .reason = reason};

    if (exec->kill_sent || !exec->supervised) {
        return;
    }
    exec->kill_sent = true;
    log_warn("asking for the end of an executor", LOG_S("worker", w->name),
             LOG_U("executor", exec->number), LOG_S("reason", vgpu_error_name(reason)));
    seqpacket_start(&message.msg, VGPU_MSG_KILL_EXECUTOR, sizeof(message), 0);
    SEND(w, message);
}

/* ---- time ---- */

static void check_liveness(struct worker *w, uint64_t now_ns)
{
    enum liveness before = w->liveness;

    w->liveness = liveness_of(w->heard_ns, now_ns, w->period_ns);
    if (w->liveness != before) {
        log_at(w->liveness == LIVENESS_UP ? LOG_LEVEL_INFO : LOG_LEVEL_WARN, "worker liveness",
               LOG_S("worker", w->name), LOG_S("now", liveness_name(w->liveness)));
        dispatch_soon(w->m, w->pool);
    }
}

void worker_tick(struct worker *w, uint64_t now_ns)
{
    struct vgpu_heartbeat beat = {.progress = w->conn.sp.sent};
    struct exec *exec = TAILQ_FIRST(&w->execs);

    if (w->connected && !w->registered &&
        now_ns - w->since_ns > HELLO_TIMEOUT_MS * CLOCK_NS_PER_MS) {
        on_end(&w->conn, "no REGISTER within 5 s", true);
        return;
    }
    if (w->connected && w->registered) {
        if (now_ns - w->beat_ns >= w->period_ns && !msgconn_pending(&w->conn)) {
            w->beat_ns = now_ns;
            seqpacket_start(&beat.msg, VGPU_MSG_HEARTBEAT, sizeof(beat), 0);
            SEND(w, beat);
        }
        check_liveness(w, now_ns);
    }
    while (exec) {
        struct exec *next = TAILQ_NEXT(exec, link);

        exec_tick(exec, now_ns);
        exec = next;
    }
}

void worker_excuse(struct worker *w, uint64_t now_ns)
{
    struct exec *exec;

    w->heard_ns = now_ns;
    TAILQ_FOREACH (exec, &w->execs, link) {
        exec->heard_ns = now_ns;
    }
}

void worker_close(struct worker *w)
{
    exec_close_all(w);
    if (w->connected) {
        disconnect(w);
    } else {
        worker_put(w);
    }
}

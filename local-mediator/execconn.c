/* SPDX-License-Identifier: MIT */
#include "local-mediator/execconn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "local-mediator/dispatch.h"
#include "local-mediator/workerconn.h"

/* ---- the end of an executor ---- */

static void on_closed(struct msgconn *c)
{
    struct exec *exec = c->user;
    struct worker *w = exec->worker;

    TAILQ_REMOVE(&w->execs, exec, link);
    free(exec->regions);
    free(exec);
    worker_put(w);
}

/* The attempt that is to blame when the executor ended: the oldest one, if it ran too long. */
static const struct attempt *too_long(const struct exec *exec, uint64_t now_ns)
{
    struct attempt *a;

    TAILQ_FOREACH (a, &exec->attempts, exec_link) {
        if (!a->lost && now_ns - a->start_ns >= a->max_job_ms * CLOCK_NS_PER_MS) {
            return a;
        }
    }
    return NULL;
}

static void lose_attempts(struct exec *exec, const char *why)
{
    const struct attempt *blamed = too_long(exec, mediator_now(exec->worker->m));
    struct attempt *a = TAILQ_FIRST(&exec->attempts);

    while (a) {
        struct attempt *next = TAILQ_NEXT(a, exec_link);

        dispatch_lost(a, a == blamed, why);
        a = next;
    }
}

/* Nothing can write for this executor any more. */
static void finish(struct exec *exec)
{
    struct attempt *a;

    while ((a = TAILQ_FIRST(&exec->attempts))) {
        dispatch_gone(a);
    }
    if (exec->worker->exec == exec) {
        exec->worker->exec = NULL;
    }
    if (!exec->closing) {
        exec->closing = true;
        msgconn_close(&exec->conn, on_closed);
    }
}

static void on_end(struct msgconn *c, const char *why, bool bad)
{
    struct exec *exec = c->user;
    struct worker *w = exec->worker;

    log_at(bad ? LOG_LEVEL_WARN : LOG_LEVEL_INFO, "executor channel ended",
           LOG_S("worker", w->name), LOG_U("executor", exec->number), LOG_U("pid", exec->pid),
           LOG_S("why", why));
    exec->channel = false;
    if (w->exec == exec) {
        w->exec = NULL;
    }
    lose_attempts(exec, "the executor's channel ended");
    if (!exec->supervised) {
        finish(exec);
    } else if (bad) {
        worker_kill_executor(w, exec, VGPU_E_INTERNAL);
    }
}

const char *exec_reaped(struct worker *w, const struct vgpu_executor_gone *message, size_t length)
{
    int text_len = (int)(length - sizeof(*message));
    int status = (int)message->status;
    char text[256];
    struct exec *exec;

    TAILQ_FOREACH (exec, &w->execs, link) {
        if (exec->number == message->executor && !exec->closing) {
            break;
        }
    }
    if (!exec) {
        return "EXECUTOR_GONE for an executor that was never announced";
    }
    snprintf(text, sizeof(text), "%.*s", text_len, (const char *)(message + 1));
    log_info("executor gone", LOG_S("worker", w->name), LOG_U("executor", exec->number),
             LOG_I("exit", WIFEXITED(status) ? WEXITSTATUS(status) : -1),
             LOG_I("signal", WIFSIGNALED(status) ? WTERMSIG(status) : 0), LOG_S("text", text));
    exec->supervised = false;
    if (w->exec == exec) {
        w->exec = NULL; /* whatever ends below must not start anything here */
    }
    if (exec->channel) {
        /* Results that it sent before it ended still count; nobody can add to them. */
        shutdown(exec->conn.sp.fd, SHUT_RD);
        msgconn_read_all(&exec->conn);
    }
    lose_attempts(exec, text[0] ? text : "the executor ended");
    finish(exec);
    return NULL;
}

/* Its supervisor is gone. While its channel is open and it has attempts, it may still write. */
static void finish_if_left(struct exec *exec)
{
    if (!exec->supervised && !exec->closing && (!exec->channel || TAILQ_EMPTY(&exec->attempts))) {
        finish(exec);
    }
}

void exec_unsupervised(struct worker *w)
{
    struct exec *exec = TAILQ_FIRST(&w->execs);

    w->exec = NULL;
    while (exec) {
        struct exec *next = TAILQ_NEXT(exec, link);

        exec->supervised = false;
        finish_if_left(exec);
        exec = next;
    }
}

/* ---- messages ---- */

/* Return: whether it was there. */
static bool drop_region(struct exec *exec, uint32_t region)
{
    for (uint32_t i = 0; i < exec->n_regions; i++) {
        if (exec->regions[i] == region) {
            exec->regions[i] = exec->regions[--exec->n_regions];
            return true;
        }
    }
    return false;
}

static void on_detached(struct exec *exec, uint32_t region)
{
    struct attempt *a = TAILQ_FIRST(&exec->attempts);
    struct worker *w = exec->worker;
    uint32_t suppressed = 0;

    /* Not asked for: the executor could not attach it. The next job tries again. */
    if (drop_region(exec, region) &&
        log_limit_pass(&w->log_limit, mediator_now(w->m), &suppressed)) {
        log_warn("region refused", LOG_S("worker", w->name), LOG_U("executor", exec->number),
                 LOG_U("region", region), LOG_U("suppressed", suppressed));
    }
    while (a) {
        struct attempt *next = TAILQ_NEXT(a, exec_link);

        if (a->lost && a->staging && a->staging->region == region) {
            dispatch_gone(a);
        }
        a = next;
    }
}

static void on_message(struct msgconn *c, const struct seqpacket_message *message)
{
    struct exec *exec = c->user;

    exec->heard_ns = mediator_now(exec->worker->m);
    switch (message->msg->type) {
    case VGPU_MSG_HEARTBEAT:
        exec->progress = ((const struct vgpu_heartbeat *)message->msg)->progress;
        break;
    case VGPU_MSG_DONE:
        dispatch_done(exec, (const struct vgpu_done *)message->msg, message->length);
        break;
    case VGPU_MSG_DETACHED:
        on_detached(exec, ((const struct vgpu_detached *)message->msg)->region);
        break;
    default:
        break;
    }
}

static const struct msgconn_ops exec_ops = {on_message, NULL, on_end};

static bool is_channel(int fd)
{
    int type = 0, domain = 0;
    socklen_t type_len = sizeof(type), domain_len = sizeof(domain);

    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_len) == 0 && type == SOCK_SEQPACKET &&
           getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &domain_len) == 0 && domain == AF_UNIX;
}

static const char *check_new(const struct worker *w, uint32_t number, int fd)
{
    struct exec *e;
    uint32_t count = 0;

    TAILQ_FOREACH (e, &w->execs, link) {
        if (e->supervised && e->number >= number) {
            return "EXECUTOR with a number that does not count up";
        }
        count++;
    }
    if (count >= EXECS_MAX) {
        return "more executors than a worker may have";
    }
    return is_channel(fd) ? NULL : "EXECUTOR with a descriptor that is not a SEQPACKET socket";
}

const char *exec_new(struct worker *w, const struct vgpu_executor *message, int fd)
{
    const char *wrong = check_new(w, message->executor, fd);
    struct exec *exec = wrong ? NULL : calloc(1, sizeof(*exec));

    if (!exec ||
        msgconn_open(&exec->conn, &w->m->loop, fd, MSGCHECK_EXECUTOR, &exec_ops, exec) < 0) {
        close(fd);
        free(exec);
        return wrong ? wrong : "the mediator is out of memory";
    }
    TAILQ_INIT(&exec->attempts);
    exec->worker = w;
    exec->number = message->executor;
    exec->pid = message->pid;
    exec->channel = exec->supervised = true;
    exec->heard_ns = mediator_now(w->m);
    TAILQ_INSERT_TAIL(&w->execs, exec, link);
    w->exec = exec;
    log_info("executor ready", LOG_S("worker", w->name), LOG_U("executor", exec->number),
             LOG_U("pid", exec->pid));
    dispatch_pool(w->m, w->pool);
    return NULL;
}

/* ---- regions ---- */

static bool remember_region(struct exec *exec, uint32_t region)
{
    if (exec->n_regions == exec->cap_regions) {
        uint32_t cap = exec->cap_regions ? 2 * exec->cap_regions : 16;
        uint32_t *regions = realloc(exec->regions, cap * sizeof(*regions));

        if (!regions) {
            return false;
        }
        exec->regions = regions;
        exec->cap_regions = cap;
    }
    exec->regions[exec->n_regions++] = region;
    return true;
}

void exec_attach(struct exec *exec, struct staging *s)
{
    struct vgpu_attach message = {.region = s->region, .size = s->size};

    for (uint32_t i = 0; i < exec->n_regions; i++) {
        if (exec->regions[i] == s->region) {
            return;
        }
    }
    if (!remember_region(exec, s->region)) {
        return; /* the executor refuses the job: NO_MEMORY in all but name */
    }
    seqpacket_start(&message.msg, VGPU_MSG_ATTACH, sizeof(message), 0);
    msgconn_send(&exec->conn, &message.msg, sizeof(message), NULL, s->fd);
}

static void forget_region(struct exec *exec, uint32_t region)
{
    struct vgpu_detach message = {.region = region};

    if (drop_region(exec, region)) {
        seqpacket_start(&message.msg, VGPU_MSG_DETACH, sizeof(message), 0);
        msgconn_send(&exec->conn, &message.msg, sizeof(message), NULL, -1);
    }
}

void exec_forget_region(struct mediator *m, uint32_t region)
{
    struct worker *w;
    struct exec *exec;

    TAILQ_FOREACH (w, &m->workers, link) {
        TAILQ_FOREACH (exec, &w->execs, link) {
            forget_region(exec, region);
        }
    }
}

/* ---- time ---- */

static void check_liveness(struct exec *exec, uint64_t now_ns)
{
    struct worker *w = exec->worker;
    enum liveness before = exec->liveness;

    exec->liveness = liveness_of(exec->heard_ns, now_ns, w->period_ns);
    if (exec->liveness == before) {
        return;
    }
    log_at(exec->liveness == LIVENESS_UP ? LOG_LEVEL_INFO : LOG_LEVEL_WARN, "executor liveness",
           LOG_S("worker", w->name), LOG_U("executor", exec->number),
           LOG_S("now", liveness_name(exec->liveness)));
    if (exec->liveness == LIVENESS_LOST) {
        worker_kill_executor(w, exec, VGPU_E_WORKER_LOST);
        lose_attempts(exec, "the executor is silent");
    } else if (exec->liveness == LIVENESS_UP) {
        dispatch_pool(w->m, w->pool);
    }
}

static void check_limits(struct exec *exec, uint64_t now_ns)
{
    const struct conf_mediator *c = &exec->worker->m->c;
    struct attempt *a = TAILQ_FIRST(&exec->attempts);

    while (a) {
        struct attempt *next = TAILQ_NEXT(a, exec_link);

        if (a->lost) {
            a = next;
            continue;
        }
        if (now_ns >= a->limit_ns + 2 * c->kill_grace * CLOCK_NS_PER_MS) {
            dispatch_lost(a, true, "it ran too long and its executor could not be ended");
        } else if (now_ns >= a->limit_ns) {
            worker_kill_executor(exec->worker, exec, VGPU_E_JOB_TOO_LONG);
        } else if (a->cancel_ns && now_ns - a->cancel_ns >= c->cancel_grace * CLOCK_NS_PER_MS) {
            worker_kill_executor(exec->worker, exec, VGPU_E_CANCELLED);
        }
        a = next;
    }
}

void exec_tick(struct exec *exec, uint64_t now_ns)
{
    struct vgpu_heartbeat beat = {.progress = exec->conn.sp.sent};

    if (!exec->channel || exec->closing) {
        return;
    }
    if (now_ns - exec->beat_ns >= exec->worker->period_ns) {
        exec->beat_ns = now_ns;
        seqpacket_start(&beat.msg, VGPU_MSG_HEARTBEAT, sizeof(beat), 0);
        if (!msgconn_pending(&exec->conn)) {
            msgconn_send(&exec->conn, &beat.msg, sizeof(beat), NULL, -1);
        }
    }
    check_liveness(exec, now_ns);
    check_limits(exec, now_ns);
    finish_if_left(exec);
}

void exec_close_all(struct worker *w)
{
    struct exec *exec;

    TAILQ_FOREACH (exec, &w->execs, link) {
        exec->channel = false;
        finish(exec);
    }
}

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
#include "local-mediator/execring.h"
#include "local-mediator/region.h"
#include "local-mediator/workerconn.h"

#define DETACH_PERIODS 6u /* heartbeats, beside the grace that cancelled jobs have */

/* ---- the end of an executor ---- */

static void put_handle(struct exec *exec)
{
    struct worker *w = exec->worker;

    if (--exec->handles) {
        return;
    }
    TAILQ_REMOVE(&w->execs, exec, link);
    execring_free(exec);
    regionset_fini(&exec->regions);
    free(exec);
    worker_put(w);
}

static void on_channel_closed(struct msgconn *c)
{
    put_handle(c->user);
}

static void on_bell_closed(uv_handle_t *bell)
{
    put_handle(bell->data);
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
        execring_forget(exec);
        msgconn_close(&exec->conn, on_channel_closed);
        if (exec->bell.data) {
            uv_close((uv_handle_t *)&exec->bell, on_bell_closed);
        }
    }
}

/* Nothing more is sent to it, what it has not completed by now is lost. */
static void end_channel(struct exec *exec, const char *why, bool bad)
{
    struct worker *w = exec->worker;

    if (!exec->channel) {
        return;
    }
    log_at(bad ? LOG_LEVEL_WARN : LOG_LEVEL_INFO, "executor channel ended",
           LOG_S("worker", w->name), LOG_U("executor", exec->number), LOG_U("pid", exec->pid),
           LOG_S("why", why));
    exec->channel = false;
    exec->ended_ns = mediator_now(w->m);
    if (w->exec == exec) {
        w->exec = NULL;
    }
    execring_collect(exec);
    execring_forget(exec);
    lose_attempts(exec, "the executor's channel ended");
    if (!exec->supervised) {
        finish(exec);
    } else if (bad) {
        worker_kill_executor(w, exec, VGPU_E_INTERNAL);
    }
}

static void on_end(struct msgconn *c, const char *why, bool bad)
{
    end_channel(c->user, why, bad);
}

void exec_broke(struct exec *exec, const char *why)
{
    exec->broken = true;
    end_channel(exec, why, true);
    execring_forget(exec);
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
    execring_collect(exec); /* what it completed before it ended still counts */
    if (exec->channel) {
        shutdown(exec->conn.sp.fd, SHUT_RD); /* nobody can add to what it sent */
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

static void on_detached(struct exec *exec, uint32_t region)
{
    struct attempt *a = TAILQ_FIRST(&exec->attempts);
    struct worker *w = exec->worker;
    uint32_t leaving = exec->regions.leaving;
    uint32_t suppressed = 0;

    /* Not asked for: the executor could not attach it. The next job tries again. */
    if (regionset_gone(&exec->regions, region) &&
        log_limit_pass(&w->log_limit, mediator_now(w->m), &suppressed)) {
        log_warn("region refused", LOG_S("worker", w->name), LOG_U("executor", exec->number),
                 LOG_U("region", region), LOG_U("suppressed", suppressed));
    }
    if (exec->regions.leaving != leaving) {
        exec->detach_ns = mediator_now(w->m);
    }
    while (a) {
        struct attempt *next = TAILQ_NEXT(a, exec_link);

        if (a->lost && a->region && a->region->number == region) {
            dispatch_gone(a);
        }
        a = next;
    }
}

static void on_message(struct msgconn *c, struct seqpacket_message *message)
{
    struct exec *exec = c->user;

    exec->heard_ns = mediator_now(exec->worker->m);
    switch (message->msg->type) {
    case VGPU_MSG_HEARTBEAT:
        exec->progress = ((const struct vgpu_heartbeat *)message->msg)->progress;
        break;
    case VGPU_MSG_DETACHED:
        on_detached(exec, ((const struct vgpu_detached *)message->msg)->region);
        break;
    default:
        break;
    }
}

static void on_drained(struct msgconn *c)
{
    struct exec *exec = c->user;

    execring_flush(exec);
    dispatch_soon(exec->worker->m, exec->worker->pool);
}

static const struct msgconn_ops exec_ops = {on_message, on_drained, on_end};

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

/* Return: NULL, and @fd is taken; a sentence. */
static const char *open_exec(struct exec *exec, int fd)
{
    struct worker *w = exec->worker;
    int r = execring_new(exec, w->depth);

    if (r < 0) {
        log_error("no job ring", LOG_S("worker", w->name), LOG_S("why", strerror(-r)));
        return "the mediator cannot make a job ring";
    }
    r = msgconn_open(&exec->conn, &w->m->loop, fd, MSGCHECK_EXECUTOR, &exec_ops, exec);
    if (r < 0) {
        execring_free(exec);
        return "the mediator cannot open its channel";
    }
    exec->handles = 1;
    return NULL;
}

const char *exec_new(struct worker *w, const struct vgpu_executor *message, int fd)
{
    const char *wrong = check_new(w, message->executor, fd);
    struct exec *exec = wrong ? NULL : calloc(1, sizeof(*exec));

    if (exec) {
        exec->worker = w;
        wrong = open_exec(exec, fd);
    }
    if (!exec || wrong) {
        close(fd);
        free(exec);
        return wrong ? wrong : "the mediator is out of memory";
    }
    TAILQ_INIT(&exec->attempts);
    exec->number = message->executor;
    exec->pid = message->pid;
    exec->channel = exec->supervised = true;
    exec->heard_ns = mediator_now(w->m);
    TAILQ_INSERT_TAIL(&w->execs, exec, link);
    if (execring_start(exec) < 0) {
        return "the mediator cannot listen to an executor";
    }
    w->exec = exec;
    log_info("executor ready", LOG_S("worker", w->name), LOG_U("executor", exec->number),
             LOG_U("pid", exec->pid));
    dispatch_soon(w->m, w->pool);
    return NULL;
}

/* ---- regions ---- */

static void send_detach(struct exec *exec, uint32_t region)
{
    struct vgpu_detach message = {.region = region};

    if (regionset_leave(&exec->regions, region)) {
        if (exec->regions.leaving == 1) {
            exec->detach_ns = mediator_now(exec->worker->m);
        }
        seqpacket_start(&message.msg, VGPU_MSG_DETACH, sizeof(message), 0);
        msgconn_send(&exec->conn, &message.msg, sizeof(message), NULL);
    }
}

void exec_attach(struct exec *exec, const struct region *r)
{
    struct vgpu_attach message = {.region = r->number, .offset = r->offset, .size = r->size};
    const int fds[] = {r->fd, r->writers};
    uint32_t idle = regionset_idle(&exec->regions);

    if (regionset_has(&exec->regions, r->number)) {
        return;
    }
    if (exec->regions.count >= VGPU_EXEC_REGIONS_MAX && idle) {
        send_detach(exec, idle);
    }
    if (regionset_add(&exec->regions, r->number) < 0) {
        return; /* the executor refuses the job: NO_MEMORY in all but name */
    }
    seqpacket_start(&message.msg, VGPU_MSG_ATTACH, sizeof(message), 0);
    msgconn_send_fds(&exec->conn, &message.msg, sizeof(message), NULL, fds, r->writers < 0 ? 1 : 2);
}

void exec_forget_region(struct mediator *m, uint32_t region)
{
    struct worker *w;
    struct exec *exec;

    TAILQ_FOREACH (w, &m->workers, link) {
        TAILQ_FOREACH (exec, &w->execs, link) {
            send_detach(exec, region);
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
        dispatch_soon(w->m, w->pool);
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

/* No attempt uses a region that is told to go. One that stays mapped keeps its VM from coming back. */
static void check_detach(struct exec *exec, uint64_t now_ns)
{
    const struct worker *w = exec->worker;
    uint64_t most_ns = w->m->c.cancel_grace * CLOCK_NS_PER_MS + DETACH_PERIODS * w->period_ns;

    if (exec->regions.leaving && !exec->broken && now_ns - exec->detach_ns >= most_ns) {
        exec_broke(exec, "it does not let go of a region");
    }
}

/* A process that goes on without its channel keeps the memory that it has mapped. */
static void check_ended(struct exec *exec, uint64_t now_ns)
{
    uint64_t grace_ns = exec->worker->m->c.kill_grace * CLOCK_NS_PER_MS;

    if (!exec->closing && now_ns - exec->ended_ns >= grace_ns) {
        worker_kill_executor(exec->worker, exec, VGPU_E_WORKER_LOST);
    }
}

void exec_tick(struct exec *exec, uint64_t now_ns)
{
    struct vgpu_heartbeat beat = {.progress = exec->conn.sp.sent};

    if (!exec->channel) {
        check_ended(exec, now_ns);
    }
    if (!exec->channel || exec->closing) {
        return;
    }
    if (now_ns - exec->beat_ns >= exec->worker->period_ns) {
        exec->beat_ns = now_ns;
        seqpacket_start(&beat.msg, VGPU_MSG_HEARTBEAT, sizeof(beat), 0);
        if (!msgconn_pending(&exec->conn)) {
            msgconn_send(&exec->conn, &beat.msg, sizeof(beat), NULL);
        }
    }
    check_liveness(exec, now_ns);
    check_limits(exec, now_ns);
    check_detach(exec, now_ns);
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

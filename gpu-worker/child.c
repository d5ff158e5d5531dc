/* SPDX-License-Identifier: MIT */
/*
 * child.c - see child.h
 */
#include "gpu-worker/child.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "gpu-worker/executor.h"

#define NUMBER_TEXT 16

/* Why it ended, when it did so by itself. */
static void explain_exit(struct child *child, int64_t code)
{
    uint32_t ran_ms = atomic_load(&child->pulse->overran_ms);

    if (code == EXECUTOR_EXIT_OVERRAN) {
        snprintf(child->why, sizeof(child->why),
                 "job %" PRIu64 " had run %" PRIu32 " ms and could not be stopped",
                 (uint64_t)atomic_load(&child->pulse->overran_job), ran_ms);
    } else if (code == EXECUTOR_EXIT_PROTOCOL) {
        snprintf(child->why, sizeof(child->why), "the mediator broke the protocol");
    }
}

static void on_process_exit(uv_process_t *process, int64_t code, int signal_number)
{
    struct child *child = process->data;
    uint32_t status = signal_number ? (uint32_t)signal_number : ((uint32_t)code & 0xff) << 8;

    if (!child->killed && !signal_number) {
        explain_exit(child, code);
    }
    log_at(child->killed || status == 0 ? LOG_LEVEL_INFO : LOG_LEVEL_WARN, "executor ended",
           LOG_U("executor", child->number), LOG_I("code", code), LOG_I("signal", signal_number),
           LOG_S("why", child->why));
    pulse_free(child->pulse);
    child->pulse = NULL;
    uv_close((uv_handle_t *)process, NULL);
    child->running = false;
    child->on_gone(child, status);
}

static int spawn(struct child *child, uv_loop_t *loop, const struct options *options,
                 uint32_t heartbeat_ms, const int *fds)
{
    static const char *const levels[] = {"error", "warn", "info", "debug"};
    char threads[NUMBER_TEXT], depth[NUMBER_TEXT], heartbeat[NUMBER_TEXT], parent[NUMBER_TEXT];
    const char *args[] = {
        "vgpu-worker",
        "--executor",
        "--mediator",
        options->mediator,
        "--name",
        options->name,
        "--backend",
        options->backend,
        "--threads",
        threads,
        "--depth",
        depth,
        "--heartbeat-ms",
        heartbeat,
        "--parent",
        parent,
        "--log-level",
        levels[options->log_level],
        "--log-format",
        options->log_format == LOG_FORMAT_JSON ? "json" : "text",
        NULL,
    };
    uv_stdio_container_t stdio[] = {
        {.flags = UV_IGNORE},
        {.flags = UV_INHERIT_FD, .data.fd = STDERR_FILENO},
        {.flags = UV_INHERIT_FD, .data.fd = STDERR_FILENO},
        {.flags = UV_INHERIT_FD, .data.fd = fds[0]},
        {.flags = UV_INHERIT_FD, .data.fd = fds[1]},
    };
    uv_process_options_t process = {
        .exit_cb = on_process_exit,
        .file = "/proc/self/exe",
        .args = (char **)(uintptr_t)args,
        .stdio = stdio,
        .stdio_count = sizeof(stdio) / sizeof(stdio[0]),
    };

    snprintf(threads, sizeof(threads), "%" PRIu32, options->threads);
    snprintf(depth, sizeof(depth), "%" PRIu32, options->depth);
    snprintf(heartbeat, sizeof(heartbeat), "%" PRIu32, heartbeat_ms);
    snprintf(parent, sizeof(parent), "%d", (int)getpid());
    return uv_spawn(loop, &child->process, &process);
}

static void on_failed_closed(uv_handle_t *handle)
{
    (void)handle;
}

int child_start(struct child *child, uv_loop_t *loop, const struct options *options,
                uint32_t number, uint32_t heartbeat_ms, int *ret_channel)
{
    CLEANUP(cleanup_fd) int pulse_fd = -1;
    CLEANUP(cleanup_fd) int ours = -1;
    CLEANUP(cleanup_fd) int theirs = -1;
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        return -errno;
    }
    theirs = pair[0];
    ours = pair[1];
    int r = pulse_new(&child->pulse, &pulse_fd);
    if (r < 0) {
        return r;
    }
    child->number = number;
    child->seen_beat = 0;
    child->missed = 0;
    child->killed = false;
    child->why[0] = 0;
    child->started_ns = clock_now_ns();
    r = spawn(child, loop, options, heartbeat_ms, (const int[]){theirs, pulse_fd});
    child->process.data = child;
    if (r < 0) {
        pulse_free(child->pulse);
        child->pulse = NULL;
        uv_close((uv_handle_t *)&child->process, on_failed_closed);
        return r;
    }
    child->running = true;
    *ret_channel = TAKE_FD(ours);
    return 0;
}

void child_kill(struct child *child, const char *why)
{
    if (child->running && !child->killed) {
        child->killed = true;
        snprintf(child->why, sizeof(child->why), "%s", why);
        uv_process_kill(&child->process, SIGKILL);
    }
}

void child_watch(struct child *child)
{
    if (!child->running) {
        return;
    }
    uint64_t beat = atomic_load(&child->pulse->beat);
    child->missed = beat == child->seen_beat ? child->missed + 1 : 0;
    child->seen_beat = beat;
    if (child->missed >= PULSE_MISSED_MAX) {
        child_kill(child, "it showed no sign of life");
    }
}

uint32_t child_jobs(const struct child *child)
{
    return child->running ? atomic_load(&child->pulse->in_flight) : 0;
}

/* SPDX-License-Identifier: MIT */
/*
 * child - an executor process, as its supervisor sees it
 *
 * Started by running this program again, so that nothing of the supervisor's memory is in it. It is
 * gone only when it was reaped: then no thread of it can write to a region any more.
 */
#ifndef VGPU_WORKER_CHILD_H
#define VGPU_WORKER_CHILD_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "gpu-worker/options.h"
#include "gpu-worker/pulse.h"

#define CHILD_WHY_MAX 160u

struct child {
    uv_process_t process;
    bool running; /* started and not yet reaped */
    bool killed;  /* by us */
    uint32_t number;
    uint64_t started_ns;
    struct pulse *pulse;
    uint64_t seen_beat;
    uint32_t missed;         /* periods without a new beat */
    char why[CHILD_WHY_MAX]; /* why we ended it, or why it ended itself; may be empty */
    void *user;
    /* It was reaped. @status: as from waitpid(). child->why is set. The storage may be reused. */
    void (*on_gone)(struct child *child, uint32_t status);
};

/**
 * child_start() - start an executor
 * @child:       zeroed except user and on_gone; not running
 * @number:      of this executor
 * @ret_channel: the mediator's end of its channel, the caller's to close; written only on 0
 *
 * Return: 0; -errno.
 */
int child_start(struct child *child, uv_loop_t *loop, const struct options *options,
                uint32_t number, uint32_t heartbeat_ms, int *ret_channel);

/** child_kill() - end it now; on_gone() follows. @why: a sentence. Nothing when not running. */
void child_kill(struct child *child, const char *why);

/** child_watch() - call once per heartbeat period: kills an executor that shows no life */
void child_watch(struct child *child);

/** child_jobs() - jobs that it works on, as far as we know */
uint32_t child_jobs(const struct child *child);

#endif

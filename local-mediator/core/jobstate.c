/* SPDX-License-Identifier: MIT */
#include "local-mediator/core/jobstate.h"

#include <stddef.h>

#include "proto/vgpu_regs.h"

struct row {
    enum job_state state;
    enum job_event event;
    enum job_state next;
};

/* clang-format off */
static const struct row rows[] = {
    {JOB_RECEIVING, JOB_EVENT_INPUTS,   JOB_ACCEPTING},
    {JOB_ACCEPTING, JOB_EVENT_ACCEPTED, JOB_QUEUED},
    {JOB_QUEUED,    JOB_EVENT_PICKED,   JOB_RUNNING},
    {JOB_RUNNING,   JOB_EVENT_RETRY,    JOB_QUEUED},
    /* an answer ends every state before SENDING */
    {JOB_RECEIVING, JOB_EVENT_ANSWER,   JOB_SENDING},
    {JOB_ACCEPTING, JOB_EVENT_ANSWER,   JOB_SENDING},
    {JOB_QUEUED,    JOB_EVENT_ANSWER,   JOB_SENDING},
    {JOB_RUNNING,   JOB_EVENT_ANSWER,   JOB_SENDING},
    {JOB_SENDING,   JOB_EVENT_SENT,     JOB_ENDED},
    /* the stub may lose interest at any time */
    {JOB_RECEIVING, JOB_EVENT_DROP,     JOB_ENDED},
    {JOB_ACCEPTING, JOB_EVENT_DROP,     JOB_ENDED},
    {JOB_QUEUED,    JOB_EVENT_DROP,     JOB_ENDED},
    {JOB_RUNNING,   JOB_EVENT_DROP,     JOB_ENDED},
    {JOB_SENDING,   JOB_EVENT_DROP,     JOB_ENDED},
};
/* clang-format on */

int jobstate_next(enum job_state state, enum job_event event, enum job_state *ret_next)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (rows[i].state == state && rows[i].event == event) {
            *ret_next = rows[i].next;
            return 0;
        }
    }
    return JOBSTATE_E_INVALID;
}

const char *jobstate_name(enum job_state state)
{
    static const char *const names[] = {"receiving", "accepting", "queued",
                                        "running",   "sending",   "ended"};

    return state <= JOB_ENDED ? names[state] : "unknown";
}

uint32_t jobstate_after_loss(const struct job_loss *loss)
{
    if (loss->cancelled) {
        return VGPU_E_CANCELLED;
    }
    if (loss->too_long) {
        return VGPU_E_JOB_TOO_LONG;
    }
    if (loss->no_retry) {
        return VGPU_E_WORKER_LOST;
    }
    return loss->tries >= JOB_TRIES_MAX ? VGPU_E_QUARANTINED : VGPU_E_OK;
}

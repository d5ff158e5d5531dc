/* SPDX-License-Identifier: MIT */
#include "local-mediator/core/jobstate.h"

#include "proto/vgpu_regs.h"

#define EVENTS (JOB_EVENT_DROP + 1)
#define TO(state) ((state) + 1) /* 0: the event does not fit */

/* An answer ends every state before SENDING; the stub may lose interest at any time. */
#define ANY [JOB_EVENT_ANSWER] = TO(JOB_SENDING), [JOB_EVENT_DROP] = TO(JOB_ENDED)

/* clang-format off */
static const uint8_t table[JOB_ENDED + 1][EVENTS] = {
    [JOB_RECEIVING] = {ANY, [JOB_EVENT_INPUTS] = TO(JOB_ACCEPTING)},
    [JOB_ACCEPTING] = {ANY, [JOB_EVENT_ACCEPTED] = TO(JOB_QUEUED), [JOB_EVENT_HELD] = TO(JOB_WAITING)},
    [JOB_WAITING]   = {ANY, [JOB_EVENT_ACCEPTED] = TO(JOB_QUEUED)},
    [JOB_QUEUED]    = {ANY, [JOB_EVENT_PICKED] = TO(JOB_RUNNING)},
    [JOB_RUNNING]   = {ANY, [JOB_EVENT_RETRY] = TO(JOB_QUEUED), [JOB_EVENT_UNWIND] = TO(JOB_ENDING)},
    [JOB_ENDING]    = {ANY, [JOB_EVENT_RETRY] = TO(JOB_QUEUED)},
    [JOB_SENDING]   = {[JOB_EVENT_SENT] = TO(JOB_ENDED), [JOB_EVENT_DROP] = TO(JOB_ENDED)},
};
/* clang-format on */

int jobstate_next(enum job_state state, enum job_event event, enum job_state *ret_next)
{
    uint8_t to = state <= JOB_ENDED && event < EVENTS ? table[state][event] : 0;

    if (!to) {
        return JOBSTATE_E_INVALID;
    }
    *ret_next = (enum job_state)(to - 1);
    return 0;
}

const char *jobstate_name(enum job_state state)
{
    static const char *const names[] = {"receiving", "accepting", "waiting", "queued",
                                        "running",   "ending",    "sending", "ended"};

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

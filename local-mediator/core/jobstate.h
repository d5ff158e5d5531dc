/* SPDX-License-Identifier: MIT */
/*
 * jobstate - the life of a request in the mediator, as a table
 *
 * Pure. RECEIVING -> ACCEPTING -> QUEUED <-> RUNNING -> SENDING -> ENDED; every state may end early.
 *
 *   RECEIVING  its ARENA inputs arrive (none do on the shared-memory path)
 *   ACCEPTING  ACCEPT is on its way to the stub: not before it has left may the job run
 *   WAITING    ORDERED: earlier requests of its ring have not completed
 *   QUEUED     waits for a worker's credit
 *   RUNNING    an attempt is on a worker
 *   ENDING     shared-memory path: an attempt that does not count any more may still write to its
 *              buffers; it is answered, or runs again, when that attempt is gone
 *   SENDING    its outputs and its response go to the stub (or wait for it to come back)
 *   ENDED      answered or given up; attempts that linger belong to nobody
 */
#ifndef VGPU_MEDIATOR_JOBSTATE_H
#define VGPU_MEDIATOR_JOBSTATE_H

#include <stdbool.h>
#include <stdint.h>

enum job_state {
    JOB_RECEIVING,
    JOB_ACCEPTING,
    JOB_WAITING,
    JOB_QUEUED,
    JOB_RUNNING,
    JOB_ENDING,
    JOB_SENDING,
    JOB_ENDED,
};
enum job_event {
    JOB_EVENT_INPUTS,   /* all inputs are there */
    JOB_EVENT_HELD,     /* it has to wait for earlier requests */
    JOB_EVENT_ACCEPTED, /* ACCEPT left, or nothing earlier is left: it may run */
    JOB_EVENT_PICKED,   /* bound to a worker */
    JOB_EVENT_RETRY,    /* its attempt was lost and it may run again */
    JOB_EVENT_UNWIND,   /* its attempt does not count any more but may still write */
    JOB_EVENT_ANSWER,   /* there is an answer: a result or an error */
    JOB_EVENT_SENT,     /* the answer left */
    JOB_EVENT_DROP,     /* nobody wants the answer any more */
};

enum {
    JOBSTATE_E_INVALID = 1, /* the event does not fit the state: a fault of this program */
};

/**
 * jobstate_next() - the state that @event leads to
 *
 * Return: 0; JOBSTATE_E_INVALID.
 */
int jobstate_next(enum job_state state, enum job_event event, enum job_state *ret_next);

/** jobstate_name() - "receiving", … */
const char *jobstate_name(enum job_state state);

#define JOB_TRIES_MAX 3u

/* How an attempt came to be lost, and what the job is. */
struct job_loss {
    uint32_t tries; /* attempts so far, the lost one included */
    bool no_retry;  /* VGPU_REQ_NO_RETRY */
    bool too_long;  /* it ran longer than its band allows */
    bool cancelled; /* a cancellation was on its way */
};

/**
 * jobstate_after_loss() - what becomes of a job whose attempt was lost
 *
 * Return: VGPU_E_OK: run it again; else the error that it ends with.
 */
uint32_t jobstate_after_loss(const struct job_loss *loss);

#endif

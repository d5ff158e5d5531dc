/* SPDX-License-Identifier: MIT */
/*
 * job - the life of a request: admission, inputs, queue, answer
 *
 * States and their order are in core/jobstate.h. Every function leaves the job in a state of that
 * table or frees it.
 */
#ifndef VGPU_MEDIATOR_JOB_H
#define VGPU_MEDIATOR_JOB_H

#include "local-mediator/mediator.h"

/**
 * job_request() - REQUEST came: make a job of it, answer it, or take an old one up again
 *
 * Return: NULL; a sentence when the stub broke the protocol.
 */
const char *job_request(struct vmconn *vc, const struct vgpu_request *message, size_t length);

/**
 * job_from_ring() - a descriptor was taken from @gr: make a job of it, or answer it
 * @desc:    a copy; its slot is not in use
 * @adopted: the record of the in-flight area if the last mediator had taken it; else NULL
 */
void job_from_ring(struct guest_ring *gr, const struct vgpu_desc *desc,
                   const struct vgpu_inflight_slot *adopted);

/** job_release() - a WAITING job is the first of its ring now: it runs, or fails with those before it */
void job_release(struct job *job);

/** job_input() - DATA came. Return: NULL; a sentence when the stub broke the protocol. */
const char *job_input(struct vmconn *vc, const struct vgpu_data *message, size_t length);

/** job_accepts_left() - everything queued for the stub has left: ACCEPTING jobs may run */
void job_accepts_left(struct vm *vm);

/** job_next_buffer() - move the cursor to the next byte of an ARENA buffer of direction @dir.
 *  Return: false when there is none. */
bool job_next_buffer(struct job *job, uint8_t dir);

/** job_set_state() - go on by @event; a pair that is not in the table is logged as a fault */
void job_set_state(struct job *job, enum job_event event);

/** job_new() - a job of @vm in state RECEIVING; NULL when there is no memory */
struct job *job_new(struct vm *vm);

/** job_payload_max() - most payload bytes of its response */
uint32_t job_payload_max(const struct job *job);

/** job_fail() - answer with an error and a sentence (NULL: the error's own) */
void job_fail(struct job *job, uint32_t error, const char *text);

/** job_fail_busy() - answer BUSY with an estimate of when to try again */
void job_fail_busy(struct job *job, const char *text);

/** job_respond() - answer with the response in job->response; @success: outputs go first */
void job_respond(struct job *job, bool success);

/**
 * job_lost() - the attempt of a RUNNING job is lost: answer with @error, or run again when it is 0
 * @attempt: not job->attempt any more; it may still write
 */
void job_lost(struct job *job, struct attempt *attempt, uint32_t error);

/** job_writer_gone() - the attempt that an ENDING job waits for can write no more */
void job_writer_gone(struct job *job);

/** job_answered() - the answer left: free the job */
void job_answered(struct job *job);

/** job_drop() - nobody wants an answer: stop and free it; what it started is cancelled */
void job_drop(struct job *job, const char *why);

/** job_find_window() - the window request with this sequence number; NULL */
struct job *job_find_window(struct vmconn *vc, uint64_t seq);

/**
 * job_cancel_seq() - the guest gave up the window request with this sequence number
 * @reason: VGPU_E_CANCELLED or VGPU_E_DEADLINE: what it is answered with on the shared-memory path
 */
void job_cancel_seq(struct vmconn *vc, uint64_t seq, uint32_t reason);

/** job_drop_all(), job_drop_other_lives() - drop every job of @vm; those not of this life */
void job_drop_all(struct vm *vm, const char *why);
void job_drop_other_lives(struct vm *vm, uint64_t boot_id, uint32_t epoch);

/** job_orphan_all() - the connection @vc broke: jobs that run wait for the VM to come back */
void job_orphan_all(struct vm *vm, struct vmconn *vc);

/** job_drop_orphans() - drop those whose VM did not come back in time */
void job_drop_orphans(struct vm *vm, uint64_t now_ns);

/** job_set_deadline_timer() - set the timer for the earliest deadline, unless it ends before that */
void job_set_deadline_timer(struct mediator *m);

/** job_free_spare() - free memory that ended jobs left for others, but for @keep of them */
void job_free_spare(struct mediator *m, uint32_t keep);

#endif

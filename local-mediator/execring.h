/* SPDX-License-Identifier: MIT */
/*
 * execring - the job ring between the mediator and an executor (proto/vgpu_local.h, "executor channel")
 *
 * An attempt lies in the table entry of its slot. Descriptors are shown to the executor once per turn
 * of the loop, at most one bell per executor; completions are collected by the mediator's poller. The
 * executor is not trusted: what it wrote is copied before it is looked at, and a broken rule ends it.
 */
#ifndef VGPU_MEDIATOR_EXECRING_H
#define VGPU_MEDIATOR_EXECRING_H

#include "local-mediator/mediator.h"

/**
 * execring_new() - memory, bells and table of the job ring of @exec
 * @depth: jobs that its worker takes at a time
 *
 * Return: 0; -errno, nothing is left then.
 */
int execring_new(struct exec *exec, uint32_t depth);

/** execring_start() - send RING and listen to the call; the channel is open. Return: 0; -errno. */
int execring_start(struct exec *exec);

/** execring_free() - free what execring_new() made; the bell's handle is closed or was never open */
void execring_free(struct exec *exec);

/** execring_has_room() - whether the executor can be given a job now */
bool execring_has_room(const struct exec *exec);

/** execring_take() - a zeroed attempt in a free slot; NULL when there is none */
struct attempt *execring_take(struct exec *exec);

/** execring_request() - where its struct vgpu_job and request are written */
uint8_t *execring_request(const struct attempt *a);

/** execring_submit() - its job of @length bytes is written: the executor sees it this turn */
void execring_submit(struct attempt *a, uint32_t length);

/** execring_cancel() - tell the executor to stop @a, after its descriptor */
void execring_cancel(struct attempt *a);

/** execring_give_back() - the slot of @a is free: its completion came */
void execring_give_back(struct attempt *a);

/** execring_collect() - deliver what the executor has completed; it may be dead */
void execring_collect(struct exec *exec);

/** execring_flush() - show the executor what was submitted, unless messages before it still wait */
void execring_flush(struct exec *exec);

/** execring_forget() - the executor is given nothing any more */
void execring_forget(struct exec *exec);

/** exec_poll_all() - deliver completions of all executors. Return: whether there was one. */
bool exec_poll_all(struct mediator *m);

/** exec_flush_all() - execring_flush() for those that have something to see */
void exec_flush_all(struct mediator *m);

/** exec_arm_all() - ask executors for their call. Return: whether a completion is there already. */
bool exec_arm_all(struct mediator *m);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * execconn - executors and their channels
 *
 * An executor ends in two steps that may come in either order: its channel closes, and its supervisor
 * reaps it or goes away itself. Only after both nothing can write to staging memory any more.
 */
#ifndef VGPU_MEDIATOR_EXECCONN_H
#define VGPU_MEDIATOR_EXECCONN_H

#include "local-mediator/mediator.h"

#define EXECS_MAX 16u /* of one worker, those that are ending included */

/**
 * exec_new() - a worker announced an executor
 * @fd: its channel; taken in any case
 *
 * Return: NULL; a sentence when the worker broke the protocol.
 */
const char *exec_new(struct worker *w, const struct vgpu_executor *message, int fd);

/** exec_reaped() - the supervisor says that the executor is gone. Return: as exec_new(). */
const char *exec_reaped(struct worker *w, const struct vgpu_executor_gone *message, size_t length);

/** exec_unsupervised() - the supervisor of all executors of @w is gone */
void exec_unsupervised(struct worker *w);

/** exec_broke() - it broke a rule of its job ring: nothing of it counts any more, it has to end */
void exec_broke(struct exec *exec, const char *why);

/** exec_attach() - make the executor map @r, unless it has; one that is idle may have to go for it */
void exec_attach(struct exec *exec, const struct region *r);

/** exec_forget_region() - a region is no more: every executor unmaps it */
void exec_forget_region(struct mediator *m, uint32_t region);

/** exec_tick() - heartbeats, liveness, jobs that run too long */
void exec_tick(struct exec *exec, uint64_t now_ns);

/** exec_close_all() - close every channel of @w (the mediator stops) */
void exec_close_all(struct worker *w);

#endif

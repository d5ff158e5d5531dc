/* SPDX-License-Identifier: MIT */
/*
 * supervisor - registers a worker at the mediator and keeps an executor running
 *
 * Not in the data path: it never sees a job. One libuv loop. docs/worker.md has the picture.
 */
#ifndef VGPU_WORKER_SUPERVISOR_H
#define VGPU_WORKER_SUPERVISOR_H

#include "gpu-worker/options.h"

/* Exit codes of vgpu-worker. */
#define SUPERVISOR_EXIT_DRAINED 0 /* asked to end; all jobs were finished */
#define SUPERVISOR_EXIT_FAILED 1  /* cannot start */
#define SUPERVISOR_EXIT_USAGE 2   /* wrong command line */
#define SUPERVISOR_EXIT_HURRIED 3 /* asked twice to end; jobs may have been cut off */

/** supervisor_main() - be a worker until a signal ends it. Return: an exit code. */
int supervisor_main(const struct options *options);

#endif

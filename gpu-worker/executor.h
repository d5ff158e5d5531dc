/* SPDX-License-Identifier: MIT */
/*
 * executor - the process that computes
 *
 * Started by the supervisor (supervisor.h) with two descriptors. It maps regions and runs jobs for
 * the mediator on the other end of its channel and ends when that end closes. It knows nothing of
 * the worker socket. One libuv loop owns everything; only the backend has more threads.
 */
#ifndef VGPU_WORKER_EXECUTOR_H
#define VGPU_WORKER_EXECUTOR_H

#include <stdint.h>

#include "gpu-worker/options.h"

#define EXECUTOR_FD_CHANNEL 3
#define EXECUTOR_FD_PULSE 4

/* Exit codes of an executor. */
#define EXECUTOR_EXIT_OK 0       /* the mediator closed the channel */
#define EXECUTOR_EXIT_FAILED 1   /* the backend could not be opened, … : the log says why */
#define EXECUTOR_EXIT_PROTOCOL 3 /* the mediator sent something malformed */
#define EXECUTOR_EXIT_OVERRAN 4  /* a job ran too long and could not be stopped */

/** executor_main() - be an executor. Return: an exit code. */
int executor_main(const struct options *options);

#endif

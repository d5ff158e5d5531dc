/* SPDX-License-Identifier: MIT */
/*
 * pulse - one shared page in which an executor shows its supervisor that it lives
 *
 * The supervisor makes it (a sealed memfd), the executor maps it. The executor's loop raises `beat`
 * on every heartbeat; a supervisor that sees the same value for PULSE_MISSED_MAX periods of its own
 * kills the executor. Counting periods instead of time means that a supervisor that was stopped
 * itself does not blame its executor.
 *
 * A job that overran its time and cannot be stopped is written down here before the executor ends
 * itself, so that the supervisor can say why.
 */
#ifndef VGPU_WORKER_PULSE_H
#define VGPU_WORKER_PULSE_H

#include <stdatomic.h>
#include <stdint.h>

#define PULSE_MISSED_MAX 6u

struct pulse {
    _Atomic uint64_t beat;
    _Atomic uint64_t done;       /* jobs ended */
    _Atomic uint32_t in_flight;  /* jobs accepted and not ended */
    _Atomic uint32_t overran_ms; /* of the job that could not be stopped; 0: none */
    _Atomic uint64_t overran_job;
};

/**
 * pulse_new() - make and map a page, all zero
 * @ret_fd: the descriptor to hand to the executor; close it after that
 *
 * Return: 0; -errno.
 */
int pulse_new(struct pulse **ret, int *ret_fd);

/** pulse_map() - map the page of a supervisor; closes @fd. Return: 0; -errno. */
int pulse_map(int fd, struct pulse **ret);

/** pulse_free() - unmap; NULL is fine */
void pulse_free(struct pulse *pulse);

#endif

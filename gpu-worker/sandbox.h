/* SPDX-License-Identifier: MIT */
/*
 * sandbox - take from an executor what it does not need
 *
 * Once its backend is open, an executor computes, maps memory and uses the descriptors that it has
 * or is sent. sandbox_enter() makes every other system call fail with EPERM: a fault in a library
 * that is fed by guests cannot open files, make connections or start programs.
 *
 * A backend whose driver needs more (a GPU's) says so in struct gpu_backend and is not confined.
 */
#ifndef VGPU_WORKER_SANDBOX_H
#define VGPU_WORKER_SANDBOX_H

enum {
    SANDBOX_E_NONE = 1, /* not possible in this build (sanitizers) or on this processor */
};

/**
 * sandbox_enter() - confine all threads of this process, for good
 *
 * Return: 0; SANDBOX_E_NONE; -errno.
 */
int sandbox_enter(void);

/**
 * sandbox_forbid_io_uring() - make io_uring_setup() fail with ENOSYS from now on
 *
 * Before uv_loop_init() of a process that will be confined: libuv 1.45 and later would use the ring
 * that it gets here, and abort when the sandbox refuses it. An io_uring passes by every filter, so
 * that it cannot be allowed. Needs PR_SET_NO_NEW_PRIVS. Where it fails libuv may have its ring.
 */
void sandbox_forbid_io_uring(void);

#endif

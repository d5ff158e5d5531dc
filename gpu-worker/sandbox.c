/* SPDX-License-Identifier: MIT */
/*
 * sandbox.c - the system calls that an executor may make; see sandbox.h
 *
 * A classic BPF program: refuse other instruction sets, allow the listed numbers, answer all others
 * with EPERM. Libraries have fallbacks for calls that an old kernel lacks, so the list need not
 * follow their versions closely.
 */
#include "gpu-worker/sandbox.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
#define SANDBOX_ARCH AUDIT_ARCH_X86_64
/* Older names of calls, which newer architectures do not have. */
#define SANDBOX_OLDER SYS_epoll_wait, SYS_poll, SYS_time,
#elif defined(__aarch64__)
#define SANDBOX_ARCH AUDIT_ARCH_AARCH64
#define SANDBOX_OLDER
#endif

static const unsigned short allowed[] = {
    SANDBOX_OLDER
        /* the loop: channel, completions, timers */
        SYS_epoll_pwait,
    SYS_epoll_ctl,
    SYS_ppoll,
    SYS_read,
    SYS_write,
    SYS_writev,
    SYS_sendmsg,
    SYS_recvmsg,
    SYS_shutdown,
    SYS_close,
    SYS_fcntl,
    SYS_fstat,
    SYS_newfstatat,
    /* memory */
    SYS_mmap,
    SYS_munmap,
    SYS_mremap,
    SYS_mprotect,
    SYS_madvise,
    SYS_brk,
    /* threads: locks, yielding, asking for processors; the end of one */
    SYS_futex,
    SYS_sched_yield,
    SYS_sched_getaffinity,
    SYS_exit,
    SYS_restart_syscall,
    SYS_clock_nanosleep,
    SYS_nanosleep,
    SYS_rseq,
    SYS_set_robust_list,
    /* signals, the end of the process, abort() */
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_exit_group,
    SYS_getpid,
    SYS_gettid,
    SYS_tgkill,
    /* questions */
    SYS_clock_gettime,
    SYS_gettimeofday,
    SYS_getrandom,
    SYS_sysinfo,
};

#define ALLOWED_COUNT (sizeof(allowed) / sizeof(allowed[0]))
#define HEAD 4u
#define LENGTH (HEAD + ALLOWED_COUNT + 2)

_Static_assert(ALLOWED_COUNT < 255, "a jump reaches 255 instructions");

static void make_program(struct sock_filter *program)
{
    size_t at = 0;

    program[at++] =
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    program[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SANDBOX_ARCH, 1, 0);
    program[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    program[at++] =
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < ALLOWED_COUNT; i++) {
        program[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i],
                                                     (unsigned char)(ALLOWED_COUNT - i), 0);
    }
    program[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    program[at] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
}

int sandbox_enter(void)
{
    struct sock_filter instructions[LENGTH];
    struct sock_fprog program = {.len = LENGTH, .filter = instructions};

    tzset(); /* reads a file once, for the times of log lines */
    make_program(instructions);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
        return -errno;
    }
    long r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
    if (r < 0) {
        return -errno;
    }
    return r == 0 ? 0 : -EAGAIN; /* a thread that could not be confined */
}

void sandbox_forbid_io_uring(void)
{
    struct sock_filter instructions[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {
        .len = sizeof(instructions) / sizeof(instructions[0]),
        .filter = instructions,
    };

    (void)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

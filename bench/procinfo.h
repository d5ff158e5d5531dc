/* SPDX-License-Identifier: MIT */
/* procinfo - what the kernel knows of another process: time, memory, bytes moved by system calls */
#ifndef BENCH_PROCINFO_H
#define BENCH_PROCINFO_H

#include <stdint.h>
#include <sys/types.h>

struct procinfo {
    uint64_t cpu_ns;      /* all threads, user and system */
    uint64_t rss_anon;    /* bytes of private memory that is present */
    uint64_t io_bytes;    /* by read() and write() and their kin, files and sockets alike */
    uint64_t write_calls; /* calls of write() and its kin, eventfds included; not send() */
};

/** procinfo_read() - of process @pid; ends the program when that cannot be read */
void procinfo_read(pid_t pid, struct procinfo *ret);

/** procinfo_child() - a process whose parent is @pid; 0 when there is none */
pid_t procinfo_child(pid_t pid);

#endif

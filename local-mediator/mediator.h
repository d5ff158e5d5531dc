/* SPDX-License-Identifier: MIT */
/*
 * mediator - the objects of the daemon and who owns them
 *
 * One thread, one libuv loop, one struct mediator. Reading order: this file, then vmconn.c (where a
 * request comes in), job.c (its life), dispatch.c (to workers and back), execconn.c, workerconn.c.
 *
 *   mediator owns tenants, pools, vms, workers; none of them is freed while something points to it:
 *   vm       until removed from the pool file AND its connection, jobs and attempts are gone
 *   job      from REQUEST until its answer left, was given up, or its VM did not come back
 *   attempt  from JOB until DONE, EXECUTOR_GONE or DETACHED: as long as an executor may write to its
 *            OUT ranges. An attempt whose job is NULL lingers: its result is not wanted.
 *   exec     until its channel is closed and no attempt is left
 *   staging  counted references: its VM, and every job and attempt with ranges in it
 */
#ifndef VGPU_MEDIATOR_H
#define VGPU_MEDIATOR_H

#include <sys/queue.h>
#include <uv.h>

#include "common/conf.h"
#include "common/core/heap.h"
#include "common/core/request.h"
#include "common/core/sched.h"
#include "common/log.h"
#include "common/msgconn.h"
#include "local-mediator/core/classes.h"
#include "local-mediator/core/jobstate.h"
#include "local-mediator/core/liveness.h"
#include "local-mediator/core/session.h"
#include "local-mediator/staging.h"

#define MEDIATOR_TICK_MS_MAX 250u
#define VM_JOBS_MAX 64u    /* unanswered requests of one VM; beyond: BUSY, at twice: cut off */
#define VM_CONNS_MAX 8u    /* connections to a VM's socket, those being refused included */
#define VM_WRITERS_MAX 64u /* attempts of one VM, lingering ones included */
#define HELLO_TIMEOUT_MS 5000u
#define REMEMBERED_WORKERS_MAX 1024u

struct admin;
struct mediator;

struct tenant {
    struct conf_tenant c;
    uint32_t index; /* at the schedulers; its number is index + 1 */
    uint32_t jobs;  /* admitted and not ended */
    uint64_t bytes; /* ARENA bytes of those */
    uint64_t done, failed, refused;
    uint64_t busy_ns;
};

struct pool {
    struct conf_pool c;
    bool removed; /* no longer in the pool file; queued jobs still run */
    struct sched *sched;
    struct classes classes;
    struct offer offered; /* union of what its workers offered since the start */
};

/* A listening socket, with what is needed to remove it. */
struct listener {
    uv_poll_t poll;
    int fd; /* -1: not listening */
    char path[CONF_PATH_MAX + 1];
    void (*on_connect)(struct listener *l, int fd); /* @fd is the callee's */
    void *user;
};

TAILQ_HEAD(vm_head, vm);
TAILQ_HEAD(conn_head, vmconn);
TAILQ_HEAD(job_head, job);
TAILQ_HEAD(attempt_head, attempt);
TAILQ_HEAD(worker_head, worker);
TAILQ_HEAD(exec_head, exec);

struct vm {
    TAILQ_ENTRY(vm) link;
    struct mediator *m;
    uint32_t number; /* VM_ID; stable while the mediator runs */
    struct conf_vm c;
    struct tenant *tenant;
    struct pool *pool; /* default */
    uint64_t pools;    /* bit n: may use m->pools[n] */
    bool removed;
    bool removing;  /* vm_remove() is at work */
    bool listening; /* the listener's handle is not closed yet */
    struct listener listener;
    struct conn_head conns; /* all connections of the socket */
    uint32_t n_conns;
    struct vmconn *conn; /* the accepted one, or NULL */
    struct staging *staging;
    struct job_head jobs;
    uint32_t n_jobs;
    struct attempt_head writers; /* attempts that may write to this VM's staging memory */
    uint32_t n_writers;
    uint64_t done, failed;
    uint64_t bytes_in, bytes_out; /* of ARENA buffers, over its socket */
    struct log_limit log_limit;
};

struct vmconn {
    TAILQ_ENTRY(vmconn) link;
    struct msgconn conn;
    struct vm *vm;
    enum session_state state;
    uint32_t pid;
    uint64_t since_ns;
    uint32_t epoch;
    uint64_t last_seq;
    uint64_t boot_id;
    uint64_t arena_size;
    uint32_t pool_wish;
    uint8_t band_wish;
    struct job_head sending; /* answered, in the order of their answers */
    bool closing;            /* ends when what is queued has left */
};

struct span {
    uint64_t offset, length; /* length 0: none */
};

struct job {
    TAILQ_ENTRY(job) vm_link;
    TAILQ_ENTRY(job) send_link;
    struct vm *vm;
    struct tenant *tenant;
    struct pool *pool;
    struct staging *staging; /* NULL: it has no ARENA buffers */
    enum job_state state;
    uint64_t id;      /* unique in the mediator's life */
    uint64_t boot_id; /* identity: VM, boot_id, epoch, seq */
    uint32_t epoch;
    uint64_t seq;
    uint8_t band;
    uint64_t bytes; /* counted against its tenant */
    uint64_t accept_ns, start_ns, deadline_ns;
    uint32_t deadline_index;
    bool has_class;
    struct sched_job sched;
    struct request request; /* its bytes are `copy` */
    _Alignas(8) uint8_t copy[VGPU_REQ_MAX];
    struct span spans[VGPU_BUFS_MAX]; /* its ranges in the staging memory */
    uint32_t cursor_buffer;           /* receiving, sending: next buffer ... */
    uint64_t cursor_offset;           /* ... and byte of it */
    struct attempt *attempt;          /* RUNNING: the one whose result counts */
    uint32_t tries;
    bool sending;       /* in conn->sending */
    bool success;       /* SENDING: outputs come before the response */
    uint64_t orphan_ns; /* when its connection broke; 0: somebody waits for it */
    uint32_t worker;
    uint64_t run_ns;
    uint32_t response_len;
    _Alignas(8) uint8_t response[VGPU_REQ_MAX];
};

struct attempt {
    TAILQ_ENTRY(attempt) vm_link;
    TAILQ_ENTRY(attempt) exec_link;
    struct vm *vm;
    struct job *job; /* NULL: it lingers */
    struct exec *exec;
    struct staging *staging;
    uint64_t job_id;
    uint32_t number;
    uint32_t epoch;
    uint16_t op;
    uint64_t tag;
    uint32_t payload_len;
    uint32_t max_job_ms;
    bool lost; /* its job runs elsewhere; holds no credit any more */
    uint64_t start_ns;
    uint64_t limit_ns;                /* when the mediator asks for the executor's end */
    uint64_t cancel_ns;               /* when JOB_CANCEL was sent; 0: not */
    struct span spans[VGPU_BUFS_MAX]; /* its OUT ranges */
};

/* An executor and its channel. */
struct exec {
    TAILQ_ENTRY(exec) link;
    struct msgconn conn;
    struct worker *worker;
    uint32_t number;
    uint32_t pid;
    bool channel;    /* open */
    bool supervised; /* its supervisor is connected and has not reaped it */
    bool closing;    /* the handle is being closed */
    bool kill_sent;
    uint64_t heard_ns, beat_ns;
    uint64_t progress;
    enum liveness liveness;
    struct attempt_head attempts;
    uint32_t held;     /* attempts that hold a credit */
    uint32_t *regions; /* attached ones */
    uint32_t n_regions, cap_regions;
};

/* A worker by name; it stays when its supervisor goes, for its number and its attempts. */
struct worker {
    TAILQ_ENTRY(worker) link;
    struct mediator *m;
    struct msgconn conn; /* of the supervisor */
    bool connected;      /* conn is open */
    bool registered;
    bool closing;
    bool draining;
    bool replaced; /* another worker has its name now */
    uint32_t id;
    uint32_t pid;
    char name[VGPU_NAME_MAX], backend[VGPU_NAME_MAX], device[VGPU_NAME_MAX];
    struct pool *pool;
    struct offer offer;
    uint32_t depth;
    uint64_t memory_bytes;
    uint64_t boot_id;
    uint64_t period_ns; /* of heartbeats, as it was told */
    uint64_t since_ns, heard_ns, beat_ns;
    uint64_t progress;
    enum liveness liveness;
    struct exec *exec; /* takes new jobs; NULL: none does */
    struct exec_head execs;
    uint64_t done, failed, lost, late;
    uint64_t busy_ns;
    uint32_t turn; /* of dispatch_pool() in which nothing was found for it */
    struct log_limit log_limit;
};

/* An ended job, for `vgpuctl jobs`. */
struct ended {
    uint64_t id, seq, queued_ns, run_ns, end_ns;
    uint32_t vm, error;
    uint16_t op;
    uint8_t band;
    uint8_t attempts;
    char vm_name[CONF_NAME_MAX + 1];
    char tenant[CONF_NAME_MAX + 1];
    char worker[VGPU_NAME_MAX];
};

struct mediator {
    uv_loop_t loop;
    uv_timer_t tick;       /* liveness, limits, grace periods */
    uv_timer_t deadline;   /* the earliest deadline */
    uv_idle_t drain_check; /* active when it must be seen whether the drain is complete */
    uv_idle_cb on_drain_check;
    uv_signal_t signals[3];
    const char *config_path;
    const char *run_dir;
    struct conf_mediator c;
    uint64_t generation; /* random: mediator_gen */
    uint64_t start_ns;
    uint32_t euid;
    bool draining;
    bool stopping; /* handles are being closed */
    uint64_t drain_until_ns;
    uint64_t tick_ns; /* when on_tick() ran last */
    struct tenant **tenants;
    uint32_t n_tenants;
    struct pool *pools[CONF_POOLS_MAX];
    uint32_t n_pools;
    struct vm_head vms;
    uint32_t n_vms, next_vm;
    struct worker_head workers;
    uint32_t n_workers, n_connected, next_worker;
    struct listener worker_listener;
    struct heap deadlines; /* jobs that have no answer yet */
    uint64_t next_job, next_region;
    uint32_t n_jobs;
    uint32_t turn;
    struct ended *history; /* ring of c.history entries */
    uint32_t history_size, history_count, history_next;
    struct admin *admin;
    struct log_limit log_limit;
    uint64_t now_ns; /* of this turn of the loop */
};

/**
 * mediator_run() - serve until a signal ends it
 *
 * Return: the exit status of the program.
 */
int mediator_run(const char *config_path, const char *run_dir);

/** mediator_now() - time, ns; read once per callback of the loop */
uint64_t mediator_now(struct mediator *m);

/** mediator_drained() - look whether a draining mediator has nothing left to do, and stop it then */
void mediator_drained(struct mediator *m);

/** mediator_stop() - end at once: close everything */
void mediator_stop(struct mediator *m);

#endif

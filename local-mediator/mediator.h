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
 *   attempt  from its descriptor until its completion, EXECUTOR_GONE or DETACHED: as long as an
 *            executor may write to its OUT ranges. An attempt whose job is NULL lingers: its result
 *            is not wanted.
 *   exec     until its channel is closed and no attempt is left
 *   region   counted references: its VM's staging memory or connection, and every job and attempt with
 *            ARENA buffers in it
 */
#ifndef VGPU_MEDIATOR_H
#define VGPU_MEDIATOR_H

#include <sys/queue.h>
#include <uv.h>

#include "common/conf.h"
#include "common/core/heap.h"
#include "common/core/request.h"
#include "common/core/ring.h"
#include "common/core/sched.h"
#include "common/log.h"
#include "common/msgconn.h"
#include "common/poller.h"
#include "local-mediator/core/classes.h"
#include "local-mediator/core/jobstate.h"
#include "local-mediator/core/liveness.h"
#include "local-mediator/core/regionset.h"
#include "local-mediator/core/session.h"
#include "local-mediator/staging.h"

#define MEDIATOR_TICK_MS_MAX 250u
#define VM_JOBS_MAX 64u /* window requests without answer of one VM; then BUSY, at twice: cut off */
#define VM_CONNS_MAX 8u /* connections to a VM's socket, those being refused included */
#define VM_WRITERS_MAX 64u /* attempts of one VM's dropped jobs that still linger; then BUSY */
#define HELLO_TIMEOUT_MS 5000u
#define REMEMBERED_WORKERS_MAX 1024u

struct admin;
struct guest_ring;
struct mediator;
struct shm;

struct tenant {
    struct conf_tenant c;
    uint32_t index; /* at the schedulers; its number is index + 1 */
    uint32_t jobs;  /* admitted and not ended */
    uint64_t bytes; /* ARENA bytes of those */
    uint64_t done, failed, refused;
    uint64_t busy_ns;
};

struct pool {
    TAILQ_ENTRY(pool) dispatch_link;
    bool wants_dispatch; /* in m->dispatch_pools */
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
    bool paced;        /* at most LISTEN_PACE connections from one tick to the next */
    uint32_t accepted; /* since the last tick */
    void (*on_connect)(struct listener *l, int fd); /* @fd is the callee's */
    void *user;
};

TAILQ_HEAD(pool_head, pool);
TAILQ_HEAD(vm_head, vm);
TAILQ_HEAD(conn_head, vmconn);
TAILQ_HEAD(job_head, job);
TAILQ_HEAD(attempt_head, attempt);
TAILQ_HEAD(worker_head, worker);
TAILQ_HEAD(exec_head, exec);
TAILQ_HEAD(shm_head, shm);

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
    struct vmconn *conn;     /* the accepted one, or NULL */
    struct staging *staging; /* NULL: none, or its connection is on the shared-memory path */
    struct job_head jobs;    /* window requests in the order of their coming, then ring requests */
    uint32_t n_jobs;
    uint32_t n_window_jobs;
    uint32_t in_state[JOB_ENDED + 1]; /* jobs by their state */
    struct attempt_head writers; /* attempts that may write to this VM's staging memory or arena */
    uint32_t n_writers;
    uint64_t done, failed;
    uint64_t bytes_in, bytes_out; /* of ARENA buffers, over its socket */
    uint64_t kicks, calls;        /* kick eventfds read, call eventfds written */
    uint64_t storms;              /* times that its doorbells were left alone for a while */
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
    struct shm *shm;         /* NULL: on the socket path */
};

struct span {
    uint64_t offset, length; /* length 0: none */
};

/* From a pool of the mediator's: nothing is zeroed behind the header in `copy`. */
struct job {
    TAILQ_ENTRY(job) vm_link;
    TAILQ_ENTRY(job) send_link; /* window requests: in conn->sending */
    TAILQ_ENTRY(job) ring_link; /* ring requests: in the order of the ring */
    LIST_ENTRY(job) tag_link;   /* ring requests: those with like tags */
    struct vm *vm;
    struct tenant *tenant;
    struct pool *pool;
    struct region *region;   /* a reference; NULL: it has no ARENA buffers */
    struct staging *staging; /* the same; NULL on the shared-memory path */
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
    uint32_t cursor_buffer;  /* receiving, sending: next buffer ... */
    uint64_t cursor_offset;  /* ... and byte of it */
    struct attempt *attempt; /* RUNNING: the one whose result counts */
    struct attempt *writer;  /* ENDING: the one that may still write to its buffers */
    bool answered;           /* ENDING: the response is there; otherwise it runs again */
    uint32_t tries;
    bool sending;       /* in conn->sending */
    bool success;       /* SENDING: outputs come before the response */
    uint64_t orphan_ns; /* when its connection broke; 0: somebody waits for it */
    uint32_t worker;
    uint64_t run_ns;
    struct guest_ring *ring; /* NULL: it came through the window */
    uint32_t slot;           /* of the ring */
    uint64_t desc_tag;
    uint32_t response_len;
    struct span spans[VGPU_BUFS_MAX]; /* its ranges in the staging memory */
    struct request request;           /* its bytes are `copy` */
    _Alignas(8) uint8_t copy[VGPU_REQ_MAX];
    _Alignas(8) uint8_t response[VGPU_REQ_MAX];
};

/* Lies in its executor's table of slots. */
struct attempt {
    TAILQ_ENTRY(attempt) vm_link;
    TAILQ_ENTRY(attempt) exec_link;
    struct vm *vm;   /* NULL: there is no attempt in this slot */
    struct job *job; /* NULL: it lingers */
    struct exec *exec;
    uint32_t slot;           /* of the job ring */
    struct region *region;   /* a reference; NULL: no ARENA buffers */
    struct staging *staging; /* the same; NULL on the shared-memory path */
    struct job *waiter;      /* is answered or runs again when this attempt is gone */
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
    uint64_t cancel_ns;               /* when it was to be cancelled; 0: it was not */
    bool cancel_waits;                /* JOB_CANCEL was not sent yet */
    struct span spans[VGPU_BUFS_MAX]; /* its OUT ranges */
};

/* An executor, its channel and its job ring. */
struct exec {
    TAILQ_ENTRY(exec) link;
    TAILQ_ENTRY(exec) busy_link;
    TAILQ_ENTRY(exec) flush_link;
    struct msgconn conn;
    uv_poll_t bell; /* `call` is readable */
    struct ring_driver ring;
    void *ring_memory;
    size_t ring_bytes;
    int ring_fd;             /* memfd; -1: sent */
    int kick, call;          /* eventfds */
    uint32_t handles;        /* of the loop that are not closed yet */
    bool busy;               /* in m->busy_execs: something is in flight */
    bool unpublished;        /* in m->flush_execs: the executor has to be told of something */
    bool cancels_wait;       /* attempts with cancel_waits */
    bool broken;             /* it broke a rule of the ring */
    struct attempt *by_slot; /* one per slot */
    struct worker *worker;
    uint32_t number;
    uint32_t pid;
    bool channel;    /* open */
    bool supervised; /* its supervisor is connected and has not reaped it */
    bool closing;    /* the handle is being closed */
    bool kill_sent;
    uint64_t heard_ns, beat_ns;
    uint64_t ended_ns; /* when its channel ended */
    uint64_t progress;
    enum liveness liveness;
    struct attempt_head attempts;
    uint32_t held;            /* attempts that hold a credit */
    struct regionset regions; /* attached ones */
    uint64_t detach_ns;       /* while some are leaving: when it was told, or the last one left */
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
    uint32_t turn;      /* of dispatch_pool() in which nothing was found for it */
    uint64_t quick_ops; /* bit n: jobs of op n have been quick lately */
    uint8_t quick_runs[VGPU_OP_NUMBER_MAX + 1]; /* quick jobs of an op, one after the other */
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
    struct exec_head busy_execs, flush_execs;
    struct pool_head dispatch_pools; /* something may be given to a worker */
    struct poller poller;
    uint64_t spin_ns;                /* longest time to poll in vain */
    uint64_t exec_kicks, exec_wakes; /* bells rung at executors, calls of theirs heard */
    uint32_t n_workers, n_connected, next_worker;
    struct listener worker_listener;
    struct heap deadlines; /* jobs that have no answer yet */
    uint64_t next_job, next_region;
    uint32_t n_jobs;
    struct job_head spare_jobs; /* freed ones, linked by vm_link */
    uint32_t n_spare_jobs;
    uint64_t deadline_armed_ns;              /* what the timer is set for; 0: not set */
    struct shm_head active_shms, dirty_shms; /* rings to look at, rings to publish */
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

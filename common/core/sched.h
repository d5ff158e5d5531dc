/* SPDX-License-Identifier: MIT */
/*
 * sched - decide which queued job a worker's credit goes to
 *
 * Pure: time is an argument, the caller owns the jobs (they are embedded in its own structures) and
 * carries decisions out. Used by every process that queues jobs.
 *
 * A job is OUT, QUEUED or BOUND (given to a worker). Within the caps, sched_submit() queues it;
 * sched_pick() binds it against a credit; sched_done(), sched_requeue() or, while queued,
 * sched_remove() move it on.
 *
 * Order: higher band first; within a band the order of acceptance, over all tenants. A job that the
 * asking worker cannot run never blocks another: jobs fall into eligibility classes, and a worker
 * names the classes that it can run. A requeued job keeps its place.
 *
 * Costs: pick O(classes), submit and remove O(log n) for the deadline heap.
 * Invariants: sched_check().
 */
#ifndef VGPU_CORE_SCHED_H
#define VGPU_CORE_SCHED_H

#include <stdint.h>

#include "proto/vgpu_regs.h"

#define SCHED_CLASSES 64u
#define SCHED_NO_DEADLINE UINT64_MAX

enum {
    SCHED_E_TENANT_JOBS = 1, /* the tenant has as many jobs as it may: BUSY */
    SCHED_E_TENANT_BYTES,    /* … as many bytes … */
    SCHED_E_POOL_JOBS,       /* the pool has as many jobs as it may: BUSY */
    SCHED_E_POOL_BYTES,
};

enum sched_state { SCHED_OUT = 0, SCHED_QUEUED, SCHED_BOUND };

struct sched;

/* Zero it, fill the first part in, leave the second alone. */
struct sched_job {
    uint32_t tenant;      /* index, added before by sched_tenant_set() */
    uint8_t band;         /* VGPU_BAND_* */
    uint8_t klass;        /* eligibility class, < SCHED_CLASSES */
    uint32_t kind;        /* op number: costs are learned per (tenant, kind) */
    uint64_t bytes;       /* counted against the caps */
    uint64_t deadline_ns; /* absolute, SCHED_NO_DEADLINE for none */

    enum sched_state state;
    uint64_t submit_ns;
    uint64_t bind_ns;
    uint64_t order;
    uint32_t heap_index;
    struct sched_job *prev, *next;
};

struct sched_caps {
    uint32_t max_jobs;  /* queued and bound */
    uint64_t max_bytes; /* of those */
};

struct sched_tenant_config {
    uint32_t weight; /* >= 1 */
    struct sched_caps caps;
};

struct sched_worker {
    uint64_t classes; /* bit n: can run class n */
    uint8_t band_min; /* lowest band that this credit is for */
};

struct sched_count {
    uint32_t queued, bound;
    uint64_t queued_bytes, bound_bytes;
    uint64_t done;      /* jobs completed since the start */
    uint64_t busy_ns;   /* their cost */
    uint64_t refused;   /* submissions over a cap */
    uint64_t oldest_ns; /* when the oldest queued job was accepted; 0: none is queued */
};

/**
 * sched_new() - an empty scheduler
 * @caps: of the whole pool
 * @ret:  the scheduler; written only on 0
 *
 * Return: 0; -ENOMEM.
 */
int sched_new(const struct sched_caps *caps, struct sched **ret);

/** sched_free() - free @s; the jobs stay the caller's. NULL is fine. */
void sched_free(struct sched *s);

/** sched_set_caps() - change the caps of the pool; jobs over a lowered one stay */
void sched_set_caps(struct sched *s, const struct sched_caps *caps);

/**
 * sched_tenant_set() - add a tenant or change its configuration
 * @tenant: index chosen by the caller, small (an array is kept)
 *
 * Return: 0; -EINVAL for a weight of 0 or an index over 65535; -ENOMEM.
 */
int sched_tenant_set(struct sched *s, uint32_t tenant, const struct sched_tenant_config *config);

/**
 * sched_submit() - queue a job
 * @job:    in state SCHED_OUT; must stay where it is until it is OUT again
 * @now_ns: now
 *
 * Return: 0; SCHED_E_*; -EINVAL for an unknown tenant, band or class, or a job that is not OUT;
 * -ENOMEM.
 */
int sched_submit(struct sched *s, struct sched_job *job, uint64_t now_ns);

/**
 * sched_pick() - the job that a credit of @worker should run, now BOUND
 *
 * Return: the job; NULL when no queued job is for it.
 */
struct sched_job *sched_pick(struct sched *s, const struct sched_worker *worker, uint64_t now_ns);

/** sched_requeue() - a BOUND job's worker was lost: queue it again in its old place */
void sched_requeue(struct sched *s, struct sched_job *job);

/** sched_done() - a BOUND job ended after @cost_ns of work; it is OUT now */
void sched_done(struct sched *s, struct sched_job *job, uint64_t cost_ns);

/** sched_remove() - take a QUEUED job out (cancelled, its VM gone); it is OUT now */
void sched_remove(struct sched *s, struct sched_job *job);

/**
 * sched_expire() - take out one QUEUED job whose deadline is not after @now_ns
 *
 * Return: the job, now OUT; NULL when there is none. Call until NULL.
 */
struct sched_job *sched_expire(struct sched *s, uint64_t now_ns);

/** sched_next_deadline() - earliest deadline of a QUEUED job, SCHED_NO_DEADLINE when none */
uint64_t sched_next_deadline(const struct sched *s);

/** sched_ahead() - jobs that would be picked before a QUEUED @job by a worker that can run all;
 *  O(queued), for people's questions only */
uint32_t sched_ahead(const struct sched *s, const struct sched_job *job);

/** sched_count_band() - counters of a band */
void sched_count_band(const struct sched *s, uint8_t band, struct sched_count *ret);

/** sched_count_tenant() - counters of a tenant; all zero for an unknown one */
void sched_count_tenant(const struct sched *s, uint32_t tenant, struct sched_count *ret);

/** sched_check() - 0 when the invariants hold, else a negative number naming the broken one */
int sched_check(const struct sched *s);

#endif

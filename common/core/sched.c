/* SPDX-License-Identifier: MIT */
/*
 * sched.c - first in, first out within bands; see sched.h
 *
 * One list per (band, class), in the order of acceptance, and one heap of all queued jobs by
 * deadline. A pick compares the heads of the classes that the worker can run.
 */
#include "common/core/sched.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "common/core/heap.h"

#define TENANT_MAX 65536u

struct list {
    struct sched_job *head, *tail;
};

struct tenant {
    bool known;
    struct sched_tenant_config config;
    struct sched_count count;
};

struct band {
    struct list classes[SCHED_CLASSES];
    uint64_t backlog; /* bit n: classes[n] is not empty */
    struct sched_count count;
};

struct sched {
    struct sched_caps caps;
    struct band bands[VGPU_BANDS];
    struct tenant *tenants;
    uint32_t n_tenants;
    uint32_t jobs; /* queued and bound */
    uint64_t bytes;
    uint64_t next_order;
    struct heap deadlines;
};

static bool deadline_less(const void *a, const void *b)
{
    const struct sched_job *x = a;
    const struct sched_job *y = b;

    return x->deadline_ns != y->deadline_ns ? x->deadline_ns < y->deadline_ns : x->order < y->order;
}

static void deadline_set_index(void *item, uint32_t index)
{
    ((struct sched_job *)item)->heap_index = index;
}

/* ---- lists ---- */

/* New jobs go to the tail; a requeued one is old and finds its place from the head. */
static void list_insert(struct list *l, struct sched_job *job)
{
    struct sched_job *after = l->tail;

    if (after && after->order > job->order) {
        struct sched_job *before = l->head;

        while (before->order < job->order) {
            before = before->next;
        }
        after = before->prev;
    }
    job->prev = after;
    job->next = after ? after->next : l->head;
    if (job->next) {
        job->next->prev = job;
    } else {
        l->tail = job;
    }
    if (after) {
        after->next = job;
    } else {
        l->head = job;
    }
}

static void list_remove(struct list *l, struct sched_job *job)
{
    if (job->prev) {
        job->prev->next = job->next;
    } else {
        l->head = job->next;
    }
    if (job->next) {
        job->next->prev = job->prev;
    } else {
        l->tail = job->prev;
    }
    job->prev = NULL;
    job->next = NULL;
}

static void backlog_insert(struct sched *s, struct sched_job *job)
{
    struct band *b = &s->bands[job->band];

    list_insert(&b->classes[job->klass], job);
    b->backlog |= UINT64_C(1) << job->klass;
}

static void backlog_remove(struct sched *s, struct sched_job *job)
{
    struct band *b = &s->bands[job->band];
    struct list *l = &b->classes[job->klass];

    list_remove(l, job);
    if (!l->head) {
        b->backlog &= ~(UINT64_C(1) << job->klass);
    }
}

/* ---- counters ---- */

static void count_queued(struct sched_count *c, const struct sched_job *job, bool in)
{
    c->queued += in ? 1u : UINT32_MAX;
    c->queued_bytes += in ? job->bytes : 0 - job->bytes;
}

static void count_bound(struct sched_count *c, const struct sched_job *job, bool in)
{
    c->bound += in ? 1u : UINT32_MAX;
    c->bound_bytes += in ? job->bytes : 0 - job->bytes;
}

static struct sched_count *tenant_count(struct sched *s, const struct sched_job *job)
{
    return &s->tenants[job->tenant].count;
}

static struct sched_count *band_count(struct sched *s, const struct sched_job *job)
{
    return &s->bands[job->band].count;
}

/* ---- entering and leaving the queue ---- */

/* The heap has room for every queued and bound job: sched_submit() reserves it. */
static void enqueue(struct sched *s, struct sched_job *job)
{
    (void)heap_insert(&s->deadlines, job);
    backlog_insert(s, job);
    count_queued(band_count(s, job), job, true);
    count_queued(tenant_count(s, job), job, true);
    job->state = SCHED_QUEUED;
}

static void dequeue(struct sched *s, struct sched_job *job, enum sched_state state)
{
    heap_remove(&s->deadlines, job->heap_index);
    backlog_remove(s, job);
    count_queued(band_count(s, job), job, false);
    count_queued(tenant_count(s, job), job, false);
    job->state = state;
}

static void leave(struct sched *s, const struct sched_job *job)
{
    s->jobs--;
    s->bytes -= job->bytes;
}

/* ---- public ---- */

int sched_new(const struct sched_caps *caps, struct sched **ret)
{
    struct sched *s = calloc(1, sizeof(*s));

    if (!s) {
        return -ENOMEM;
    }
    s->caps = *caps;
    s->deadlines.less = deadline_less;
    s->deadlines.set_index = deadline_set_index;
    *ret = s;
    return 0;
}

void sched_free(struct sched *s)
{
    if (s) {
        heap_fini(&s->deadlines);
        free(s->tenants);
        free(s);
    }
}

void sched_set_caps(struct sched *s, const struct sched_caps *caps)
{
    s->caps = *caps;
}

static int tenants_reserve(struct sched *s, uint32_t tenant)
{
    uint32_t n = s->n_tenants;
    struct tenant *t;

    if (tenant < n) {
        return 0;
    }
    while (n <= tenant) {
        n = n ? n * 2 : 16;
    }
    t = realloc(s->tenants, n * sizeof(*t));
    if (!t) {
        return -ENOMEM;
    }
    for (uint32_t i = s->n_tenants; i < n; i++) {
        t[i] = (struct tenant){0};
    }
    s->tenants = t;
    s->n_tenants = n;
    return 0;
}

int sched_tenant_set(struct sched *s, uint32_t tenant, const struct sched_tenant_config *config)
{
    int err;

    if (config->weight == 0 || tenant >= TENANT_MAX) {
        return -EINVAL;
    }
    err = tenants_reserve(s, tenant);
    if (err) {
        return err;
    }
    s->tenants[tenant].known = true;
    s->tenants[tenant].config = *config;
    return 0;
}

static bool is_known(const struct sched *s, const struct sched_job *job)
{
    return job->tenant < s->n_tenants && s->tenants[job->tenant].known && job->band < VGPU_BANDS &&
           job->klass < SCHED_CLASSES;
}

static bool over(uint64_t used, uint64_t more, uint64_t cap)
{
    return used > cap || more > cap - used;
}

static int check_caps(const struct sched *s, const struct sched_job *job)
{
    const struct tenant *t = &s->tenants[job->tenant];
    const struct sched_count *c = &t->count;

    if (over((uint64_t)c->queued + c->bound, 1, t->config.caps.max_jobs)) {
        return SCHED_E_TENANT_JOBS;
    }
    if (over(c->queued_bytes + c->bound_bytes, job->bytes, t->config.caps.max_bytes)) {
        return SCHED_E_TENANT_BYTES;
    }
    if (over(s->jobs, 1, s->caps.max_jobs)) {
        return SCHED_E_POOL_JOBS;
    }
    return over(s->bytes, job->bytes, s->caps.max_bytes) ? SCHED_E_POOL_BYTES : 0;
}

int sched_submit(struct sched *s, struct sched_job *job, uint64_t now_ns)
{
    int r;

    if (!is_known(s, job) || job->state != SCHED_OUT) {
        return -EINVAL;
    }
    r = check_caps(s, job);
    if (r) {
        band_count(s, job)->refused++;
        tenant_count(s, job)->refused++;
        return r;
    }
    r = heap_reserve(&s->deadlines, (size_t)s->jobs + 1);
    if (r) {
        return r;
    }
    job->submit_ns = now_ns;
    job->order = s->next_order++;
    enqueue(s, job);
    s->jobs++;
    s->bytes += job->bytes;
    return 0;
}

static struct sched_job *band_oldest(const struct band *b, uint64_t classes)
{
    struct sched_job *best = NULL;
    uint64_t left = b->backlog & classes;

    while (left) {
        struct sched_job *head = b->classes[__builtin_ctzll(left)].head;

        best = !best || head->order < best->order ? head : best;
        left &= left - 1;
    }
    return best;
}

struct sched_job *sched_pick(struct sched *s, const struct sched_worker *worker, uint64_t now_ns)
{
    for (unsigned band = VGPU_BANDS; band-- > worker->band_min;) {
        struct sched_job *job = band_oldest(&s->bands[band], worker->classes);

        if (job) {
            dequeue(s, job, SCHED_BOUND);
            job->bind_ns = now_ns;
            count_bound(band_count(s, job), job, true);
            count_bound(tenant_count(s, job), job, true);
            return job;
        }
    }
    return NULL;
}

static void unbind(struct sched *s, struct sched_job *job)
{
    count_bound(band_count(s, job), job, false);
    count_bound(tenant_count(s, job), job, false);
    job->state = SCHED_OUT;
}

void sched_requeue(struct sched *s, struct sched_job *job)
{
    unbind(s, job);
    enqueue(s, job);
}

void sched_done(struct sched *s, struct sched_job *job, uint64_t cost_ns)
{
    struct sched_count *counts[] = {band_count(s, job), tenant_count(s, job)};

    unbind(s, job);
    leave(s, job);
    for (unsigned i = 0; i < 2; i++) {
        counts[i]->done++;
        counts[i]->busy_ns += cost_ns;
    }
}

void sched_remove(struct sched *s, struct sched_job *job)
{
    dequeue(s, job, SCHED_OUT);
    leave(s, job);
}

struct sched_job *sched_expire(struct sched *s, uint64_t now_ns)
{
    struct sched_job *job = heap_first(&s->deadlines);

    if (!job || job->deadline_ns > now_ns) {
        return NULL;
    }
    sched_remove(s, job);
    return job;
}

uint64_t sched_next_deadline(const struct sched *s)
{
    const struct sched_job *job = heap_first(&s->deadlines);

    return job ? job->deadline_ns : SCHED_NO_DEADLINE;
}

static bool comes_before(const struct sched_job *a, const struct sched_job *b)
{
    return a->band != b->band ? a->band > b->band : a->order < b->order;
}

uint32_t sched_ahead(const struct sched *s, const struct sched_job *job)
{
    uint32_t n = 0;

    for (size_t i = 0; i < s->deadlines.count; i++) {
        n += comes_before(s->deadlines.items[i], job);
    }
    return n;
}

static void set_oldest(const struct band *b, struct sched_count *c)
{
    const struct sched_job *job = band_oldest(b, UINT64_MAX);

    c->oldest_ns = job ? job->submit_ns : 0;
}

void sched_count_band(const struct sched *s, uint8_t band, struct sched_count *ret)
{
    *ret = s->bands[band].count;
    set_oldest(&s->bands[band], ret);
}

void sched_count_tenant(const struct sched *s, uint32_t tenant, struct sched_count *ret)
{
    *ret = (struct sched_count){0};
    if (tenant >= s->n_tenants) {
        return;
    }
    *ret = s->tenants[tenant].count;
    for (size_t i = 0; i < s->deadlines.count; i++) {
        const struct sched_job *job = s->deadlines.items[i];

        if (job->tenant == tenant && (ret->oldest_ns == 0 || job->submit_ns < ret->oldest_ns)) {
            ret->oldest_ns = job->submit_ns;
        }
    }
}

/* ---- invariants ---- */

static int check_list(const struct sched *s, unsigned band, unsigned klass, uint32_t *ret_n)
{
    const struct list *l = &s->bands[band].classes[klass];
    bool flagged = s->bands[band].backlog >> klass & 1;
    const struct sched_job *prev = NULL;

    if (flagged != (l->head != NULL)) {
        return -1;
    }
    for (const struct sched_job *j = l->head; j; prev = j, j = j->next) {
        if (j->prev != prev || (prev && prev->order >= j->order)) {
            return -2;
        }
        if (j->state != SCHED_QUEUED || j->band != band || j->klass != klass) {
            return -3;
        }
        if (j->heap_index >= s->deadlines.count || s->deadlines.items[j->heap_index] != j) {
            return -4;
        }
        ++*ret_n;
    }
    return l->tail == prev ? 0 : -5;
}

static int check_counts(const struct sched *s, uint32_t queued)
{
    uint64_t jobs = 0;
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < s->n_tenants; i++) {
        const struct sched_count *c = &s->tenants[i].count;

        jobs += (uint64_t)c->queued + c->bound;
        bytes += c->queued_bytes + c->bound_bytes;
    }
    if (jobs != s->jobs || bytes != s->bytes) {
        return -6;
    }
    return queued == s->deadlines.count ? 0 : -7;
}

int sched_check(const struct sched *s)
{
    uint32_t queued = 0;

    for (unsigned band = 0; band < VGPU_BANDS; band++) {
        uint32_t before = queued;

        for (unsigned klass = 0; klass < SCHED_CLASSES; klass++) {
            int r = check_list(s, band, klass, &queued);

            if (r) {
                return r;
            }
        }
        if (queued - before != s->bands[band].count.queued) {
            return -8;
        }
    }
    return heap_check(&s->deadlines) ? -9 : check_counts(s, queued);
}

/* SPDX-License-Identifier: MIT */
#include "local-mediator/adminview.h"

#include <string.h>
#include <unistd.h>

#include "local-mediator/adminjson.h"
#include "local-mediator/dispatch.h"
#include "local-mediator/shm.h"
#include "local-mediator/vm.h"
#include "local-mediator/vmconn.h"

/* ---- queues ---- */

static void add_count(struct sched_count *sum, const struct sched_count *c)
{
    sum->queued += c->queued;
    sum->bound += c->bound;
    sum->queued_bytes += c->queued_bytes;
    sum->done += c->done;
    sum->busy_ns += c->busy_ns;
    sum->refused += c->refused;
    if (c->oldest_ns && (!sum->oldest_ns || c->oldest_ns < sum->oldest_ns)) {
        sum->oldest_ns = c->oldest_ns;
    }
}

static void set_counters(json_t *object, const struct sched_count *c, uint64_t now_ns)
{
    adminjson_number(object, "queued", c->queued);
    adminjson_number(object, "running", c->bound);
    adminjson_number(object, "queued_bytes", c->queued_bytes);
    adminjson_number(object, "done", c->done);
    adminjson_number(object, "refused", c->refused);
    adminjson_seconds(object, "busy_s", c->busy_ns);
    if (c->oldest_ns) {
        adminjson_seconds(object, "oldest_s", now_ns - c->oldest_ns);
    } else {
        json_object_set_new(object, "oldest_s", json_null());
    }
}

static json_t *view_mediator(struct mediator *m)
{
    json_t *object = json_object();
    char host[256] = "";

    gethostname(host, sizeof(host) - 1);
    adminjson_text(object, "name", host);
    adminjson_number(object, "pid", (uint64_t)getpid());
    adminjson_text(object, "version", VGPU_VERSION);
    adminjson_seconds(object, "uptime_s", m->now_ns - m->start_ns);
    json_object_set_new(object, "draining", json_boolean(m->draining));
    adminjson_number(object, "spin_us", m->spin_ns / 1000);
    adminjson_number(object, "polls", m->poller.polls);
    adminjson_number(object, "sleeps", m->poller.sleeps);
    adminjson_number(object, "executor_kicks", m->exec_kicks);
    adminjson_number(object, "executor_calls", m->exec_wakes);
    return object;
}

static json_t *view_pool(struct mediator *m, const struct pool *pool)
{
    json_t *object = json_object();

    adminjson_text(object, "pool", pool->c.name);
    adminjson_number(object, "id", pool->c.id);
    adminjson_number(object, "workers", dispatch_workers(m, pool));
    adminjson_number(object, "credits", dispatch_slots(m, pool));
    adminjson_number(object, "credits_used", dispatch_held(m, pool));
    json_object_set_new(object, "removed", json_boolean(pool->removed));
    return object;
}

static json_t *view_band(const struct pool *pool, uint8_t band, uint64_t now_ns)
{
    json_t *object = json_object();
    struct sched_count c;

    sched_count_band(pool->sched, band, &c);
    adminjson_text(object, "pool", pool->c.name);
    adminjson_text(object, "band", vgpu_band_name(band));
    adminjson_number(object, "max_job_ms", pool->c.bands[band].max_job);
    set_counters(object, &c, now_ns);
    return object;
}

static json_t *view_tenant(struct mediator *m, const struct tenant *tenant)
{
    json_t *object = json_object();
    struct sched_count sum = {.queued = 0};

    for (uint32_t i = 0; i < m->n_pools; i++) {
        struct sched_count c;

        sched_count_tenant(m->pools[i]->sched, tenant->index, &c);
        add_count(&sum, &c);
    }
    sum.refused = tenant->refused;
    adminjson_text(object, "tenant", tenant->c.name);
    adminjson_number(object, "id", tenant->index + 1);
    adminjson_number(object, "weight", tenant->c.weight);
    adminjson_number(object, "max_queued", tenant->c.max_queued);
    adminjson_number(object, "max_bytes", tenant->c.max_bytes);
    set_counters(object, &sum, m->now_ns);
    return object;
}

static json_t *view_queues(struct mediator *m)
{
    json_t *view = adminjson_view("vgpu.queues/1");
    json_t *pools = json_array();
    json_t *bands = json_array();
    json_t *tenants = json_array();

    for (uint32_t i = 0; i < m->n_pools; i++) {
        json_array_append_new(pools, view_pool(m, m->pools[i]));
        for (int band = VGPU_BANDS - 1; band >= 0; band--) {
            json_array_append_new(bands, view_band(m->pools[i], (uint8_t)band, m->now_ns));
        }
    }
    for (uint32_t i = 0; i < m->n_tenants; i++) {
        json_array_append_new(tenants, view_tenant(m, m->tenants[i]));
    }
    json_object_set_new(view, "mediator", view_mediator(m));
    json_object_set_new(view, "pools", pools);
    json_object_set_new(view, "bands", bands);
    json_object_set_new(view, "tenants", tenants);
    return view;
}

/* ---- workers ---- */

static const char *worker_state(const struct worker *w)
{
    if (!w->connected) {
        return "gone";
    }
    if (w->liveness != LIVENESS_UP) {
        return liveness_name(w->liveness);
    }
    if (w->draining) {
        return "draining";
    }
    return w->exec ? liveness_name(w->exec->liveness) : "starting";
}

static uint32_t count_attempts(const struct worker *w, bool lost)
{
    const struct exec *exec;
    const struct attempt *a;
    uint32_t count = 0;

    TAILQ_FOREACH (exec, &w->execs, link) {
        TAILQ_FOREACH (a, &exec->attempts, exec_link) {
            count += a->lost == lost;
        }
    }
    return count;
}

static json_t *view_ops(uint64_t ops)
{
    json_t *list = json_array();

    for (uint32_t op = 0; op <= VGPU_OP_NUMBER_MAX; op++) {
        if (ops >> op & 1) {
            json_array_append_new(list, json_string(vgpu_op_name(op)));
        }
    }
    return list;
}

static json_t *view_worker(const struct worker *w, uint64_t now_ns)
{
    json_t *object = json_object();

    adminjson_number(object, "id", w->id);
    adminjson_text(object, "worker", w->name);
    adminjson_text(object, "pool", w->pool->c.name);
    adminjson_text(object, "backend", w->backend);
    adminjson_text(object, "device", w->device);
    adminjson_text(object, "state", worker_state(w));
    adminjson_number(object, "depth", w->depth);
    adminjson_number(object, "running", count_attempts(w, false));
    adminjson_number(object, "quarantined", count_attempts(w, true));
    adminjson_number(object, "done", w->done);
    adminjson_number(object, "failed", w->failed);
    adminjson_number(object, "lost", w->lost);
    adminjson_number(object, "late", w->late);
    adminjson_seconds(object, "busy_s", w->busy_ns);
    adminjson_number(object, "pid", w->pid);
    adminjson_number(object, "executor_pid", w->exec ? w->exec->pid : 0);
    adminjson_seconds(object, "since_s", now_ns - w->since_ns);
    adminjson_seconds(object, "silent_s", now_ns - w->heard_ns);
    json_object_set_new(object, "ops", view_ops(w->offer.ops));
    return object;
}

static json_t *view_workers(struct mediator *m)
{
    json_t *view = adminjson_view("vgpu.workers/1");
    json_t *list = json_array();
    const struct worker *w;

    TAILQ_FOREACH (w, &m->workers, link) {
        if (w->registered && !w->replaced) {
            json_array_append_new(list, view_worker(w, m->now_ns));
        }
    }
    json_object_set_new(view, "workers", list);
    return view;
}

/* ---- VMs ---- */

static uint32_t running(const struct vm *vm)
{
    return vm->in_state[JOB_RUNNING] + vm->in_state[JOB_ENDING];
}

static uint32_t lingering(const struct vm *vm)
{
    return vm->n_writers > running(vm) ? vm->n_writers - running(vm) : 0;
}

static void set_rings(json_t *object, const struct vm *vm)
{
    const struct shm *shm = vm->conn ? vm->conn->shm : NULL;

    if (vm->conn) {
        adminjson_text(object, "datapath", shm ? "shm" : "socket");
    } else {
        json_object_set_new(object, "datapath", json_null());
    }
    adminjson_number(object, "rings", shm ? shm->n_rings : 0);
    adminjson_number(object, "in_flight", shm ? shm_in_flight(shm) : 0);
    json_object_set_new(object, "broken", json_boolean(shm && shm->broken));
    adminjson_number(object, "kicks", vm->kicks);
    adminjson_number(object, "calls", vm->calls);
    adminjson_number(object, "storms", vm->storms);
}

static const char *vm_state(const struct vmconn *vc)
{
    if (!vc) {
        return "away";
    }
    if (vc->state == SESSION_RESETTING) {
        return "resetting";
    }
    return vc->shm && vc->shm->broken ? "broken" : "up";
}

static json_t *view_vm(const struct vm *vm, uint64_t now_ns)
{
    const struct vmconn *vc = vm->conn;
    json_t *object = json_object();
    uint8_t wish = vc ? vc->band_wish : VGPU_BAND_DEFAULT;

    adminjson_number(object, "id", vm->number);
    adminjson_text(object, "vm", vm->c.name);
    adminjson_text(object, "tenant", vm->tenant->c.name);
    adminjson_text(object, "pool", (vc ? vmconn_pool(vc) : vm->pool)->c.name);
    adminjson_text(object, "band", vgpu_band_name(vm_clamp_band(vm, wish)));
    adminjson_text(object, "state", vm_state(vc));
    json_object_set_new(object, "connected", json_boolean(vc != NULL));
    json_object_set_new(object, "resetting", json_boolean(vc && vc->state == SESSION_RESETTING));
    adminjson_number(object, "reset_epoch", vc ? vc->epoch : 0);
    adminjson_number(object, "queued", vm->in_state[JOB_QUEUED] + vm->in_state[JOB_WAITING]);
    adminjson_number(object, "running", running(vm));
    adminjson_number(object, "lingering", lingering(vm));
    adminjson_number(object, "done", vm->done);
    adminjson_number(object, "failed", vm->failed);
    adminjson_number(object, "bytes_in", vm->bytes_in);
    adminjson_number(object, "bytes_out", vm->bytes_out);
    adminjson_number(object, "staging_bytes",
                     vm->staging ? vm->staging->region.size - vm->staging->ranges.free_bytes : 0);
    set_rings(object, vm);
    adminjson_number(object, "pid", vc ? vc->pid : 0);
    adminjson_text(object, "socket", vm->listener.fd >= 0 ? vm->listener.path : "");
    if (vc) {
        adminjson_seconds(object, "since_s", now_ns - vc->since_ns);
    } else {
        json_object_set_new(object, "since_s", json_null());
    }
    return object;
}

static json_t *view_vms(struct mediator *m)
{
    json_t *view = adminjson_view("vgpu.vms/1");
    json_t *list = json_array();
    const struct vm *vm;

    TAILQ_FOREACH (vm, &m->vms, link) {
        if (!vm->removed) {
            json_array_append_new(list, view_vm(vm, m->now_ns));
        }
    }
    json_object_set_new(view, "vms", list);
    return view;
}

json_t *adminview_make(struct mediator *m, const char *command, const json_t *request)
{
    mediator_now(m);
    if (strcmp(command, "queues") == 0) {
        return view_queues(m);
    }
    if (strcmp(command, "workers") == 0) {
        return view_workers(m);
    }
    if (strcmp(command, "vms") == 0) {
        return view_vms(m);
    }
    return strcmp(command, "jobs") == 0 ? adminjobs_view(m, request) : NULL;
}

/* SPDX-License-Identifier: MIT */
/*
 * adminjobs.c - who ran what, where, how long
 */
#include <inttypes.h>
#include <stdio.h>

#include "local-mediator/adminjson.h"
#include "local-mediator/history.h"

#define JOBS_DEFAULT 20
#define JOBS_MAX 1000

static void set_text_or_null(json_t *object, const char *key, const char *text)
{
    if (text && text[0]) {
        adminjson_text(object, key, text);
    } else {
        json_object_set_new(object, key, json_null());
    }
}

/* "12": of the window; "0:12": of ring 0. */
static void set_identity(json_t *object, uint64_t seq)
{
    uint64_t count = seq & UINT64_C(0xffffffffffff);
    char text[48];

    if (seq == count) {
        snprintf(text, sizeof(text), "%" PRIu64, count);
    } else {
        snprintf(text, sizeof(text), "%" PRIu64 ":%" PRIu64, (seq >> 48) - 1, count);
    }
    adminjson_number(object, "seq", seq);
    adminjson_text(object, "request", text);
}

static json_t *view_ended(const struct ended *e, uint64_t now_ns)
{
    json_t *object = json_object();

    adminjson_number(object, "id", e->id);
    adminjson_text(object, "vm", e->vm_name);
    adminjson_text(object, "tenant", e->tenant);
    set_identity(object, e->seq);
    adminjson_text(object, "op", vgpu_op_name(e->op));
    adminjson_text(object, "band", vgpu_band_name(e->band));
    adminjson_text(object, "state", e->error ? "failed" : "done");
    set_text_or_null(object, "error", e->error ? vgpu_error_name(e->error) : NULL);
    set_text_or_null(object, "worker", e->worker);
    adminjson_number(object, "attempts", e->attempts);
    adminjson_millis(object, "queued_ms", e->queued_ns);
    adminjson_millis(object, "run_ms", e->run_ns);
    adminjson_seconds(object, "ended_s", now_ns - e->end_ns);
    return object;
}

static json_t *view_live(const struct job *job, uint64_t now_ns)
{
    const struct attempt *a = job->state == JOB_RUNNING ? job->attempt : NULL;
    json_t *object = json_object();

    adminjson_number(object, "id", job->id);
    adminjson_text(object, "vm", job->vm->c.name);
    adminjson_text(object, "tenant", job->vm->tenant->c.name);
    set_identity(object, job->seq);
    adminjson_text(object, "op", vgpu_op_name(job->request.hdr.op));
    adminjson_text(object, "band", vgpu_band_name(job->band));
    adminjson_text(object, "state", a ? "running" : "queued");
    json_object_set_new(object, "error", json_null());
    set_text_or_null(object, "worker", a ? a->exec->worker->name : NULL);
    adminjson_number(object, "attempts", job->tries);
    adminjson_millis(object, "queued_ms", (a ? job->start_ns : now_ns) - job->accept_ns);
    adminjson_millis(object, "run_ms", a ? now_ns - job->start_ns : 0);
    json_object_set_new(object, "ended_s", json_null());
    return object;
}

/* Jobs that are not answered yet, then the latest that are. */
json_t *adminjobs_view(struct mediator *m, const json_t *request)
{
    const json_t *asked = json_object_get(request, "limit");
    json_int_t limit = asked ? json_integer_value(asked) : JOBS_DEFAULT;
    json_t *view, *list;
    const struct ended *e;
    const struct vm *vm;
    const struct job *job;

    if (limit < 1 || limit > JOBS_MAX) {
        return NULL;
    }
    view = adminjson_view("vgpu.jobs/1");
    list = json_array();
    TAILQ_FOREACH (vm, &m->vms, link) {
        TAILQ_FOREACH (job, &vm->jobs, vm_link) {
            if (job->state != JOB_SENDING && json_array_size(list) < (size_t)limit) {
                json_array_append_new(list, view_live(job, m->now_ns));
            }
        }
    }
    for (uint32_t i = 0; json_array_size(list) < (size_t)limit && (e = history_at(m, i)); i++) {
        json_array_append_new(list, view_ended(e, m->now_ns));
    }
    json_object_set_new(view, "jobs", list);
    return view;
}

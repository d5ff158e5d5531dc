/* SPDX-License-Identifier: MIT */
#include "local-mediator/history.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const struct ended *history_at(const struct mediator *m, uint32_t index)
{
    if (index >= m->history_count) {
        return NULL;
    }
    return &m->history[(m->history_next + m->history_size - 1 - index) % m->history_size];
}

int history_resize(struct mediator *m, uint32_t size)
{
    struct ended *entries = size ? calloc(size, sizeof(*entries)) : NULL;
    uint32_t keep = m->history_count < size ? m->history_count : size;

    if (size == m->history_size) {
        free(entries);
        return 0;
    }
    if (size && !entries) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < keep; i++) {
        entries[i] = *history_at(m, keep - 1 - i);
    }
    free(m->history);
    m->history = entries;
    m->history_size = size;
    m->history_count = keep;
    m->history_next = size ? keep % size : 0;
    return 0;
}

static const char *worker_name(const struct job *job)
{
    const struct worker *w;

    TAILQ_FOREACH (w, &job->vm->m->workers, link) {
        if (w->registered && w->id == job->worker) {
            return w->name;
        }
    }
    return "";
}

void history_add(const struct job *job, uint32_t error)
{
    struct mediator *m = job->vm->m;
    struct ended *e;

    if (!m->history_size) {
        return;
    }
    e = &m->history[m->history_next];
    m->history_next = (m->history_next + 1) % m->history_size;
    m->history_count += m->history_count < m->history_size;
    *e = (struct ended){
        .id = job->id,
        .seq = job->seq,
        .queued_ns = (job->start_ns ? job->start_ns : m->now_ns) - job->accept_ns,
        .run_ns = job->run_ns,
        .end_ns = m->now_ns,
        .vm = job->vm->number,
        .error = error,
        .op = request_peek_op(job->copy, sizeof(struct vgpu_req_hdr)),
        .band = job->band,
        .attempts = (uint8_t)job->tries,
    };
    memcpy(e->vm_name, job->vm->c.name, sizeof(e->vm_name));
    memcpy(e->tenant, job->vm->tenant->c.name, sizeof(e->tenant));
    if (job->worker) {
        memcpy(e->worker, worker_name(job), strnlen(worker_name(job), sizeof(e->worker) - 1));
    }
}

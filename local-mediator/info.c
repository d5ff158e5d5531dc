/* SPDX-License-Identifier: MIT */
#include "local-mediator/info.h"

#include <string.h>

#include "local-mediator/job.h"
#include "local-mediator/shm.h"
#include "local-mediator/vm.h"
#include "local-mediator/vmconn.h"

static void respond(struct job *job, uint16_t kind, const void *payload, size_t length)
{
    struct vgpu_resp_hdr hdr = {
        .size = (uint32_t)(sizeof(hdr) + length),
        .version = VGPU_REQ_VERSION,
        .op = job->request.hdr.op,
        .tag = job->request.hdr.tag,
        .payload = kind,
    };

    memcpy(job->response, &hdr, sizeof(hdr));
    if (length) {
        memcpy(job->response + sizeof(hdr), payload, length);
    }
    job->response_len = hdr.size;
    job_respond(job, true);
}

/* Add a word to a space-separated list of at most 63 bytes, once. */
static void add_word(char list[64], const char *word)
{
    size_t used = strlen(list), length = strnlen(word, VGPU_NAME_MAX);
    const char *at = strstr(list, word);

    if ((at && (at[length] == ' ' || !at[length])) || used + length + 2 > 64) {
        return;
    }
    if (used) {
        list[used++] = ' ';
    }
    memcpy(list + used, word, length);
    list[used + length] = 0;
}

static void describe_workers(struct mediator *m, const struct pool *pool, struct vgpu_info *info)
{
    struct worker *w;

    TAILQ_FOREACH (w, &m->workers, link) {
        if (w->registered && w->connected && w->pool == pool && w->liveness == LIVENESS_UP) {
            info->workers++;
            info->ops |= w->offer.ops;
            add_word(info->backends, w->backend);
        }
    }
}

static void answer_info(struct vmconn *vc, struct job *job)
{
    struct vm *vm = vc->vm;
    const struct pool *pool = vmconn_pool(vc);
    uint8_t band = vm_clamp_band(vm, vc->band_wish);
    struct vgpu_info info = {
        .vm_id = vm->number,
        .pool_id = pool->c.id,
        .band = band,
        .band_max = (uint8_t)vm->c.band_max,
        .ops = UINT64_C(1) << VGPU_OP_INFO | UINT64_C(1) << VGPU_OP_CANCEL,
        .max_bytes = vm_max_bytes(vm),
        .max_job_ms = (uint32_t)pool->c.bands[band].max_job,
    };

    if (sizeof(info) > job_payload_max(job)) {
        job_fail(job, VGPU_E_BAD_LENGTH, "the description does not fit a slot of this ring");
        return;
    }
    memcpy(info.vm, vm->c.name, sizeof(vm->c.name));
    memcpy(info.tenant, vm->tenant->c.name, sizeof(vm->tenant->c.name));
    memcpy(info.pool, pool->c.name, sizeof(pool->c.name));
    describe_workers(vm->m, pool, &info);
    info.queued = vm->in_state[JOB_QUEUED] + vm->in_state[JOB_WAITING];
    info.running = vm->in_state[JOB_RUNNING] + vm->in_state[JOB_ENDING];
    respond(job, VGPU_PAYLOAD_INFO, &info, sizeof(info));
}

static struct job *by_tag(struct vmconn *vc, uint64_t tag, const struct job *but)
{
    struct job *job;

    TAILQ_FOREACH (job, &vc->vm->jobs, vm_link) {
        if (job->ring) {
            break; /* those of the windows come first */
        }
        if (job != but && job->state != JOB_SENDING && !job->answered &&
            job->request.hdr.tag == tag) {
            return job;
        }
    }
    return vc->shm ? shm_by_tag(vc->shm, tag, but) : NULL;
}

static void answer_cancel(struct vmconn *vc, struct job *job)
{
    struct vgpu_cancel body;
    struct job *other;

    memcpy(&body, job->copy + job->request.body_offset, sizeof(body));
    other = by_tag(vc, body.tag, job);
    if (!other) {
        job_fail(job, VGPU_E_NOT_FOUND, "no unanswered request of this VM has that tag");
        return;
    }
    job_fail(other, VGPU_E_CANCELLED, NULL);
    respond(job, VGPU_PAYLOAD_DATA, NULL, 0);
}

void info_answer(struct vmconn *vc, struct job *job)
{
    if (job->request.hdr.op == VGPU_OP_INFO) {
        answer_info(vc, job);
    } else {
        answer_cancel(vc, job);
    }
}

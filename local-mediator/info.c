/* SPDX-License-Identifier: MIT */
#include "local-mediator/info.h"

#include <string.h>

#include "local-mediator/job.h"
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
    struct job *other;

    memcpy(info.vm, vm->c.name, sizeof(vm->c.name));
    memcpy(info.tenant, vm->tenant->c.name, sizeof(vm->tenant->c.name));
    memcpy(info.pool, pool->c.name, sizeof(pool->c.name));
    describe_workers(vm->m, pool, &info);
    TAILQ_FOREACH (other, &vm->jobs, vm_link) {
        info.queued += other->state == JOB_QUEUED;
        info.running += other->state == JOB_RUNNING;
    }
    respond(job, VGPU_PAYLOAD_INFO, &info, sizeof(info));
}

static void answer_cancel(struct vmconn *vc, struct job *job)
{
    struct vgpu_cancel body;
    struct job *other;

    memcpy(&body, job->copy + job->request.body_offset, sizeof(body));
    TAILQ_FOREACH (other, &vc->vm->jobs, vm_link) {
        if (other != job && other->state != JOB_SENDING && other->request.hdr.tag == body.tag) {
            job_fail(other, VGPU_E_CANCELLED, NULL);
            respond(job, VGPU_PAYLOAD_DATA, NULL, 0);
            return;
        }
    }
    job_fail(job, VGPU_E_NOT_FOUND, "no unanswered request of this VM has that tag");
}

void info_answer(struct vmconn *vc, struct job *job)
{
    if (job->request.hdr.op == VGPU_OP_INFO) {
        answer_info(vc, job);
    } else {
        answer_cancel(vc, job);
    }
}

/* SPDX-License-Identifier: MIT */
/*
 * job.c - see job.h
 */
#include "gpu-worker/job.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/core/ring.h"
#include "gpu-worker/ops/ops.h"

#define PAYLOAD_MAX (VGPU_REQ_MAX - sizeof(struct vgpu_resp_hdr))

static uint32_t check_offered(const struct request *r, const struct gpu_caps *caps, char *why)
{
    uint32_t op = r->hdr.op;

    if (op > VGPU_OP_NUMBER_MAX || !(caps->ops & OPS_BIT(op))) {
        snprintf(why, REQUEST_WHY_MAX, "this worker does not offer op %u", op);
        return VGPU_E_UNSUPPORTED;
    }
    uint32_t e = ops_check(r, why);
    uint32_t dtype = e ? 0 : ops_dtype(r);
    if (dtype && !(caps->op_dtypes[op] & OPS_BIT(dtype))) {
        snprintf(why, REQUEST_WHY_MAX, "this worker does not offer %s for data type %u",
                 vgpu_op_name(op), dtype);
        return VGPU_E_UNSUPPORTED;
    }
    return e;
}

static void resolve(struct job *job, unsigned index)
{
    const struct vgpu_buf *from = &job->request.bufs[index];
    struct gpu_buf *to = &job->gpu.bufs[index];

    *to = (struct gpu_buf){.kind = from->kind, .dir = from->dir, .length = from->length};
    if (from->kind == VGPU_BUF_ARENA && job->region) { /* parsing has made sure of the region */
        to->host = job->region->base + from->offset;
        to->region = job->region->gpu;
    } else if (from->dir == VGPU_BUF_IN) {
        to->host = job_request(job) + from->offset;
    } else {
        to->host = job->response + sizeof(struct vgpu_resp_hdr) + from->offset;
    }
}

const char *job_load(struct job *job, const void *shared, uint32_t length, uint64_t tag)
{
    if (length < sizeof(job->head) + sizeof(struct vgpu_req_hdr) || length > sizeof(job->bytes)) {
        return "a job with the length of no request";
    }
    ring_copy_in(job->bytes, shared, length);
    memcpy(&job->head, job->bytes, sizeof(job->head));
    job->length = length - (uint32_t)sizeof(job->head);
    job->region = NULL;
    job->overran_ns = 0;
    job->cancelled = false;
    if (job->head.job != tag) {
        return "a job whose number is not that of its descriptor";
    }
    for (size_t i = 0; i < sizeof(job->head.reserved); i++) {
        if (job->head.reserved[i]) {
            return "a reserved field of a job is not zero";
        }
    }
    return NULL;
}

uint32_t job_prepare(struct job *job, struct region *region, const struct gpu_caps *caps, char *why)
{
    struct request_limits limits = {
        .max_size = VGPU_REQ_MAX,
        .payload_max = PAYLOAD_MAX,
        .features = caps->features,
        .arena_size = region ? region->bytes : 0,
    };

    job->region = region;
    job->gpu.request = &job->request;
    job->gpu.tenant = job->head.tenant;
    job->gpu.band = job->head.band;
    job->gpu.user = job;
    if (job->head.band >= VGPU_BANDS) {
        snprintf(why, REQUEST_WHY_MAX, "band %u of the job is unknown", job->head.band);
        return VGPU_E_INTERNAL;
    }
    uint32_t e = request_parse(job_request(job), job->length, &limits, &job->request, why);
    if (!e) {
        e = check_offered(&job->request, caps, why);
    }
    if (e) {
        return e;
    }
    memset(job->response, 0, sizeof(struct vgpu_resp_hdr) + job->request.payload_len);
    for (unsigned i = 0; i < job->request.hdr.nbufs; i++) {
        resolve(job, i);
    }
    return VGPU_E_OK;
}

uint32_t job_refuse(struct job *job, uint32_t error, const char *why)
{
    return response_error(job->response, sizeof(job->response),
                          request_peek_op(job_request(job), job->length),
                          request_peek_tag(job_request(job), job->length), error, why);
}

uint32_t job_respond(struct job *job)
{
    const struct vgpu_req_hdr *request = &job->request.hdr;
    struct vgpu_resp_hdr *header = (void *)job->response;
    uint32_t size = sizeof(*header) + job->request.payload_len;

    if (job->overran_ns) { /* also when it came to its end before it saw the request to stop */
        job->gpu.error = VGPU_E_JOB_TOO_LONG;
        snprintf(job->gpu.why, sizeof(job->gpu.why),
                 "the job ran longer than the %u ms that its band allows", job->head.max_job_ms);
    }
    if (job->gpu.error) {
        size = response_error(job->response, sizeof(job->response), request->op, request->tag,
                              job->gpu.error, job->gpu.why);
    } else {
        *header = (struct vgpu_resp_hdr){
            .size = size,
            .version = VGPU_REQ_VERSION,
            .op = request->op,
            .tag = request->tag,
            .payload = VGPU_PAYLOAD_DATA,
        };
    }
    header->run_ns = job->gpu.run_ns;
    return size;
}

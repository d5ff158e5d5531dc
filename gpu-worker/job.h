/* SPDX-License-Identifier: MIT */
/*
 * job - one run of a request inside an executor: from JOB to DONE
 *
 * The request is copied before it is looked at, the INLINE outputs are written to the response that
 * will be sent, the ARENA buffers are addresses inside the region.
 */
#ifndef VGPU_WORKER_JOB_H
#define VGPU_WORKER_JOB_H

#include <stdint.h>

#include "gpu-worker/gpu.h"
#include "gpu-worker/region.h"
#include "proto/vgpu_local.h"

struct job {
    struct gpu_job gpu; /* gpu.user is this job */
    uint64_t id;
    uint32_t attempt;
    uint32_t max_job_ms;    /* 0: no limit */
    uint64_t overran_ns;    /* when it was asked to stop for running too long; 0: it was not */
    struct region *region;  /* held; NULL: none */
    struct request request; /* a view of `bytes` */
    struct job *next_free;
    _Alignas(64) uint8_t bytes[VGPU_REQ_MAX];
    _Alignas(64) uint8_t response[VGPU_REQ_MAX];
};

/**
 * job_prepare() - fill a job in from a JOB message and validate all of it
 * @job:     any old contents
 * @msg:     the fixed part; msg->msg.length counts the request behind it too
 * @request: the request's bytes
 * @region:  its region, not yet held; NULL: none
 * @caps:    of the backend
 * @why:     REQUEST_WHY_MAX bytes for a sentence, written only on an error
 *
 * Return: VGPU_E_OK, @job may be submitted; else the error to answer with.
 */
uint32_t job_prepare(struct job *job, const struct vgpu_job *msg, const void *request,
                     struct region *region, const struct gpu_caps *caps, char *why);

/**
 * job_respond() - make the response of a job that poll() returned
 *
 * Return: bytes of job->response.
 */
uint32_t job_respond(struct job *job);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * job - one run of a request inside an executor: from descriptor to completion
 *
 * The request is copied before it is looked at, the INLINE outputs are written to the response that
 * will be sent, the ARENA buffers are addresses inside the region.
 */
#ifndef VGPU_WORKER_JOB_H
#define VGPU_WORKER_JOB_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "gpu-worker/gpu.h"
#include "gpu-worker/region.h"
#include "proto/vgpu_local.h"

enum job_state {
    JOB_FREE = 0,
    JOB_TAKEN,   /* copied from the ring, not yet looked at */
    JOB_RUNNING, /* submitted to the backend */
};

TAILQ_HEAD(job_list, job);

struct job {
    struct gpu_job gpu; /* gpu.user is this job */
    TAILQ_ENTRY(job) link;
    enum job_state state;
    uint32_t slot; /* of the job ring */
    struct vgpu_job head;
    uint32_t length;        /* of the request */
    bool cancelled;         /* before it was submitted */
    uint64_t overran_ns;    /* when it was asked to stop for running too long; 0: it was not */
    struct region *region;  /* held while it runs; NULL: none */
    struct request request; /* a view of `bytes` */
    _Alignas(64) uint8_t bytes[VGPU_EXEC_SLOT_BYTES]; /* head and request as they came */
    _Alignas(64) uint8_t response[VGPU_REQ_MAX];
};

/** job_request() - its request, a private copy of job->length bytes */
static inline uint8_t *job_request(struct job *job)
{
    return job->bytes + sizeof(job->head);
}

/**
 * job_load() - copy what lies in a request slot
 * @job:    any old contents but link, state and slot, which stay
 * @shared: the slot's bytes; they may change meanwhile
 * @length: of the descriptor
 * @tag:    of the descriptor
 *
 * Return: NULL; a sentence when the mediator broke the protocol.
 */
const char *job_load(struct job *job, const void *shared, uint32_t length, uint64_t tag);

/**
 * job_prepare() - validate all of a loaded job and resolve its buffers
 * @region: its region, not yet held; NULL: none
 * @caps:   of the backend
 * @why:    REQUEST_WHY_MAX bytes for a sentence, written only on an error
 *
 * Return: VGPU_E_OK, @job may be submitted; else the error to answer with.
 */
uint32_t job_prepare(struct job *job, struct region *region, const struct gpu_caps *caps,
                     char *why);

/** job_refuse() - make the response of a job that never ran. Return: bytes of job->response. */
uint32_t job_refuse(struct job *job, uint32_t error, const char *why);

/**
 * job_respond() - make the response of a job that poll() returned
 *
 * Return: bytes of job->response.
 */
uint32_t job_respond(struct job *job);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * jobring - the executor's end of its job ring (proto/vgpu_local.h, "executor channel")
 *
 * The mediator, who made the memory, is trusted as far as its other messages are: the ring is checked
 * so that a fault there is told from a fault here.
 */
#ifndef VGPU_WORKER_JOBRING_H
#define VGPU_WORKER_JOBRING_H

#include "common/core/ring.h"
#include "common/seqpacket.h"
#include "gpu-worker/job.h"

/* Zero it first. */
struct jobring {
    struct ring_device end;
    void *memory; /* NULL: closed */
    size_t bytes;
    int kick, call; /* eventfds */
};

/**
 * jobring_open() - take the fds of a RING message, check and map
 * @why: GPU_WHY_MAX bytes for a sentence, written unless 0 is returned
 *
 * Return: 0; -errno, nothing is open then.
 */
int jobring_open(struct jobring *ring, struct seqpacket_message *message, char *why);

/** jobring_close() - unmap, close the eventfds; may be called twice */
void jobring_close(struct jobring *ring);

/** jobring_respond() - complete @job with the @bytes of job->response; not shown yet */
void jobring_respond(struct jobring *ring, const struct job *job, uint32_t bytes);

/** jobring_publish() - show what was completed; calls the mediator if it waits for that */
void jobring_publish(struct jobring *ring);

#endif

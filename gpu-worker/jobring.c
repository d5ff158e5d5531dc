/* SPDX-License-Identifier: MIT */
/*
 * jobring.c - see jobring.h
 */
#include "gpu-worker/jobring.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/cleanup.h"

static int check_shape(const struct vgpu_exec_ring *m, struct ring_shape *ret_shape, char *why)
{
    const struct ring_shape shape = {m->entries, m->slot_bytes};
    const char *wrong = ring_shape_check(&shape);

    if (!wrong && m->slot_bytes != VGPU_EXEC_SLOT_BYTES) {
        wrong = "its slots have another size than jobs take";
    }
    if (!wrong && m->size != ring_bytes(&shape)) {
        wrong = "its size is not that of a ring with so many entries";
    }
    if (wrong) {
        snprintf(why, GPU_WHY_MAX, "%s", wrong);
        return -EINVAL;
    }
    *ret_shape = shape;
    return 0;
}

int jobring_open(struct jobring *ring, struct seqpacket_message *message, char *why)
{
    const struct vgpu_exec_ring *m = (const void *)message->msg;
    CLEANUP(cleanup_fd) int memory = seqpacket_take_fd(message, 0);
    CLEANUP(cleanup_fd) int kick = seqpacket_take_fd(message, 1);
    CLEANUP(cleanup_fd) int call = seqpacket_take_fd(message, 2);
    struct ring_shape shape;
    int r = check_shape(m, &shape, why);

    r = r < 0 ? r : region_check_file(memory, 0, m->size, why);
    if (r < 0) {
        return r;
    }
    ring->memory = mmap(NULL, m->size, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    if (ring->memory == MAP_FAILED) {
        r = -errno;
        ring->memory = NULL;
        snprintf(why, GPU_WHY_MAX, "it cannot be mapped: %s", strerror(-r));
        return r;
    }
    ring->bytes = m->size;
    ring->kick = TAKE_FD(kick);
    ring->call = TAKE_FD(call);
    ring_device_init(&ring->end, ring->memory, &shape, 0, 0);
    return 0;
}

void jobring_close(struct jobring *ring)
{
    if (ring->memory) {
        munmap(ring->memory, ring->bytes);
        close(ring->kick);
        close(ring->call);
        ring->memory = NULL;
    }
}

void jobring_respond(struct jobring *ring, const struct job *job, uint32_t bytes)
{
    const struct vgpu_done done = {.job = job->head.job, .attempt = job->head.attempt};
    const struct vgpu_completion completion = {
        .tag = job->head.job,
        .slot = job->slot,
        .length = (uint32_t)sizeof(done) + bytes,
    };
    uint8_t *to = ring_response(&ring->end.map, job->slot);

    memcpy(to, &done, sizeof(done));
    memcpy(to + sizeof(done), job->response, bytes);
    ring_complete(&ring->end, &completion);
}

void jobring_publish(struct jobring *ring)
{
    if (ring->memory && ring_device_publish(&ring->end)) {
        (void)!write(ring->call, &(uint64_t){1}, sizeof(uint64_t));
    }
}

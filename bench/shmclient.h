/* SPDX-License-Identifier: MIT */
/*
 * shmclient - plays QEMU and its guest on the shared-memory data path: one device with rings
 *
 * The QEMU part makes what HELLO carries: BAR 2 and the in-flight area as sealed memfds, the writers'
 * pipe, kicks and calls. The guest part drives the rings with common/core/ring.h. Between the two lies
 * nothing: a kick is one write to an eventfd, as KVM's ioeventfd does it, a wake-up one read.
 *
 * Waiting is by sleeping in that read, or by polling shared memory when `spin` is set. Any breach of
 * the protocol ends the program with a sentence.
 */
#ifndef BENCH_SHMCLIENT_H
#define BENCH_SHMCLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "bench/vmsock.h"
#include "common/core/ring.h"

struct shmclient_shape {
    uint64_t shm_size;
    uint32_t rings, entries, slot_bytes;
};

/* What the device has by default. */
#define SHMCLIENT_SHAPE(size)                                               \
    {                                                                       \
        .shm_size = (size), .rings = 4, .entries = 128, .slot_bytes = 4096, \
    }

struct shmclient {
    struct vmsock sock;
    struct shmclient_shape shape;
    bool spin; /* poll instead of sleeping */
    int shm_fd, inflight_fd, writers;
    int kick[VGPU_RINGS_MAX], call[VGPU_RINGS_MAX];
    uint8_t *shm;
    uint8_t *arena;
    uint64_t arena_size;
    struct ring_driver ring[VGPU_RINGS_MAX];
    uint64_t kicks, calls; /* eventfds written, and read after a sleep */
    uint64_t tag;
};

/** shmclient_open() - connect to @path, HELLO, and wait until the mediator takes requests */
void shmclient_open(struct shmclient *c, const char *path, const struct shmclient_shape *shape);

/** shmclient_close() - hang up, wait until nobody else has the memory, unmap and close everything */
void shmclient_close(struct shmclient *c);

/** shmclient_submit() - a request into a free slot of @ring; the device does not see it yet */
void shmclient_submit(struct shmclient *c, uint32_t ring, const void *request, uint32_t len,
                      uint64_t tag);

/** shmclient_publish() - show the device what was submitted, with a kick if it wants one */
void shmclient_publish(struct shmclient *c, uint32_t ring);

/** shmclient_collect() - the next completion of @ring. Return: whether there was one. */
bool shmclient_collect(struct shmclient *c, uint32_t ring, struct vgpu_completion *ret);

/** shmclient_wait() - sleep, or poll, until the next completion is there, and take it */
void shmclient_wait(struct shmclient *c, uint32_t ring, struct vgpu_completion *ret);

/** shmclient_response() - the response of a completion, in shared memory */
const struct vgpu_resp_hdr *shmclient_response(struct shmclient *c, uint32_t ring,
                                               const struct vgpu_completion *completion);

/** shmclient_done() - the slot of @completion is free again */
void shmclient_done(struct shmclient *c, uint32_t ring, const struct vgpu_completion *completion);

/**
 * shmclient_run() - one request through @ring, from writing it to its slot to its completion
 * @request: complete; its tag is set here
 *
 * Return: its run_ns. Ends the program when the request ends with an error.
 */
uint64_t shmclient_run(struct shmclient *c, uint32_t ring, void *request, uint32_t len);

#endif

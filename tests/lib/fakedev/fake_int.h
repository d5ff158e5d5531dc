/* SPDX-License-Identifier: MIT */
/* fake_int.h - what fake.c and fake_ring.c share */
#ifndef TESTS_FAKE_INT_H
#define TESTS_FAKE_INT_H

#include <pthread.h>
#include <stdbool.h>

#include "common/core/ring.h"
#include "tests/lib/fakedev/fake.h"

#define FAKE_RINGS_MAX 8u
#define FAKE_PENDING_MAX (FAKE_RINGS_MAX * 1024u)

/* A request that was taken from a ring. */
struct fake_pending {
    bool used;
    bool ordered;
    bool cancelled;
    unsigned ring;
    struct vgpu_desc desc;
    uint64_t seq, due_ns, end_ns;
    uint32_t copy_len;
    uint8_t copy[VGPU_REQ_MAX];
};

/* Lies in memory that processes share, so that a child may drive the device too. */
struct fake {
    struct fake_config config;
    struct fake_config registers; /* what the registers of the rings say, if not 0 */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread, ring_thread;
    bool stop, gone, cancel;
    uint32_t state, flags, error, request_len, response_len, rejects, reject_error, epoch;
    uint64_t seq, served, accesses, started_ns, doorbells, notified;
    uint32_t busy_left;
    int shm_fd, regs_fd;
    uint8_t *shm;
    uint8_t request[VGPU_WINDOW_SIZE], response[VGPU_WINDOW_SIZE];
    uint8_t copy[VGPU_WINDOW_SIZE]; /* of the request in the window */
    uint32_t copy_len;
    uint8_t last[VGPU_REQ_MAX]; /* the last request of all */
    uint32_t last_len;
    unsigned running; /* requests that are being computed, without the lock */

    struct ring_device rings[FAKE_RINGS_MAX];
    bool failed[FAKE_RINGS_MAX];  /* one failed since the ring was empty */
    struct fake_pending *pending; /* in the order in which they came */
    unsigned npending;
};

/* A request to be answered, and its answer. */
struct fake_job {
    const uint8_t *copy;
    uint32_t copy_len;
    uint64_t seq;
    uint32_t cap; /* bytes of a request or response */
    uint32_t error;
    uint32_t len;
    uint8_t out[VGPU_REQ_MAX];
};

/** fake_arena_offset() - as the register */
uint64_t fake_arena_offset(const struct fake *f);

/** fake_arena_size() - as the register */
uint64_t fake_arena_size(const struct fake *f);

/** fake_backend_up() - whether the mediator that is played is there */
bool fake_backend_up(const struct fake *f);

/** fake_ring_shape() - of all rings */
struct ring_shape fake_ring_shape(const struct fake *f);

/** fake_answer() - with the lock: check and run the request of a job */
void fake_answer(struct fake *f, struct fake_job *job);

/** fake_answer_error() - with the lock: answer it with an error and a sentence */
void fake_answer_error(struct fake *f, struct fake_job *job, uint32_t error, const char *text);

/** fake_rings_init() - begin with empty rings, at config.index_start */
void fake_rings_init(struct fake *f);

/** fake_rings_reset() - with the lock: forget what is in flight, clear the pages */
void fake_rings_reset(struct fake *f);

/** fake_ring_thread() - serves the rings */
void *fake_ring_thread(void *arg);

#endif

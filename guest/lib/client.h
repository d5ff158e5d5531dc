/* SPDX-License-Identifier: MIT */
/*
 * client - an opened device and its requests: the state that device.c, request.c and queue.c share
 *
 * A request goes IDLE -> QUEUED -> FLYING -> ENDED; BUSY with retry_busy takes it back to QUEUED.
 * One thread at a time drives (`driving`): it alone touches `flights` and the transport, without
 * the lock. Everything else is read and written under `lock`, except a request's own fields while
 * it is IDLE or ENDED (its owner's) or FLYING (the driver's).
 */
#ifndef GUEST_CLIENT_H
#define GUEST_CLIENT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "common/core/request.h"
#include "common/core/spin.h"
#include "guest/lib/arena.h"
#include "guest/lib/encode.h"

enum request_state { REQUEST_IDLE, REQUEST_QUEUED, REQUEST_FLYING, REQUEST_ENDED };

struct vgpu_request {
    struct vgpu *gpu;
    struct vgpu_request_options options;
    struct encode_spec spec;
    int broken; /* code of the builder function that failed; 0: none */
    enum request_state state;
    bool cancel_wanted;
    uint64_t submitted_ns;
    uint64_t not_before_ns;    /* BUSY said so */
    struct vgpu_request *next; /* in the queue */
    int code;                  /* the result */
    struct vgpu_resp_hdr response;
    uint32_t payload_len;
    uint8_t payload[VGPU_REQ_MAX - sizeof(struct vgpu_resp_hdr)];
    char text[480];
};

/* A request that is being started or is at the device. */
struct flight {
    bool used;
    bool started;
    bool cancel_sent;
    struct vgpu_request *request; /* NULL: given up, nobody waits for it any more */
    uint64_t tag;
    uint64_t ready_ns; /* when its turn came */
    uint64_t guard_ns; /* when the library ends it itself */
    unsigned nstaged;
    uint64_t staged[VGPU_BUFS_MAX]; /* offsets in the arena */
    struct flight *next;            /* unused ones */
};

struct vgpu {
    struct vgpu_options options;
    struct transport *transport;
    struct arena arena;
    pthread_mutex_t lock;
    pthread_cond_t ended; /* a request ended, or nobody drives any more */
    pthread_cond_t kick;  /* wakes the driver from its nap */
    bool driving;
    unsigned requests; /* that exist */
    struct vgpu_request *head, **tail;
    struct flight *flights; /* as many as the transport takes, rounded up to a power of two */
    unsigned flights_max;
    unsigned nflights;
    struct flight *unused;
    struct flight *waiting; /* the one that is to start next */
    uint64_t next_tag;      /* a multiple of flights_max; the flight's index is added */
    atomic_bool look;       /* a request is to be cancelled */
    uint64_t look_ns;       /* when deadlines are looked at again */
    struct spin spin;
    atomic_ullong spins, naps; /* for people */
    uint64_t progress_ns;      /* when something last happened */
    enum vgpu_state state;
    int fault; /* the device is unusable: every request ends with this code */
};

/**
 * client_new() - make a device of a transport
 * @transport: taken, also on failure
 *
 * Return: 0; -ENOMEM.
 */
int client_new(struct transport *transport, const struct vgpu_options *options,
               struct vgpu **ret_gpu);

/** client_drive() - as the driver, without the lock: one round. Return: ns to nap then */
uint64_t client_drive(struct vgpu *gpu);

/**
 * client_fail() - give a request its result, without a response of the device
 * @detail: printf format of what there is to add to the sentence of @code
 */
void client_fail(struct vgpu_request *req, int code, const char *detail, ...)
    __attribute__((format(printf, 3, 4)));

#endif

/* SPDX-License-Identifier: MIT */
/*
 * shm - the rings of a VM on the shared-memory data path
 *
 * One struct shm per connection: BAR 2, the in-flight area, kick and call eventfds. It takes
 * descriptors, makes jobs of them (admit.c), and writes their answers into the ring. Everything is
 * done in batches: shm_poll_all() takes, shm_flush_all() publishes and signals, shm_arm_all() asks
 * for kicks before the loop sleeps (common/poller.h). Only rings that were kicked lately are looked
 * at.
 *
 * All of BAR 2 is hostile; the private indices of common/core/ring count. A guest that breaks a
 * rule of a ring loses all of them until it resets its device. Doorbells that bring no work use up
 * a credit; when it is gone, the VM's doorbells are left alone for a while.
 *
 * It outlives its connection until no attempt uses the arena any more: it is a region.
 */
#ifndef VGPU_MEDIATOR_SHM_H
#define VGPU_MEDIATOR_SHM_H

#include "local-mediator/core/inflight.h"
#include "local-mediator/mediator.h"

#define SHM_TURN 32u          /* most requests taken of one VM before the others get their turn */
#define SHM_TAGS 256u         /* buckets of the table of tags */
#define SHM_KICK_CREDIT 64    /* doorbells in vain before they are left alone */
#define SHM_PAUSE_MIN_MS 4u   /* how long, the first time */
#define SHM_PAUSE_MAX_MS 100u /* it doubles up to here while the guest goes on so */
#define SHM_RESET_MS 1000u    /* most between the zeroing of the rings and RESET */

LIST_HEAD(tag_head, job);

struct guest_ring {
    struct ring_device dev;
    struct shm *shm;
    uint32_t index;
    int kick, call;       /* eventfds */
    uv_poll_t bell;       /* `kick` is readable */
    bool has_bell;        /* `bell` is a handle of the loop */
    uint64_t count;       /* descriptors taken in this life */
    uint32_t idle;        /* polls in vain, one after the other */
    bool failed;          /* a request failed since the ring was last empty */
    bool releasing;       /* release_waiting() is at work */
    struct job_head jobs; /* not answered, in the order of their descriptors */
    struct job **by_slot; /* NULL: the slot is not in use */
};

struct shm {
    struct region region; /* first; its memfd is BAR 2 */
    struct mediator *m;
    struct vm *vm; /* NULL: the connection is over */
    TAILQ_ENTRY(shm) active_link, dirty_link;
    uint64_t active; /* bit i: look at ring i */
    uint64_t dirty;  /* bit i: ring i has completions that the guest was not told of */
    bool serving;    /* neither broken, resetting, draining nor over */
    bool broken;
    bool adopting; /* what the last mediator had taken becomes jobs, one after the other */
    int adopted;   /* as inflight_adopt() said */
    bool paused;   /* its doorbells are left alone */
    bool zeroed;   /* QEMU seems to reset: RESET comes, or the guest broke its rings */
    int credit;
    uint32_t pause_ms;
    uv_timer_t pause;
    bool has_timer;
    uint32_t handles; /* of the loop that are not closed yet */
    uint8_t *bytes;   /* BAR 2 */
    uint64_t size;
    uint64_t ring_offset, ring_stride;
    struct ring_shape shape;
    int inflight_fd;
    void *inflight_bytes;
    struct inflight inflight;
    struct tag_head tags[SHM_TAGS]; /* parsed jobs by tag */
    uint32_t turn;                  /* ring to start with */
    uint32_t n_rings;
    struct guest_ring rings[];
};

/**
 * shm_check_fds() - whether descriptors are what a HELLO says, in its order
 *
 * Only asks the kernel about them. layout_check() was passed before.
 *
 * Return: NULL; a sentence that says which one is wrong.
 */
const char *shm_check_fds(const struct vgpu_hello *hello, const int *fds, unsigned n_fds);

/**
 * shm_new() - map what a HELLO brought, checked before; nothing is served yet
 * @fds: of the HELLO; taken in any case
 *
 * Return: 0; -errno.
 */
int shm_new(struct vm *vm, const struct vgpu_hello *hello, int *fds, struct shm **ret_shm);

/** shm_listen() - make the handles of the loop. Return: 0; -errno: shm_close() is what is left. */
int shm_listen(struct shm *shm);

/** shm_adopt() - find out where the last mediator stopped; before the stub, and with it the guest, is
 *  told that this one serves */
void shm_adopt(struct shm *shm, uint32_t epoch);

/** shm_start() - the connection is accepted: go on where the last mediator stopped, and serve */
void shm_start(struct shm *shm, uint32_t epoch);

/** shm_stop() - take nothing more from the rings; answers still go out */
void shm_stop(struct shm *shm);

/** shm_reset() - a new life: no attempt of the old one is left */
void shm_reset(struct shm *shm, uint32_t epoch);

/** shm_close() - the connection is over; freed when nothing uses it any more */
void shm_close(struct shm *shm);

/** shm_started() - @job is about to be given to a worker */
void shm_started(struct job *job);

/** shm_answer() - write the answer of @job, in state SENDING, into its ring; frees it */
void shm_answer(struct job *job);

/** shm_refuse() - answer a request for which there is no memory; @adopted: its record if the in-flight
 *  area has one already, else NULL */
void shm_refuse(struct guest_ring *gr, const struct vgpu_desc *desc,
                const struct vgpu_inflight_slot *adopted);

/** shm_forget() - @job is being freed */
void shm_forget(struct job *job);

/** shm_parsed() - @job can be found by its tag from now on */
void shm_parsed(struct job *job);

/** shm_by_tag() - a job of the rings that is not answered, other than @but; NULL */
struct job *shm_by_tag(const struct shm *shm, uint64_t tag, const struct job *but);

/** shm_payload_max() - most payload bytes of a response in a slot */
uint32_t shm_payload_max(const struct shm *shm);

/** shm_in_flight() - requests of all its rings that have no answer */
uint32_t shm_in_flight(const struct shm *shm);

/** shm_poll_all() - take what is in the rings that were kicked. Return: whether there was something. */
bool shm_poll_all(struct mediator *m);

/** shm_flush_all() - show the guests what was completed */
void shm_flush_all(struct mediator *m);

/** shm_arm_all() - the loop is about to sleep: ask for kicks. Return: whether there is work already. */
bool shm_arm_all(struct mediator *m);

#endif

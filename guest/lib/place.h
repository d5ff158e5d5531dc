/* SPDX-License-Identifier: MIT */
/*
 * place - where a device is, and what the processes of a VM share of it
 *
 * Holds the mappings and files of a device. Processes share it by three kinds of lock, which all
 * vanish with their process: devlock (the windows), claims (parts of the arena) and rings (rings,
 * and the right to reset the device).
 */
#ifndef GUEST_PLACE_H
#define GUEST_PLACE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "guest/lib/claims.h"
#include "guest/lib/mmio.h"
#include "guest/lib/rings.h"
#include "guest/lib/transport.h"

#define PLACE_GONE UINT32_MAX /* what an unplugged device reads as */

/* The first part is filled in by whoever found the device, the rest by place_check(). */
struct place {
    struct mmio mmio;
    int regs_fd;          /* resource0, for locks; -1: this process is the only one */
    int settle_fd;        /* resource0 opened once more, for claims; -1 likewise */
    int shm_fd;           /* resource2, for locks; -1 likewise */
    void *regs;           /* mapping of BAR 0, NULL when there is none to unmap */
    uint8_t *shm;         /* mapping of BAR 2, or NULL */
    uint64_t shm_bytes;   /* of the mapping */
    bool write_combining; /* so is that mapping */
    char address[VGPU_ADDRESS_MAX];
    char how[24];   /* for people: "sysfs" */
    char arena[64]; /* for people: struct vgpu_device */

    uint8_t *arena_base; /* NULL: no arena */
    struct claims claims;
    uint64_t patience_ns; /* claims do not wait for a dead process's requests before this time */
    struct rings rings;
    char no_ring[96]; /* for people: why this process has no ring; "" when it has */
};

/**
 * place_check() - check that it is a device that this library knows, and find arena and rings
 * @ret_err: why it failed
 *
 * Return: 0; -EPROTONOSUPPORT; -ENODEV; -EPROTO.
 */
int place_check(struct place *p, struct vgpu_err *ret_err);

/** place_fini() - close the files and mappings of a place */
void place_fini(struct place *p);

/** place_limits() - the limits that do not depend on the transport: the arena */
void place_limits(const struct place *p, struct transport_limits *l);

/** place_describe() - read the registers, but for how requests travel. 0 or -ENODEV. */
int place_describe(const struct place *p, struct vgpu_device *ret);

/** place_deadline_ms() - the register, or what counts when it is 0 */
uint32_t place_deadline_ms(const struct place *p);

/**
 * place_claim() - as transport_ops.claim
 * @have_windows: the caller holds the windows, and no request of another process is in them
 *
 * A part that belonged to a process that died is only given out when no request which that process
 * left behind can write to it any more.
 */
int place_claim(struct place *p, const atomic_bool *have_windows, uint64_t want_bytes,
                struct ranges_span *ret);

/** place_unclaim() - as transport_ops.unclaim */
void place_unclaim(struct place *p, const struct ranges_span *span);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * ring - both ends of a ring in shared memory (layout and rules: proto/vgpu_regs.h, "Rings")
 *
 * The driver's end submits: the guest library towards its device, the mediator towards an executor.
 * The device's end serves: the mediator a guest, an executor the mediator. Pure but for the shared
 * memory itself: no system calls; the caller owns the memory and rings the bells when told to.
 *
 * The peer is hostile. Each end trusts only its private indices, reads every shared word once, and
 * copies descriptors and completions before it checks them. The bytes of slots are handed out as they
 * lie in shared memory: copy them with ring_copy_in(), then check the copy.
 *
 * One thread per end. Calls that batch: several ring_submit() or ring_complete(), then one
 * ring_driver_publish() or ring_device_publish().
 */
#ifndef VGPU_CORE_RING_H
#define VGPU_CORE_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/vgpu_regs.h"

enum {
    RING_E_BROKEN = 1, /* the peer broke a rule of the ring: `wrong` of that end says which */
    RING_E_EMPTY,      /* nothing there now */
    RING_E_FULL,       /* every slot is in use */
    RING_E_LEFT,       /* requests of the driver before are still in flight */
};

struct ring_shape {
    uint32_t entries;    /* a power of two, VGPU_RING_ENTRIES_MIN..MAX */
    uint32_t slot_bytes; /* a multiple of 64, at least 256 */
};

/** ring_shape_check() - NULL when @shape is possible, else a sentence */
const char *ring_shape_check(const struct ring_shape *shape);

/** ring_bytes() - memory of one ring, a multiple of 4096; the shape was checked */
uint64_t ring_bytes(const struct ring_shape *shape);

/* Where the parts lie; both ends have one. */
struct ring_map {
    struct ring_shape shape;
    struct vgpu_ring_driver *driver;
    struct vgpu_ring_device *device;
    struct vgpu_desc *descs;
    struct vgpu_completion *completions;
    uint8_t *slots;
};

/** ring_map() - find the parts of the ring at @base, which is aligned to 4096 */
void ring_map(struct ring_map *map, void *base, const struct ring_shape *shape);

/** ring_request() - the request half of a slot; @slot < entries */
static inline uint8_t *ring_request(const struct ring_map *map, uint32_t slot)
{
    return map->slots + (size_t)slot * VGPU_SLOT_STRIDE(map->shape.slot_bytes);
}

/** ring_response() - the response half of a slot; @slot < entries */
static inline uint8_t *ring_response(const struct ring_map *map, uint32_t slot)
{
    return ring_request(map, slot) + map->shape.slot_bytes;
}

/**
 * ring_copy_in() - copy bytes that the peer may change meanwhile: each is read once
 * @dst:    private memory; what is checked and used from now on
 * @shared: aligned to 8, as ring_request() and ring_response() are
 */
void ring_copy_in(void *dst, const void *shared, size_t bytes);

/** ring_zero() - set both pages to zero, as a reset of the device does */
void ring_zero(const struct ring_map *map);

/**
 * ring_left() - whether a driver that is gone left requests in flight
 *
 * Return: 0; RING_E_LEFT; RING_E_BROKEN the pages say nonsense.
 */
int ring_left(const struct ring_map *map);

/* ---- the driver's end ---- */

struct ring_driver {
    struct ring_map map;
    bool
        write_combining; /* the memory is mapped so: stores need a fence before they are announced */
    uint32_t submit_tail; /* next descriptor to write */
    uint32_t published;   /* what the device was told */
    uint32_t complete_head;
    uint32_t in_use;   /* slots */
    uint16_t *free;    /* stack of free slots, entries - in_use of them */
    bool *busy;        /* per slot: submitted and not completed */
    const char *wrong; /* what the device did */
};

/**
 * ring_driver_init() - the end of a ring whose pages are zero
 * @base: of the ring; stays the caller's
 *
 * Return: 0; -ENOMEM.
 */
int ring_driver_init(struct ring_driver *d, void *base, const struct ring_shape *shape,
                     bool write_combining);

/** ring_driver_restart() - forget everything, as after init: the device was reset */
void ring_driver_restart(struct ring_driver *d);

/**
 * ring_driver_resume() - after init: go on where a driver that is gone stopped
 *
 * Return: as ring_left(); nothing changes unless it is 0.
 */
int ring_driver_resume(struct ring_driver *d);

/**
 * ring_driver_lost() - whether the driver's page is not as this end left it: the device was reset,
 *                      or somebody else writes there
 */
bool ring_driver_lost(const struct ring_driver *d);

/** ring_driver_fini() - free what init allocated; may be called twice */
void ring_driver_fini(struct ring_driver *d);

/** ring_slot_take() - a free slot, to write a request to ring_request() of it. Return: 0;
 *  RING_E_FULL. */
int ring_slot_take(struct ring_driver *d, uint32_t *ret_slot);

/** ring_slot_give_back() - once, after its completion and response were read, or when it was not
 *  submitted */
void ring_slot_give_back(struct ring_driver *d, uint32_t slot);

/** ring_submit() - a descriptor for the request in @slot; the device does not see it yet */
void ring_submit(struct ring_driver *d, uint32_t slot, uint32_t length, uint64_t tag);

/** ring_driver_publish() - show the device what was submitted. Return: whether to ring its bell. */
bool ring_driver_publish(struct ring_driver *d);

/**
 * ring_driver_unheard() - whether the device waits for the doorbell of what was published already
 *
 * Never on a machine that keeps fences. QEMU before 8.1 drops those of a guest with one CPU under TCG;
 * both ends may then miss each other. Ask again when nothing has come for a while. A device that
 * is still at work may be taken for one that waits: a doorbell too many does no harm.
 */
bool ring_driver_unheard(const struct ring_driver *d);

/**
 * ring_collect() - take the next completion
 * @ret: a copy; its slot is in use until ring_slot_give_back()
 *
 * ret->slot is one that was submitted and ret->length at most slot_bytes; nothing else is checked.
 *
 * Return: 0; RING_E_EMPTY; RING_E_BROKEN (for good).
 */
int ring_collect(struct ring_driver *d, struct vgpu_completion *ret);

/** ring_driver_arm() - ask for a signal at the next completion. Return: whether one is there
 *  already (never on a broken ring: there is nothing left to take). */
bool ring_driver_arm(struct ring_driver *d);

/** ring_driver_flags() - VGPU_RING_BROKEN, as the device says now */
uint32_t ring_driver_flags(const struct ring_driver *d);

/* ---- the device's end ---- */

struct ring_device {
    struct ring_map map;
    uint32_t submit_head;   /* next descriptor to take */
    uint32_t complete_tail; /* next completion to write */
    uint32_t published;     /* what the driver was told */
    const char *wrong;      /* what the driver did */
};

/**
 * ring_device_init() - the end of a ring
 * @submit_head, @complete_tail: 0, or where the last process was when this one goes on after it
 *
 * Shows the driver complete_tail. Who goes on also signals the driver once and looks for work without
 * waiting for a doorbell: the last process may have died between an index and its signal, or
 * with a doorbell in hand.
 */
void ring_device_init(struct ring_device *d, void *base, const struct ring_shape *shape,
                      uint32_t submit_head, uint32_t complete_tail);

/**
 * ring_take() - take the next descriptor
 * @ret: a copy; slot < entries, 0 < length <= slot_bytes, reserved fields 0. The caller checks that
 *       the slot is not in use.
 *
 * Return: 0; RING_E_EMPTY; RING_E_BROKEN (until the ring is initialised again).
 */
int ring_take(struct ring_device *d, struct vgpu_desc *ret);

/** ring_waiting() - descriptors that ring_take() has not taken yet, at most entries; 0 on a broken
 *  ring */
uint32_t ring_waiting(const struct ring_device *d);

/**
 * ring_complete() - a completion for a request that was taken, whose response is in its slot
 *
 * The driver does not see it yet.
 */
void ring_complete(struct ring_device *d, const struct vgpu_completion *completion);

/** ring_device_publish() - show the driver what was completed. Return: whether to signal it. */
bool ring_device_publish(struct ring_device *d);

/** ring_device_arm() - ask for the doorbell at the next descriptor. Return: whether one is there
 *  already (never on a broken ring). */
bool ring_device_arm(struct ring_device *d);

/** ring_device_set_flags() - show the driver VGPU_RING_BROKEN, or 0 */
void ring_device_set_flags(struct ring_device *d, uint32_t flags);

#endif

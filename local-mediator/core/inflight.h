/* SPDX-License-Identifier: MIT */
/*
 * inflight - the mediator's memory across its own restarts (proto/vgpu_local.h, "in-flight area")
 *
 * Pure but for the shared memory itself. A memfd that the device owns and the guest cannot map holds,
 * per slot of every ring, what became of the request in it. The mediator may be killed between any two
 * stores; therefore every step ends with one store that makes it count:
 *
 *   taken       the slot's record, then submit_count
 *   completed   (response and completion are in the ring) complete_index and error, then the state
 *               COMPLETING; then complete_tail, failed, and the state FREE
 *
 * Only the order of stores matters, not when they reach memory: the kernel keeps the pages.
 *
 * The next mediator checks all of it before it believes anything: the area may come from another
 * version, or be damaged. Invariant per ring: submit_count - complete_tail requests are in flight.
 */
#ifndef VGPU_MEDIATOR_INFLIGHT_H
#define VGPU_MEDIATOR_INFLIGHT_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/vgpu_local.h"

enum {
    INFLIGHT_E_NONE = 1, /* of another life, or never used: nothing is in flight */
    INFLIGHT_E_BROKEN,   /* the guest broke its rings in this life */
    INFLIGHT_E_VOID,     /* of this life, but it does not fit: what was in flight is not known */
};

/* Where the parts lie. */
struct inflight {
    struct vgpu_inflight *head;
    struct vgpu_inflight_ring *rings;
    struct vgpu_inflight_slot *slots;
    uint32_t n_rings, entries;
};

/** inflight_map() - find the parts; @base has VGPU_INFLIGHT_BYTES() and is aligned to 64 */
void inflight_map(struct inflight *f, void *base, uint32_t rings, uint32_t entries);

/** inflight_reset() - nothing is in flight in the life @epoch */
void inflight_reset(struct inflight *f, uint32_t epoch, uint64_t mediator_gen);

/** inflight_break() - the guest broke its rings; what is in flight will never be answered */
void inflight_break(struct inflight *f);

/**
 * inflight_take() - the next descriptor of a ring was taken
 * @record: of its request, seq counting up by one; state is ignored
 *
 * From here on the request runs, in this mediator or the next one.
 */
void inflight_take(struct inflight *f, uint32_t ring, uint32_t slot,
                   const struct vgpu_inflight_slot *record);

/** inflight_start() - the request in @slot is about to be given to a worker */
void inflight_start(struct inflight *f, uint32_t ring, uint32_t slot);

/**
 * inflight_complete() - response and completion of the request in @slot are in the ring
 * @complete_index: of the completion
 *
 * From here on it is answered, whether the guest was told already or not.
 */
void inflight_complete(struct inflight *f, uint32_t ring, uint32_t slot, uint32_t complete_index,
                       uint32_t error);

/** inflight_forget_failures() - the ring is empty: ORDERED requests start anew */
void inflight_forget_failures(struct inflight *f, uint32_t ring);

/**
 * inflight_adopt() - check the area and finish the step in which its last user was killed
 * @epoch: of the device's present life
 *
 * Afterwards slots are FREE, TAKEN or STARTED, and every ring's counters fit them. May be stopped and
 * repeated like everything else.
 *
 * Return: 0; INFLIGHT_E_NONE, INFLIGHT_E_BROKEN, INFLIGHT_E_VOID: the rest of the area says nothing.
 */
int inflight_adopt(struct inflight *f, uint32_t epoch, uint64_t mediator_gen);

/**
 * inflight_in_order() - slots of a ring that are in flight, in the order of their descriptors
 * @ret_slots: room for `entries`
 *
 * Return: how many.
 */
uint32_t inflight_in_order(const struct inflight *f, uint32_t ring, uint32_t *ret_slots);

/** inflight_slot() - the record of a slot */
static inline struct vgpu_inflight_slot *inflight_slot(const struct inflight *f, uint32_t ring,
                                                       uint32_t slot)
{
    return &f->slots[(uint64_t)ring * f->entries + slot];
}

#endif

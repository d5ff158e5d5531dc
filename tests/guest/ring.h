/* SPDX-License-Identifier: MIT */
/* ring - the driver's end of a ring in BAR 2, by docs/device.md */
#ifndef GUEST_RING_H
#define GUEST_RING_H

#include "tests/guest/driver.h"

struct ring {
    const struct device *device;
    uint32_t number;
    uint32_t entries;
    uint32_t slot_bytes;
    volatile struct ring_driver_page *ours;
    volatile struct ring_device_page *theirs;
    volatile struct ring_desc *descs;
    volatile struct ring_completion *completions;
    uint8_t *slots;
    uint32_t submit_tail, published, complete_head;
    uint32_t n_free;
    uint16_t free[RING_ENTRIES_MAX];
    uint8_t busy[RING_ENTRIES_MAX];
    uint32_t doorbells; /* rung so far */
};

/** ring_count() - rings that the device has; 0: it has none */
uint32_t ring_count(const struct device *d);

/** ring_open() - ring @number of a device that was just reset, or never used; NULL, or why not */
const char *ring_open(const struct device *d, uint32_t number, struct ring *ret);

/** ring_request() and ring_response() - the two halves of a slot */
uint8_t *ring_request(const struct ring *r, uint32_t slot);
uint8_t *ring_response(const struct ring *r, uint32_t slot);

/** ring_put() - @c into a free slot and a descriptor, not shown yet; returns the slot, ~0: all in use */
uint32_t ring_put(struct ring *r, const struct call *c, uint64_t tag);

/** ring_publish() - show the device what was put; the doorbell if it wants one. Returns whether. */
bool ring_publish(struct ring *r);

/** ring_arm() - ask for the vector at the next completion; returns whether one is there already */
bool ring_arm(struct ring *r);

/**
 * ring_take() - the next completion, if there is one
 *
 * Its slot is free again, but its response stays readable until the next ring_put().
 */
bool ring_take(struct ring *r, struct ring_completion *ret);

/** ring_wait() - poll for the next completion; false when there was none within @ms */
bool ring_wait(struct ring *r, uint32_t ms, struct ring_completion *ret);

/** ring_answer() - the response of @done, as device_read() gives that of the window */
void ring_answer(const struct ring *r, const struct ring_completion *done, struct answer *ret);

/** ring_call() - put, publish, wait; returns the error, or ~0 if it did not end within @ms, or ~1 if
 *  the completion and its response do not fit together */
uint32_t ring_call(struct ring *r, const struct call *c, uint32_t ms, struct answer *ret);

#endif

/* SPDX-License-Identifier: MIT */
/* driver - a polling driver for the windows and the arena, by docs/device.md */
#ifndef GUEST_DRIVER_H
#define GUEST_DRIVER_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/guest/pci.h"
#include "tests/guest/vgpu_doc.h"

#define CALL_BUFS_MAX 18 /* more than allowed, so that the limit can be broken */

struct device {
    pci_addr pci;
    struct pci_bar bars[6];
    volatile uint8_t *regs;
    volatile uint8_t *msix; /* BAR 4 */
    uint8_t *arena;
    uint32_t arena_size; /* what 32 bits can reach of it */
};

/* A request before it is encoded. INLINE IN offsets count from the start of `data`. */
struct call {
    uint16_t op;
    uint32_t flags;
    uint32_t deadline_ms;
    uint32_t pool;
    uint8_t band;
    uint8_t nbufs;
    struct req_buf bufs[CALL_BUFS_MAX];
    const void *body;
    uint16_t body_len;
    const void *data;
    uint32_t data_len;
};

/* The response, as read from the window. */
struct answer {
    uint32_t state; /* low byte of STATUS, or STATE_BUSY: it did not end in time */
    uint32_t error; /* register ERROR */
    uint32_t len;   /* RESPONSE_LEN */
    struct resp_hdr hdr;
    uint8_t payload[PAYLOAD_MAX + 1]; /* a 0 follows, for texts */
};

/** device_open() - find, place, enable and check the device; NULL, or a sentence: why not */
const char *device_open(struct device *ret);

/** device_move_shm() - give BAR 2 another address; NULL, or a sentence that says why not */
const char *device_move_shm(struct device *d);

uint32_t reg_read(const struct device *d, uint32_t reg);
void reg_write(const struct device *d, uint32_t reg, uint32_t value);

/** call_new() - a call with no buffers and the default band */
struct call call_new(uint16_t op);

/** call_buf() - append a buffer */
void call_buf(struct call *c, uint8_t kind, uint8_t dir, uint64_t offset, uint64_t length);

/** call_encode() - the request's bytes, into @ret (2 KiB); returns how many */
uint32_t call_encode(const struct call *c, uint64_t tag, uint8_t *ret);

/** device_write() - request window and REQUEST_LEN */
void device_write(const struct device *d, const void *bytes, uint32_t len);

/** device_ring() - DOORBELL */
void device_ring(const struct device *d);

/** device_wait() - poll STATUS until the state is not BUSY or @ms passed; returns STATUS */
uint32_t device_wait(const struct device *d, uint32_t ms);

/** device_wait_flags() - poll STATUS until (STATUS & mask) == value; false after @ms */
bool device_wait_flags(const struct device *d, uint32_t mask, uint32_t value, uint32_t ms);

/** device_read() - registers and response window of an ended request */
void device_read(const struct device *d, struct answer *ret);

/** device_call() - all of the above; returns register ERROR, or ~0 if it did not end in @ms */
uint32_t device_call(const struct device *d, const struct call *c, uint32_t ms, struct answer *ret);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vgpu_bar0 - the registers of BAR 0 and the life of the window request
 *
 * Pure: no QEMU types, no clock, no I/O. The caller forwards every guest access and carries out
 * what vgpu_bar0_write() returns. What a register means is in proto/vgpu_regs.h.
 *
 * The window request goes IDLE/DONE/ERROR -> BUSY at an accepted doorbell, and BUSY -> DONE/ERROR
 * when somebody calls vgpu_bar0_respond() or vgpu_bar0_fail(); nothing else ends it but a reset.
 * Its bytes are copied once, at the doorbell, and only the copy is validated and used: what the
 * guest writes to the window later changes the next request only.
 *
 * Hosts are little endian, like the device. Invariants: vgpu_bar0_check().
 */
#ifndef VGPU_BAR0_H
#define VGPU_BAR0_H

#include <stdbool.h>
#include <stdint.h>

#include "common/core/request.h"
#include "proto/vgpu_regs.h"
#include "vgpu_layout.h"

/* What a write asks of the device; several bits may be set, to be served in this order. */
enum {
    VGPU_BAR0_RESET = 1u << 0,  /* CONTROL.RESET: call vgpu_relay_reset() */
    VGPU_BAR0_CANCEL = 1u << 1, /* CONTROL.CANCEL while BUSY: call vgpu_relay_give_up() */
    VGPU_BAR0_WISH = 1u << 2,   /* PRIORITY has a new wish: tell the mediator */
    VGPU_BAR0_SUBMIT = 1u << 3, /* a valid request is in `req`: relay it */
    VGPU_BAR0_KICK = 1u << 4,   /* the doorbell of ring `kicked` was rung: signal its notifier */
};

/* What is fixed when the device is made. */
struct vgpu_bar0_config {
    struct vgpu_layout layout; /* of BAR 2 */
    uint32_t deadline_ms;      /* default and largest deadline until a mediator gives one, > 0 */
    uint32_t features;         /* VGPU_FEATURE_* of the device itself */
    uint8_t band;              /* wish of the command line: VGPU_BAND_* */
};

/* What the mediator said last; kept while it is away, except `up`. */
struct vgpu_backend {
    bool known;        /* one has answered in the life of this QEMU */
    bool up;           /* it takes requests */
    uint32_t gen;      /* differs from process to process */
    uint32_t features; /* VGPU_FEATURE_* that it adds: OBJECT, PROGRAM, LAUNCH */
    uint32_t vm_id;
    uint32_t pool_id;
    uint32_t deadline_ms; /* default and largest */
    uint8_t band;         /* effective */
};

/* The copy of the request that the last accepted doorbell submitted. */
struct vgpu_window_request {
    uint8_t bytes[VGPU_WINDOW_SIZE];
    uint32_t len;
    uint32_t deadline_ms; /* effective, from the doorbell */
    struct request parsed;
};

struct vgpu_bar0 {
    struct vgpu_bar0_config config;
    struct vgpu_backend backend;
    uint32_t state; /* VGPU_STATUS_IDLE .. ERROR */
    uint32_t flags; /* VGPU_STATUS_* above the state */
    uint32_t error;
    uint32_t request_len;
    uint32_t response_len;
    uint32_t rejects;
    uint32_t reject_error;
    uint32_t epoch;
    uint32_t kicked; /* see VGPU_BAR0_KICK */
    uint64_t seq;    /* of the last accepted doorbell of this life */
    uint8_t wish;    /* VGPU_BAND_* */
    bool irq;        /* vector 0 is due; the caller clears it when it has notified */
    bool ended;      /* a request ended; the caller clears it when it has traced */
    char complaint[REQUEST_WHY_MAX]; /* what the guest did wrong; the caller logs and clears it */
    uint8_t request_window[VGPU_WINDOW_SIZE];
    uint8_t response_window[VGPU_WINDOW_SIZE];
    struct vgpu_window_request req;
};

/** vgpu_bar0_init() - a device in its first life, with no backend; @config is copied */
void vgpu_bar0_init(struct vgpu_bar0 *b, const struct vgpu_bar0_config *config);

/**
 * vgpu_bar0_read() - serve a guest's read
 * @offset: in the BAR, a multiple of @size
 * @size:   1, 2, 4 or 8 bytes
 *
 * Return: the value; 0 where nothing can be read.
 */
uint64_t vgpu_bar0_read(const struct vgpu_bar0 *b, uint32_t offset, unsigned size);

/**
 * vgpu_bar0_write() - serve a guest's write
 * @offset: in the BAR, a multiple of @size
 * @size:   1, 2, 4 or 8 bytes
 *
 * Return: bits VGPU_BAR0_*: what the device must do now.
 */
uint32_t vgpu_bar0_write(struct vgpu_bar0 *b, uint32_t offset, uint64_t value, unsigned size);

/**
 * vgpu_bar0_respond() - end the window request with a response
 * @response: a response that response_check() accepted, at most VGPU_WINDOW_SIZE bytes
 *
 * Ignored unless a request is in flight.
 */
void vgpu_bar0_respond(struct vgpu_bar0 *b, const void *response, uint32_t len);

/**
 * vgpu_bar0_fail() - end the window request with an error of the device's own
 * @error: enum vgpu_error
 * @text:  a sentence for the guest; NULL: the error's own
 *
 * Ignored unless a request is in flight.
 */
void vgpu_bar0_fail(struct vgpu_bar0 *b, uint32_t error, const char *text);

/**
 * vgpu_bar0_reset() - new life: the window request and all state of the guest are gone
 * @resetting: whether the mediator may still hold something of the old life; it ends that state
 *             with RESET_ACK, see vgpu_bar0_reset_done()
 */
void vgpu_bar0_reset(struct vgpu_bar0 *b, bool resetting);

/** vgpu_bar0_reset_done() - nothing of the old life is left: doorbells are taken again */
void vgpu_bar0_reset_done(struct vgpu_bar0 *b);

/** vgpu_bar0_set_backend() - new word from the mediator; a change raises the interrupt */
void vgpu_bar0_set_backend(struct vgpu_bar0 *b, const struct vgpu_backend *backend);

/** vgpu_bar0_break() - the guest broke a rule of its rings: no doorbell is taken until a reset */
void vgpu_bar0_break(struct vgpu_bar0 *b);

/** vgpu_bar0_busy() - whether a window request is in flight */
static inline bool vgpu_bar0_busy(const struct vgpu_bar0 *b)
{
    return b->state == VGPU_STATUS_BUSY;
}

/** vgpu_bar0_check() - 0 when the invariants hold, else a negative number naming the broken one */
int vgpu_bar0_check(const struct vgpu_bar0 *b);

#endif

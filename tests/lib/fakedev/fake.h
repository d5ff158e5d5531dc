/* SPDX-License-Identifier: MIT */
/*
 * fake - a vGPU device inside the test's own process
 *
 * Registers, windows and rings behave as docs/device.md says; one thread plays mediator and worker for
 * the windows, another one for the rings (config.rings). It
 * checks every request with the product's own parser and computes with its own plain code
 * (fake_ops.c), so a result that is right is right twice.
 */
#ifndef TESTS_FAKE_H
#define TESTS_FAKE_H

#include <stdint.h>

#include "guest/lib/path.h"

/* How the device breaks the rules of its rings. */
enum fake_lie {
    FAKE_LIE_NOT,
    FAKE_LIE_JUMP,       /* complete_tail jumps */
    FAKE_LIE_SLOT,       /* a completion of a slot that does not exist */
    FAKE_LIE_OTHER_SLOT, /* of a slot that is not in flight */
    FAKE_LIE_LENGTH,     /* of a response larger than its slot */
    FAKE_LIE_TAG,        /* with another tag */
    FAKE_LIE_SCRIBBLE,   /* responses change all the time */
    FAKE_LIE_BROKEN,     /* it says that the driver broke the device, after the next request */
};

struct fake_config {
    uint64_t shm_bytes;     /* 0: no BAR 2 */
    uint32_t delay_ms;      /* before each request is run */
    uint32_t busy;          /* so many requests are answered BUSY first */
    uint32_t retry_ms;      /* with retry_after_ms */
    uint32_t error;         /* enum vgpu_error: every compute request is answered with it */
    uint32_t up_after_ms;   /* BACKEND_UP only after this time */
    uint32_t hang;          /* requests never end by themselves */
    uint32_t ignore_cancel; /* nor by CONTROL.CANCEL */
    uint32_t deaf;          /* nor by CONTROL.RESET: it stays RESETTING */
    uint32_t deadline_ms;   /* register; 0: 60000 */
    uint32_t abi;           /* register; 0: VGPU_ABI_VERSION */
    uint32_t magic;         /* register; 0: VGPU_MAGIC */
    uint32_t busy_at_start; /* a request that somebody left behind is in flight */
    uint32_t arena_offset;  /* register; 0: VGPU_SHM_CONTROL_SIZE */
    uint32_t rings;         /* 0: there are none */
    uint32_t entries;       /* of each ring; 0: 64 */
    uint32_t slot_bytes;    /* 0: 4096 */
    uint32_t ring_offset;   /* register; 0: VGPU_SHM_CONTROL_SIZE */
    uint32_t ring_stride;   /* register; 0: what a ring takes */
    uint32_t index_start;   /* indices of the rings at the start */
    uint32_t reverse;       /* requests of rings that wait together end last in, first out */
    uint32_t asleep;        /* the rings are not served */
    uint32_t lose_bells;    /* so many doorbells of rings are not heard */
    uint32_t ring_lie;      /* enum fake_lie */
    uint32_t nonsense;      /* 1: a wrong tag, 2: RESPONSE_LEN too large, 3: ERROR with code 0,
                            * 4: a response without its payload */
};

struct fake;

/** fake_new() - a running device; aborts when memory is short */
struct fake *fake_new(const struct fake_config *config);

/** fake_free() - stop and free it; what uses its place must be closed before */
void fake_free(struct fake *f);

/** fake_place() - how to reach it from this process alone; for path_open() */
struct place fake_place(struct fake *f);

/** fake_place_shared() - the same with files and a mapping of its own, as each process of a VM has.
 *  Works in child processes too. */
struct place fake_place_shared(struct fake *f);

/** fake_doorbells() - kicks of rings so far */
uint64_t fake_doorbells(struct fake *f);

/** fake_ring_base() - memory of a ring */
uint8_t *fake_ring_base(struct fake *f, unsigned i);

/** fake_mmio() - its registers */
struct mmio fake_mmio(struct fake *f);

/** fake_set() - change the behaviour from now on */
void fake_set(struct fake *f, const struct fake_config *config);

/** fake_set_registers() - the registers of the rings read as @config says, whatever the rings are */
void fake_set_registers(struct fake *f, const struct fake_config *config);

/** fake_unplug() - from now on everything reads as ones */
void fake_unplug(struct fake *f);

/** fake_served() - requests that ended so far, however */
uint64_t fake_served(struct fake *f);

/** fake_accesses() - register and window accesses so far */
uint64_t fake_accesses(struct fake *f);

/** fake_last_request() - copy of the last request that was accepted. Return: its length */
uint32_t fake_last_request(struct fake *f, uint8_t *ret);

/** fake_config_parse() - read "delay_ms=5,busy=2". Return: 0; -1 an unknown key. */
int fake_config_parse(const char *text, struct fake_config *ret);

struct request;

/**
 * fake_run() - compute a parsed request
 * @r:       request
 * @arena:   the arena
 * @payload: of the response, for INLINE outputs
 *
 * Return: enum vgpu_error.
 */
uint32_t fake_run(const struct request *r, uint8_t *arena, uint8_t *payload);

#endif

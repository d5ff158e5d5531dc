/* SPDX-License-Identifier: MIT */
/*
 * typical - one typical job of each operation, the same for bench-host (through the mediator) and
 * bench-floor (the library call in one process)
 */
#ifndef BENCH_TYPICAL_H
#define BENCH_TYPICAL_H

#include <stdint.h>

#include "proto/vgpu_regs.h"

#define TYPICAL_BUFS 3
#define TYPICAL_ARENA (UINT64_C(192) << 20)

struct typical {
    const char *name;
    const char *what; /* sizes, for people */
    uint16_t op;
    uint8_t nbufs;
    uint8_t dirs[TYPICAL_BUFS];     /* VGPU_BUF_IN or OUT */
    uint64_t lengths[TYPICAL_BUFS]; /* bytes */
    uint64_t offsets[TYPICAL_BUFS]; /* in the arena */
    const void *body;
    uint16_t body_len;
};

/** typical_find() - the job called @name; NULL when there is none */
const struct typical *typical_find(const char *name);

/** typical_fill() - inputs of @op in @arena: floats in [0, 1), bytes */
void typical_fill(const struct typical *op, uint8_t *arena);

/** typical_request() - the request, into @ret (VGPU_REQ_MAX bytes); returns its size */
uint32_t typical_request(const struct typical *op, uint64_t tag, uint8_t *ret);

/**
 * typical_echo() - an echo, inline both ways, into @ret (VGPU_REQ_MAX bytes)
 * @bytes: of payload, a multiple of 8
 *
 * Return: its size, 96 bytes more.
 */
uint32_t typical_echo(uint32_t bytes, uint8_t *ret);

#endif

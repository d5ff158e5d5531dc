/* SPDX-License-Identifier: MIT */
/*
 * vmclient - plays the QEMU side of a VM socket: one device with an arena in this process
 *
 * Blocking, one request at a time, on purpose as plain as it can be: what it measures is the
 * mediator and the worker. Any breach of the protocol ends the program with a sentence.
 */
#ifndef BENCH_VMCLIENT_H
#define BENCH_VMCLIENT_H

#include <stdint.h>

#include "bench/vmsock.h"

struct vmclient {
    struct vmsock sock;
    uint8_t *arena;
    uint64_t arena_size;
    uint64_t seq;
    _Alignas(8) uint8_t response[VGPU_REQ_MAX];
};

/** vmclient_open() - connect to @path, HELLO, and wait until the mediator takes requests */
void vmclient_open(struct vmclient *c, const char *path, uint64_t arena_size);

/** vmclient_close() - hang up and free the arena */
void vmclient_close(struct vmclient *c);

/**
 * vmclient_run() - one request with the bytes of its ARENA inputs; its outputs are in the arena
 * @request: complete, as in proto/vgpu_regs.h
 *
 * Return: the response's header; its payload follows it in c->response.
 */
const struct vgpu_resp_hdr *vmclient_run(struct vmclient *c, const void *request, uint32_t len);

#endif

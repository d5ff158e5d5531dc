/* SPDX-License-Identifier: MIT */
/*
 * window - transport over the request and response windows of BAR 0
 *
 * One request at a time for the whole VM, completion found by reading STATUS. Works with every
 * device and data path. docs/device.md describes the protocol.
 *
 * Between processes: whoever holds the devlock uses the windows. The holder first ends a request
 * that a process which died left behind.
 */
#ifndef GUEST_WINDOW_H
#define GUEST_WINDOW_H

#include "guest/lib/mmio.h"
#include "guest/lib/transport.h"

/* Where a device is. The transport closes the files and unmaps the memory in the end. */
struct window_place {
    struct mmio mmio;
    int regs_fd;        /* resource0, for the lock; -1: this process is the only one */
    int settle_fd;      /* resource0 opened once more, for claims; -1 likewise */
    int shm_fd;         /* resource2, for claims; -1 likewise */
    void *regs;         /* mapping of BAR 0, NULL when there is none to unmap */
    uint8_t *shm;       /* mapping of BAR 2, or NULL */
    uint64_t shm_bytes; /* of the mapping */
    char address[VGPU_ADDRESS_MAX];
    char path[64];  /* for people: struct vgpu_device */
    char arena[64]; /* likewise */
};

/**
 * window_open() - check that it is a device that this library knows, and make a transport for it
 * @place:         taken, also on failure: its files and mappings are closed
 * @ret_transport: to be closed with its own close()
 * @ret_err:       why it failed
 *
 * Return: 0; -EPROTONOSUPPORT; -ENODEV; -EPROTO; -ENOMEM.
 */
int window_open(struct window_place *place, struct transport **ret_transport,
                struct vgpu_err *ret_err);

/** window_place_fini() - close the files and mappings of a place */
void window_place_fini(struct window_place *place);

#endif

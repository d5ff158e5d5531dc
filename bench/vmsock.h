/* SPDX-License-Identifier: MIT */
/*
 * vmsock - the VM socket as QEMU uses it: connect, messages, descriptors; for vmclient and shmclient
 *
 * Blocking. Any breach of the protocol ends the program with a sentence.
 */
#ifndef BENCH_VMSOCK_H
#define BENCH_VMSOCK_H

#include <stddef.h>
#include <stdint.h>

#include "proto/vgpu_local.h"

#define VMSOCK_TIMEOUT_S 120

struct vmsock {
    int fd;
    uint8_t msg[VGPU_MSG_MAX]; /* the last one received */
};

/** vmsock_connect() - to the socket at @path */
void vmsock_connect(struct vmsock *s, const char *path);

/** vmsock_close() - hang up */
void vmsock_close(struct vmsock *s);

/** vmsock_send() - the message @head, whose fields past the header are filled in, and @tail */
void vmsock_send(struct vmsock *s, uint16_t type, void *head, size_t head_len, const void *tail,
                 size_t tail_len);

/** vmsock_receive() - wait for a message, into s->msg. Return: its type. */
uint16_t vmsock_receive(struct vmsock *s, uint32_t *ret_len);

/** vmsock_hello() - HELLO with @n_fds descriptors; wait until the mediator takes requests
 *  @hello: uuid, boot_id and the versions are filled in here */
void vmsock_hello(struct vmsock *s, struct vgpu_hello *hello, const int *fds, uint32_t n_fds,
                  struct vgpu_hello_ack *ret);

/** vmsock_breach() - end the program: the mediator did @what, in a message of @type */
_Noreturn void vmsock_breach(const char *what, uint32_t type);

#endif

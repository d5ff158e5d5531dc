/* SPDX-License-Identifier: MIT */
/*
 * msgcheck - is this datagram a well-formed local message?
 *
 * Pure. Checks what vgpu_local.h says of every message: magic, length, that this sender may send
 * this type on this kind of connection, exact size (or bounds of the variable part), zero reserved
 * fields, zero epoch off the VM socket, number of file descriptors. The table is generated from
 * VGPU_MSGS: a message without a row in msgcheck.c does not compile.
 *
 * It does not check what the fields mean, nor that the message fits the connection's state.
 */
#ifndef VGPU_MSGCHECK_H
#define VGPU_MSGCHECK_H

#include <stddef.h>
#include <stdint.h>

/* Who sends, and on which kind of connection. */
enum msgcheck_from {
    MSGCHECK_STUB,          /* stub -> mediator, VM socket */
    MSGCHECK_TO_STUB,       /* mediator -> stub, VM socket */
    MSGCHECK_SUPERVISOR,    /* supervisor -> mediator, worker socket */
    MSGCHECK_TO_SUPERVISOR, /* mediator -> supervisor, worker socket */
    MSGCHECK_EXECUTOR,      /* executor -> mediator, executor channel */
    MSGCHECK_TO_EXECUTOR,   /* mediator -> executor, executor channel */
};

/**
 * msgcheck_message() - check a whole received message
 * @from:    who sent it, on which connection
 * @message: the bytes, aligned to 8
 * @length:  how many were received
 * @fds:     how many file descriptors came with it
 *
 * Return: NULL when it is well formed, else a static sentence that says what is wrong.
 */
const char *msgcheck_message(enum msgcheck_from from, const void *message, size_t length,
                             unsigned fds);

/** msgcheck_name() - "HELLO" for VGPU_MSG_HELLO, …; "unknown" */
const char *msgcheck_name(uint16_t type);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * vmconn - connections from stubs: handshake, requests in, answers out
 *
 * One accepted connection per VM. Answers are generated as the socket takes them: nothing but the
 * message under way is ever queued for a stub that does not read.
 */
#ifndef VGPU_MEDIATOR_VMCONN_H
#define VGPU_MEDIATOR_VMCONN_H

#include "local-mediator/mediator.h"

/** vmconn_on_connect() - a listener's callback: somebody connected to a VM's socket */
void vmconn_on_connect(struct listener *l, int fd);

/** vmconn_close_all() - end every connection of @vm */
void vmconn_close_all(struct vm *vm);

/** vmconn_answer() - send the answer of a job in state SENDING; frees the job when it has left */
void vmconn_answer(struct vmconn *vc, struct job *job);

/** vmconn_send_accept() - tell the stub that a request has its identity */
void vmconn_send_accept(struct vmconn *vc, struct job *job);

/** vmconn_send_state() - tell the stub of @vm, if there is one, its effective band, pool and whether
 *  requests are taken */
void vmconn_send_state(struct vm *vm);

/** vmconn_writers_changed() - an attempt of @vm is gone: acknowledge a reset that waits for it */
void vmconn_writers_changed(struct vm *vm);

/** vmconn_pool() - the pool that requests with pool 0 go to */
struct pool *vmconn_pool(const struct vmconn *vc);

/** vmconn_tick() - end connections that never said HELLO */
void vmconn_tick(struct vm *vm, uint64_t now_ns);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vgpu_chan - the connection to the mediator: an AF_UNIX SOCK_SEQPACKET client
 *
 * Moves the datagrams that vgpu_relay.c makes and understands. Never blocks: connect, send and
 * receive are non-blocking, work per wake-up is bounded, and while there is no mediator a timer
 * tries again, at first soon, then at most every `retry_max_ms`.
 *
 * On the shm data path HELLO carries the device's descriptors, among them the write end of a pipe made
 * for this connection, whose read end stays here. After the connection has ended the pipe hangs up when
 * the last process has let go of the memory; only then it tries again.
 *
 * Everything runs under QEMU's big lock: fd handlers and timers in the main loop, vgpu_chan_kick()
 * also in a vCPU's exit.
 */
#ifndef VGPU_CHAN_H
#define VGPU_CHAN_H

#include "vgpu_relay.h"

struct vgpu_chan;

/**
 * vgpu_chan_new() - a channel that starts to connect as soon as the main loop runs
 * @path:         of the socket; copied; must fit sockaddr_un
 * @relay:        outlives the channel
 * @fds:          what HELLO carries, VGPU_HELLO_FDS() descriptors that stay the caller's and outlive
 *                the channel; copied; number VGPU_HELLO_FD_WRITERS is filled in here. Socket data path:
 *                NULL
 * @retry_max_ms: longest pause between two attempts
 * @on_change:    called after anything that may have changed registers; may call vgpu_chan_kick()
 */
struct vgpu_chan *vgpu_chan_new(const char *path, struct vgpu_relay *relay, const int *fds,
                                uint32_t retry_max_ms, void (*on_change)(void *opaque),
                                void *opaque);

/** vgpu_chan_free() - close and free; NULL is fine */
void vgpu_chan_free(struct vgpu_chan *chan);

/** vgpu_chan_kick() - the relay has something to send: send what goes without waiting */
void vgpu_chan_kick(struct vgpu_chan *chan);

/** vgpu_chan_path_fits() - whether @path can be the address of a socket */
bool vgpu_chan_path_fits(const char *path);

/** vgpu_chan_now_ms() - the clock of the relay's deadlines: host time, also while the VM is paused */
uint64_t vgpu_chan_now_ms(void);

#endif

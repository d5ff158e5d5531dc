/* SPDX-License-Identifier: MIT */
/*
 * listen - listening sockets of the mediator
 *
 * Each lies in a directory of its own that only its owner may enter; a socket that a dead process
 * left behind is replaced, one that is still served is not.
 */
#ifndef VGPU_MEDIATOR_LISTEN_H
#define VGPU_MEDIATOR_LISTEN_H

#include "local-mediator/mediator.h"

/* Who may connect: the directory and the socket (0600) belong to this user. */
struct listen_owner {
    uint32_t uid;
    bool change; /* false: leave them to the mediator's own user */
    bool shared; /* others may pass through the directory (not write to it); else it is 0700 */
};

/**
 * listen_start() - make the directory and the socket and accept connections
 * @l:          caller's storage; path, on_connect and user set
 * @type:       SOCK_SEQPACKET or SOCK_STREAM
 * @why:        256 bytes for a sentence; written only on an error
 *
 * Return: 0; -EADDRINUSE when another process serves the socket; -errno.
 */
int listen_start(struct listener *l, uv_loop_t *loop, int type, const struct listen_owner *owner,
                 char *why);

/** listen_stop() - close and remove the socket; @on_closed (may be NULL) runs from the loop */
void listen_stop(struct listener *l, uv_close_cb on_closed);

#define LISTEN_PACE 64u

/** listen_resume() - a tick: accept again after a paced listener had its share, or the process no
 *  descriptors */
void listen_resume(struct listener *l);

/** listen_peer() - who is at the other end of @fd. Return: 0; -errno. */
int listen_peer(int fd, uint32_t *ret_uid, uint32_t *ret_pid);

#endif

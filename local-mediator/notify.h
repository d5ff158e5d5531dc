/* SPDX-License-Identifier: MIT */
/*
 * notify - tell systemd what the daemon does (sd_notify(3)), if it asked by NOTIFY_SOCKET
 */
#ifndef VGPU_MEDIATOR_NOTIFY_H
#define VGPU_MEDIATOR_NOTIFY_H

/** notify_send() - send @state, such as "READY=1"; errors are ignored */
void notify_send(const char *state);

#endif

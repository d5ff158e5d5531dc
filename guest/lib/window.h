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

#include "guest/lib/place.h"

/**
 * window_open() - make a transport over the windows
 * @place:         checked by place_check(); taken, also on failure
 * @ret_transport: to be closed with its own close()
 * @ret_err:       why it failed
 *
 * Return: 0; -ENOMEM.
 */
int window_open(struct place *place, struct transport **ret_transport, struct vgpu_err *ret_err);

#endif

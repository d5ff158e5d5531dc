/* SPDX-License-Identifier: MIT */
/* path - choose how requests travel to a device that was found: a ring when there is one for this
 * process, the windows otherwise */
#ifndef GUEST_PATH_H
#define GUEST_PATH_H

#include "guest/lib/place.h"

/**
 * path_open() - check a device and make a transport for it
 * @place:         taken, also on failure: its files and mappings are closed
 * @want:          from struct vgpu_options
 * @ret_transport: to be closed with its own close()
 * @ret_err:       why it failed
 *
 * Return: 0; -EPROTONOSUPPORT; -ENODEV; -EPROTO; -ENOMEM; -EBUSY there is no ring and @want is
 * VGPU_PATH_RING.
 */
int path_open(struct place *place, enum vgpu_path want, struct transport **ret_transport,
              struct vgpu_err *ret_err);

#endif

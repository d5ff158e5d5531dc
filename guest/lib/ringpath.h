/* SPDX-License-Identifier: MIT */
/*
 * ringpath - transport over a ring of BAR 2
 *
 * As many requests at a time as the ring has entries, written straight into its slots; completions
 * are found by looking at memory, which costs no exit of the VM. Layout and rules: proto/vgpu_regs.h,
 * "Rings"; the ring itself: common/core/ring.h; which process has which ring: rings.h.
 *
 * STATUS is a register, thus an exit of the VM, and read only when nothing came for a while. A reset
 * by another process shows in memory: the device clears the driver's page.
 */
#ifndef GUEST_RINGPATH_H
#define GUEST_RINGPATH_H

#include "guest/lib/place.h"

enum {
    RINGPATH_E_NO_RING = 1, /* use the windows; the place says why */
};

/**
 * ringpath_open() - own a ring and make a transport for it
 * @place:         checked by place_check(); taken when 0 is returned
 * @ret_transport: to be closed with its own close()
 *
 * Requests that a dead process left behind are waited for a moment; when that does not help, and no
 * other process has anything in flight, the device is reset.
 *
 * Return: 0; RINGPATH_E_NO_RING; -ENOMEM; the place stays the caller's.
 */
int ringpath_open(struct place *place, struct transport **ret_transport);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * device - where the command gets its device from
 *
 * The product links device_pci.c. Tests link the same command with a simulated device instead.
 */
#ifndef GUEST_CMD_DEVICE_H
#define GUEST_CMD_DEVICE_H

#include "guest/include/vgpu.h"

/** device_open() - as vgpu_open() */
int device_open(const struct vgpu_options *options, struct vgpu **ret_gpu,
                struct vgpu_err *ret_err);

/** device_list() - as vgpu_list() */
int device_list(struct vgpu_found *ret_found, size_t max, size_t *ret_count);

#endif

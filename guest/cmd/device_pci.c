/* SPDX-License-Identifier: MIT */
/* device_pci.c - the device is a real one; see device.h */
#include "guest/cmd/device.h"

int device_open(const struct vgpu_options *options, struct vgpu **ret_gpu, struct vgpu_err *ret_err)
{
    return vgpu_open(options, ret_gpu, ret_err);
}

int device_list(struct vgpu_found *ret_found, size_t max, size_t *ret_count)
{
    return vgpu_list(ret_found, max, ret_count);
}

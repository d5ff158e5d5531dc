/* SPDX-License-Identifier: MIT */
/*
 * pci - find devices in sysfs and map them
 *
 * Takes the folder of PCI devices as an argument, so that tests can bring their own.
 */
#ifndef GUEST_PCI_H
#define GUEST_PCI_H

#include "guest/lib/transport.h"

#define PCI_DEVICES "/sys/bus/pci/devices"

/** pci_list() - as vgpu_list(), in the folder @devices */
int pci_list(const char *devices, struct vgpu_found *ret_found, size_t max, size_t *ret_count);

/**
 * pci_open() - map a device and make a transport for it
 * @devices:       folder of PCI devices
 * @options:       as of vgpu_open(); may be NULL
 * @ret_transport: to be closed with its own close()
 * @ret_err:       why it failed
 *
 * Return: as vgpu_open().
 */
int pci_open(const char *devices, const struct vgpu_options *options,
             struct transport **ret_transport, struct vgpu_err *ret_err);

#endif

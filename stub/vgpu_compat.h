/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vgpu_compat - the differences between QEMU 4.2 and today that this device meets
 *
 * Includes all QEMU headers that the device needs, so that no other file asks for a version.
 */
#ifndef VGPU_COMPAT_H
#define VGPU_COMPAT_H

#include "qemu/osdep.h"

#define VGPU_QEMU(major, minor)      \
    (QEMU_VERSION_MAJOR > (major) || \
     (QEMU_VERSION_MAJOR == (major) && QEMU_VERSION_MINOR >= (minor)))

/* Headers that moved. A compiler so old that it cannot ask has an old QEMU. */
#ifndef __has_include
#define __has_include(header) 0
#endif
#if __has_include("hw/pci/pci_device.h")
#include "hw/pci/pci_device.h" /* 8.0 */
#else
#include "hw/pci/pci.h"
#endif
#if __has_include("hw/core/qdev-properties.h")
#include "hw/core/qdev-properties.h" /* 11.0 */
#else
#include "hw/qdev-properties.h"
#endif
#if __has_include("system/system.h")
#include "system/kvm.h" /* 10.0 */
#include "system/system.h"
#else
#include "sysemu/kvm.h"
#include "sysemu/sysemu.h"
#endif
#include "hw/pci/msi.h"
#include "hw/pci/msix.h"
#include "migration/vmstate.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/event_notifier.h"
#include "qemu/log.h"
#include "qemu/main-loop.h"
#include "qemu/memfd.h"
#include "qemu/module.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "qemu/uuid.h"

/* Class initialisers and interface lists became const in 10.1. */
#if VGPU_QEMU(10, 1)
typedef const void VgpuClassData;
typedef const InterfaceInfo VgpuInterfaceInfo;
#else
typedef void VgpuClassData;
typedef InterfaceInfo VgpuInterfaceInfo;
#endif

/* Property lists lost their terminator and became const in 10.0. */
#if VGPU_QEMU(10, 0)
typedef const Property VgpuProperty;
#define VGPU_PROPERTIES_END
#else
typedef Property VgpuProperty;
#define VGPU_PROPERTIES_END DEFINE_PROP_END_OF_LIST()
#endif

#if VGPU_QEMU(5, 0)
#define vgpu_set_properties(dc, props) device_class_set_props(dc, props)
#else
#define vgpu_set_properties(dc, properties) ((dc)->props = (properties))
#endif

static inline void vgpu_set_reset(DeviceClass *dc, void (*reset)(DeviceState *dev))
{
#if VGPU_QEMU(9, 2)
    device_class_set_legacy_reset(dc, reset);
#else
    dc->reset = reset;
#endif
}

/**
 * vgpu_ram_from_fd() - make @mr shared RAM on @fd
 *
 * Takes @fd when it succeeds. Return: whether it did; otherwise @errp says why.
 */
static inline bool vgpu_ram_from_fd(MemoryRegion *mr, Object *owner, const char *name,
                                    uint64_t size, int fd, Error **errp)
{
    Error *err = NULL;

#if VGPU_QEMU(6, 1)
    memory_region_init_ram_from_fd(mr, owner, name, size, RAM_SHARED, fd, 0, &err);
#elif VGPU_QEMU(6, 0)
    memory_region_init_ram_from_fd(mr, owner, name, size, true, fd, 0, &err);
#else
    memory_region_init_ram_from_fd(mr, owner, name, size, true, fd, &err);
#endif
    if (err != NULL) {
        error_propagate(errp, err);
        return false;
    }
    return true;
}

/* msix_vector_use() lost its result in 7.1. */
static inline void vgpu_vector_use(PCIDevice *pdev, unsigned vector)
{
    (void)msix_vector_use(pdev, vector);
}

/**
 * vgpu_add_msi_route() - a route of KVM's irqchip to the message of @vector
 *
 * Only while MSI-X is on: QEMU aborts otherwise. Return: its number, or -errno.
 */
static inline int vgpu_add_msi_route(PCIDevice *pdev, unsigned vector)
{
#if VGPU_QEMU(7, 0)
    KVMRouteChange change = kvm_irqchip_begin_route_changes(kvm_state);
    int virq = kvm_irqchip_add_msi_route(&change, (int)vector, pdev);

    kvm_irqchip_commit_route_changes(&change);
    return virq;
#else
    return kvm_irqchip_add_msi_route(kvm_state, (int)vector, pdev);
#endif
}

/** vgpu_doorbell_bytes() - which writes ring: 0 for any width, which also saves KVM from decoding the
 *  instruction. Old kernels cannot, and QEMUs that run on them ask. */
static inline unsigned vgpu_doorbell_bytes(void)
{
#ifdef kvm_ioeventfd_any_length_enabled
    return kvm_enabled() && !kvm_ioeventfd_any_length_enabled() ? 4 : 0;
#else
    return 0;
#endif
}

#endif

/* SPDX-License-Identifier: MIT */
/* pci - configuration mechanism 1, base address registers, the MSI-X capability */
#ifndef GUEST_PCI_H
#define GUEST_PCI_H

#include <stdbool.h>
#include <stdint.h>

/* Address of a function as CONFIG_ADDRESS takes it, register 0. */
typedef uint32_t pci_addr;

struct pci_bar {
    uint64_t base;
    uint64_t size; /* 0: there is none */
    bool is_64bit;
    bool prefetchable;
};

uint32_t pci_read(pci_addr addr, uint8_t reg);
void pci_write(pci_addr addr, uint8_t reg, uint32_t value);

/** pci_find() - first function with these ids on any bus; 0 when there is none */
pci_addr pci_find(uint16_t vendor, uint16_t device);

/** pci_bar_get() - base, size and kind of a memory BAR; memory space must be disabled */
struct pci_bar pci_bar_get(pci_addr addr, unsigned bar);

/** pci_bar_move() - find a hole below 4 GiB and put the BAR there; 0 or -1: there is no hole */
int pci_bar_move(pci_addr addr, unsigned bar, struct pci_bar *inout_bar);

/** pci_capability() - offset of a capability in configuration space, 0 when there is none */
uint8_t pci_capability(pci_addr addr, uint8_t id);

#define PCI_COMMAND 0x04
#define PCI_COMMAND_MEMORY 2u
#define PCI_COMMAND_MASTER 4u
#define PCI_CAP_MSIX 0x11

#endif

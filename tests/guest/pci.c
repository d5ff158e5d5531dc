/* SPDX-License-Identifier: MIT */
/* See pci.h. */
#include "tests/guest/cpu.h"
#include "tests/guest/pci.h"

#define CONFIG_ADDRESS 0xcf8
#define CONFIG_DATA 0xcfc
#define HOLE_BEGIN 0xc0000000u /* above any RAM that these tests give a guest */
#define HOLE_END 0xfe000000u   /* below the I/O APIC */
#define RANGES_MAX 128

static pci_addr pci_make(unsigned bus, unsigned dev, unsigned fn)
{
    return 0x80000000u | bus << 16 | dev << 11 | fn << 8;
}

uint32_t pci_read(pci_addr addr, uint8_t reg)
{
    out32(CONFIG_ADDRESS, addr | (reg & 0xfcu));
    return in32(CONFIG_DATA);
}

void pci_write(pci_addr addr, uint8_t reg, uint32_t value)
{
    out32(CONFIG_ADDRESS, addr | (reg & 0xfcu));
    out32(CONFIG_DATA, value);
}

static unsigned functions_of(pci_addr first)
{
    return pci_read(first, 0x0c) & 0x800000u ? 8 : 1;
}

pci_addr pci_find(uint16_t vendor, uint16_t device)
{
    uint32_t id = (uint32_t)device << 16 | vendor;

    for (unsigned slot = 0; slot < 256 * 32; slot++) {
        pci_addr first = pci_make(slot / 32, slot % 32, 0);

        if (pci_read(first, 0) == 0xffffffffu) {
            continue;
        }
        for (unsigned fn = 0; fn < functions_of(first); fn++) {
            if (pci_read(first | fn << 8, 0) == id) {
                return first | fn << 8;
            }
        }
    }
    return 0;
}

struct pci_bar pci_bar_get(pci_addr addr, unsigned bar)
{
    struct pci_bar ret = {0};
    uint8_t reg = (uint8_t)(0x10 + 4 * bar);
    uint32_t lo = pci_read(addr, reg);
    uint32_t hi = 0;
    uint64_t mask;

    if (lo & 1) {
        return ret; /* I/O space */
    }
    ret.is_64bit = (lo & 6) == 4;
    ret.prefetchable = (lo & 8) != 0;
    pci_write(addr, reg, 0xffffffffu);
    mask = 0xffffffff00000000u | (pci_read(addr, reg) & ~0xfu);
    pci_write(addr, reg, lo);
    if (ret.is_64bit) {
        hi = pci_read(addr, (uint8_t)(reg + 4));
        pci_write(addr, (uint8_t)(reg + 4), 0xffffffffu);
        mask = (mask & 0xffffffffu) | (uint64_t)pci_read(addr, (uint8_t)(reg + 4)) << 32;
        pci_write(addr, (uint8_t)(reg + 4), hi);
    }
    ret.base = (uint64_t)hi << 32 | (lo & ~0xfu);
    ret.size = (uint32_t)mask || ret.is_64bit ? ~mask + 1 : 0;
    return ret;
}

struct range {
    uint64_t begin, end;
};

static unsigned add_bars(pci_addr addr, struct range *ranges, unsigned n)
{
    unsigned header = (pci_read(addr, 0x0c) >> 16) & 0x7f;
    unsigned bars = header == 0 ? 6 : 2;
    uint32_t command = pci_read(addr, PCI_COMMAND);

    pci_write(addr, PCI_COMMAND, command & ~PCI_COMMAND_MEMORY);
    for (unsigned i = 0; i < bars && n < RANGES_MAX; i++) {
        struct pci_bar b = pci_bar_get(addr, i);

        if (b.size) {
            ranges[n++] = (struct range){b.base, b.base + b.size};
        }
        i += b.is_64bit;
    }
    pci_write(addr, PCI_COMMAND, command);
    return n;
}

static unsigned all_ranges(struct range *ranges)
{
    unsigned n = 0;

    for (unsigned slot = 0; slot < 32; slot++) {
        pci_addr first = pci_make(0, slot, 0);

        if (pci_read(first, 0) == 0xffffffffu) {
            continue;
        }
        for (unsigned fn = 0; fn < functions_of(first); fn++) {
            if (pci_read(first | fn << 8, 0) != 0xffffffffu) {
                n = add_bars(first | fn << 8, ranges, n);
            }
        }
    }
    return n;
}

int pci_bar_move(pci_addr addr, unsigned bar, struct pci_bar *inout_bar)
{
    static struct range ranges[RANGES_MAX];
    unsigned n = all_ranges(ranges);
    uint64_t size = inout_bar->size;
    uint8_t reg = (uint8_t)(0x10 + 4 * bar);
    uint64_t at = (HOLE_BEGIN + size - 1) & ~(size - 1);

    for (unsigned i = 0; i < n && at + size <= HOLE_END; i++) {
        if (at < ranges[i].end && ranges[i].begin < at + size) {
            at = (ranges[i].end + size - 1) & ~(size - 1);
            i = 0u - 1u; /* look at all of them again */
        }
    }
    if (at + size > HOLE_END) {
        return -1;
    }
    pci_write(addr, reg, (uint32_t)at);
    pci_write(addr, (uint8_t)(reg + 4), 0);
    inout_bar->base = at;
    return 0;
}

uint8_t pci_capability(pci_addr addr, uint8_t id)
{
    uint8_t at = 0;

    if (pci_read(addr, PCI_COMMAND) & 0x100000u) {
        at = pci_read(addr, 0x34) & 0xfc;
    }
    for (unsigned i = 0; at && i < 48; i++) {
        uint32_t head = pci_read(addr, at);

        if ((head & 0xff) == id) {
            return at;
        }
        at = (head >> 8) & 0xfc;
    }
    return 0;
}

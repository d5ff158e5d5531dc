/* SPDX-License-Identifier: MIT */
/* See msix.h. */
#include "tests/guest/msix.h"

#include "tests/guest/cpu.h"

#define APIC 0xfee00000u
#define APIC_EOI 0x0b0u
#define APIC_SPURIOUS 0x0f0u
#define APIC_IRR 0x200u
#define SPURIOUS_VECTOR 0xffu
#define FIRST_VECTOR 0x40u
#define LAST_VECTOR 0x7fu
#define INTERRUPT_GATE 0x8e00u
#define CODE_SELECTOR 0x08
#define DATA_SELECTOR 0x10

struct gate {
    uint16_t offset_low, selector, type, offset_high;
};

/* Operand of lgdt and lidt. */
struct __attribute__((packed)) table {
    uint16_t limit;
    uint32_t base;
};

struct interrupt_frame;

static struct gate idt[256];
static volatile uint32_t taken;

bool msix_open(const struct device *d, struct msix *ret)
{
    uint32_t table, pba;

    memset(ret, 0, sizeof(*ret));
    ret->pci = d->pci;
    ret->cap = pci_capability(d->pci, PCI_CAP_MSIX);
    if (ret->cap == 0) {
        return false;
    }
    ret->vectors = ((pci_read(d->pci, ret->cap) >> 16) & 0x7ff) + 1;
    table = pci_read(d->pci, (uint8_t)(ret->cap + 4));
    pba = pci_read(d->pci, (uint8_t)(ret->cap + 8));
    ret->table = (volatile uint32_t *)(uintptr_t)(d->msix + (table & ~7u));
    ret->pending = (volatile uint32_t *)(uintptr_t)(d->msix + (pba & ~7u));
    return (table & 7) == 4 && (pba & 7) == 4;
}

void msix_route(const struct msix *m, uint32_t vector, uint8_t cpu_vector, bool masked)
{
    volatile uint32_t *entry = m->table + 4 * vector;

    entry[3] = 1; /* masked while it changes */
    entry[0] = APIC;
    entry[1] = 0;
    entry[2] = cpu_vector;
    entry[3] = masked;
}

void msix_mask(const struct msix *m, uint32_t vector, bool masked)
{
    m->table[4 * vector + 3] = masked;
}

bool msix_pending(const struct msix *m, uint32_t vector)
{
    return m->pending[vector / 32] >> vector % 32 & 1;
}

void msix_control(const struct msix *m, uint32_t bits)
{
    pci_write(m->pci, m->cap, bits);
}

static volatile uint32_t *apic(uint32_t reg)
{
    return (volatile uint32_t *)(uintptr_t)(APIC + reg);
}

void apic_enable(void)
{
    *apic(APIC_SPURIOUS) = 0x100 | SPURIOUS_VECTOR;
}

bool apic_requested(uint8_t cpu_vector)
{
    return *apic(APIC_IRR + cpu_vector / 32 * 0x10) >> cpu_vector % 32 & 1;
}

bool apic_wait(uint8_t cpu_vector, uint32_t ms)
{
    uint64_t end = cpu_after_ms(ms);

    while (!apic_requested(cpu_vector)) {
        if (cpu_tsc() > end) {
            return false;
        }
        cpu_pause();
    }
    return true;
}

static __attribute__((interrupt)) void on_message(struct interrupt_frame *frame)
{
    (void)frame;
    taken++;
    *(volatile uint32_t *)(APIC + APIC_EOI) = 0; /* a handler calls no ordinary function */
}

static __attribute__((interrupt)) void on_spurious(struct interrupt_frame *frame)
{
    (void)frame;
}

static void set_gate(uint32_t vector, uint32_t handler)
{
    idt[vector] = (struct gate){
        .offset_low = (uint16_t)handler,
        .selector = CODE_SELECTOR,
        .type = INTERRUPT_GATE,
        .offset_high = (uint16_t)(handler >> 16),
    };
}

/* Multiboot promises flat segments, but no table to load them from again, as an interrupt does. */
static void load_segments(void)
{
    static const uint64_t gdt[] = {0, 0x00cf9a000000ffffull, 0x00cf92000000ffffull};
    const struct table table = {sizeof(gdt) - 1, (uint32_t)(uintptr_t)gdt};

    __asm__ volatile("lgdt %0\n\t"
                     "ljmp %1, $1f\n"
                     "1:\n\t"
                     "mov %2, %%ds\n\t"
                     "mov %2, %%es\n\t"
                     "mov %2, %%ss" ::"m"(table),
                     "i"(CODE_SELECTOR), "r"(DATA_SELECTOR)
                     : "memory");
}

/* The PIC keeps quiet: all its lines are masked. */
void interrupts_on(void)
{
    const struct table table = {sizeof(idt) - 1, (uint32_t)(uintptr_t)idt};

    load_segments();
    for (uint32_t v = 32; v < 256; v++) {
        set_gate(v, (uint32_t)(uintptr_t)on_spurious);
    }
    for (uint32_t v = FIRST_VECTOR; v <= LAST_VECTOR; v++) {
        set_gate(v, (uint32_t)(uintptr_t)on_message);
    }
    out8(0x21, 0xff);
    out8(0xa1, 0xff);
    apic_enable();
    __asm__ volatile("lidt %0; sti" ::"m"(table) : "memory");
}

void interrupts_off(void)
{
    __asm__ volatile("cli" ::: "memory");
}

uint32_t interrupts_taken(void)
{
    return taken;
}

/* SPDX-License-Identifier: MIT */
/*
 * MSI-X with interrupts off: a masked vector sets its pending bit; an unmasked one shows in the
 * local APIC's request register, where it would wait for an IDT that this program does not have.
 */
#include "tests/guest/cpu.h"
#include "tests/guest/tap.h"
#include "tests/guest/tests.h"

#define APIC 0xfee00000u
#define APIC_SPURIOUS 0x0f0u
#define APIC_IRR 0x200u
#define VECTOR 0x41u

#define MSIX_ENABLE 0x80000000u
#define MSIX_FUNCTION_MASK 0x40000000u

struct msix {
    uint8_t cap;
    uint32_t vectors;
    volatile uint32_t *entry0;
    volatile uint32_t *pending;
};

static uint32_t apic_read(uint32_t reg)
{
    return *(volatile uint32_t *)(APIC + reg);
}

static bool requested(void)
{
    return apic_read(APIC_IRR + VECTOR / 32 * 0x10) & 1u << VECTOR % 32;
}

static bool msix_find(const struct device *d, struct msix *ret)
{
    uint32_t table, pba;

    ret->cap = pci_capability(d->pci, PCI_CAP_MSIX);
    if (!tap_true("it has the capability", ret->cap != 0)) {
        return false;
    }
    ret->vectors = ((pci_read(d->pci, ret->cap) >> 16) & 0x7ff) + 1;
    table = pci_read(d->pci, (uint8_t)(ret->cap + 4));
    pba = pci_read(d->pci, (uint8_t)(ret->cap + 8));
    if (!tap_check("BAR of the table", table & 7, 4) || !tap_check("BAR of the PBA", pba & 7, 4)) {
        return false;
    }
    ret->entry0 = (volatile uint32_t *)(uintptr_t)(d->msix + (table & ~7u));
    ret->pending = (volatile uint32_t *)(uintptr_t)(d->msix + (pba & ~7u));
    return true;
}

/* An echo with flag IRQ, or without. */
static void echo(const struct device *d, uint32_t flags)
{
    static struct answer a;
    struct call c = call_new(OP_ECHO);

    c.flags = flags;
    c.data = "ring the bell...";
    c.data_len = 16;
    call_buf(&c, INLINE, IN, 0, 16);
    call_buf(&c, INLINE, OUT, 0, 16);
    tap_check("echo", device_call(d, &c, PATIENCE_MS, &a), OK);
}

static void test_masked(const struct device *d, const struct msix *m)
{
    tap_begin("a masked vector becomes pending");
    m->entry0[0] = APIC; /* to the CPU with APIC id 0 */
    m->entry0[1] = 0;
    m->entry0[2] = VECTOR - 1;
    m->entry0[3] = 0;
    pci_write(d->pci, m->cap, MSIX_ENABLE); /* what became pending while it was off is sent now */
    m->entry0[3] = 1;                       /* masked */
    m->entry0[2] = VECTOR;
    tap_check("the table keeps the data", m->entry0[2], VECTOR);
    tap_check("not pending yet", m->pending[0] & 1, 0);
    echo(d, 0);
    tap_check("not asked for: not pending", m->pending[0] & 1, 0);
    echo(d, FLAG_IRQ);
    tap_check("asked for: pending", m->pending[0] & 1, 1);
    tap_true("nothing reached the CPU", !requested());
    tap_end();
}

static void test_unmasked(const struct device *d, const struct msix *m)
{
    uint64_t end = cpu_after_ms(5000);

    tap_begin("an unmasked vector reaches the local APIC");
    *(volatile uint32_t *)(APIC + APIC_SPURIOUS) = 0x1ff; /* software enable */
    m->entry0[3] = 0;
    while (!requested() && cpu_tsc() < end) {
        cpu_pause();
    }
    tap_true("the pending one is sent when it is unmasked", requested());
    tap_check("and is not pending any more", m->pending[0] & 1, 0);
    m->entry0[2] = VECTOR + 1; /* an own vector for the second, for the first stays requested */
    echo(d, FLAG_IRQ);
    end = cpu_after_ms(5000);
    while (!(apic_read(APIC_IRR + 0x20) & 1u << (VECTOR + 1) % 32) && cpu_tsc() < end) {
        cpu_pause();
    }
    tap_true("the next one is sent at once",
             (apic_read(APIC_IRR + 0x20) & 1u << (VECTOR + 1) % 32) != 0);
    m->entry0[3] = 1;
    pci_write(d->pci, m->cap, MSIX_FUNCTION_MASK);
    tap_end();
}

void test_msix(const struct device *d)
{
    struct msix m;

    tap_begin("MSI-X capability");
    if (!(reg_read(d, REG_FEATURES) & FEATURE_MSIX)) {
        tap_skip("FEATURES has no MSIX");
        return;
    }
    if (!msix_find(d, &m)) {
        tap_end();
        return;
    }
    tap_true("at least one vector", m.vectors >= 1);
    say("# %u vectors\n", m.vectors);
    tap_end();
    test_masked(d, &m);
    test_unmasked(d, &m);
}

/* SPDX-License-Identifier: MIT */
/*
 * MSI-X with interrupts off: a masked vector sets its pending bit; an unmasked one shows in the
 * local APIC's request register, where it would wait for an IDT that this program does not have.
 */
#include "tests/guest/cpu.h"
#include "tests/guest/msix.h"
#include "tests/guest/tap.h"
#include "tests/guest/tests.h"

#define VECTOR 0x41u

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
    msix_route(m, 0, VECTOR - 1, false);
    msix_control(m, MSIX_ENABLE); /* what became pending while it was off is sent now */
    msix_route(m, 0, VECTOR, true);
    tap_check("the table keeps the data", m->table[2], VECTOR);
    tap_true("not pending yet", !msix_pending(m, 0));
    echo(d, 0);
    tap_true("not asked for: not pending", !msix_pending(m, 0));
    echo(d, FLAG_IRQ);
    tap_true("asked for: pending", msix_pending(m, 0));
    tap_true("nothing reached the CPU", !apic_requested(VECTOR));
    tap_end();
}

static void test_unmasked(const struct device *d, const struct msix *m)
{
    tap_begin("an unmasked vector reaches the local APIC");
    apic_enable();
    msix_mask(m, 0, false);
    tap_true("the pending one is sent when it is unmasked", apic_wait(VECTOR, 5000));
    tap_true("and is not pending any more", !msix_pending(m, 0));
    msix_route(m, 0, VECTOR + 1, false); /* an own vector: the first stays requested */
    echo(d, FLAG_IRQ);
    tap_true("the next one is sent at once", apic_wait(VECTOR + 1, 5000));
    msix_mask(m, 0, true);
    msix_control(m, MSIX_FUNCTION_MASK);
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
    if (!tap_true("a capability with table and pending bits in BAR 4", msix_open(d, &m))) {
        tap_end();
        return;
    }
    tap_true("at least one vector", m.vectors >= 1);
    say("# %u vectors\n", m.vectors);
    tap_end();
    test_masked(d, &m);
    test_unmasked(d, &m);
}

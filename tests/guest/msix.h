/* SPDX-License-Identifier: MIT */
/*
 * msix - the MSI-X table of the device, and the local APIC that its messages go to
 *
 * With interrupts off a message waits in the local APIC's request register, where it can be seen. With
 * interrupts on (interrupts_on(), msix vectors 0x40 and up) it is taken and counted.
 */
#ifndef GUEST_MSIX_H
#define GUEST_MSIX_H

#include "tests/guest/driver.h"

#define MSIX_ENABLE 0x80000000u
#define MSIX_FUNCTION_MASK 0x40000000u

struct msix {
    pci_addr pci;
    uint8_t cap;
    uint32_t vectors;
    volatile uint32_t *table; /* four words each */
    volatile uint32_t *pending;
};

/** msix_open() - find table and pending bits; false when the device has no MSI-X in BAR 4 */
bool msix_open(const struct device *d, struct msix *ret);

/** msix_route() - @vector sends CPU vector @cpu_vector to this CPU, and is unmasked or not */
void msix_route(const struct msix *m, uint32_t vector, uint8_t cpu_vector, bool masked);

/** msix_mask() - mask or unmask one vector */
void msix_mask(const struct msix *m, uint32_t vector, bool masked);

/** msix_pending() - the pending bit of a vector */
bool msix_pending(const struct msix *m, uint32_t vector);

/** msix_control() - message control: MSIX_ENABLE, MSIX_FUNCTION_MASK or 0 */
void msix_control(const struct msix *m, uint32_t bits);

/** apic_enable() - software enable of the local APIC */
void apic_enable(void);

/** apic_requested() - is CPU vector @cpu_vector in the request register? */
bool apic_requested(uint8_t cpu_vector);

/** apic_wait() - poll for that; false when it did not come within @ms */
bool apic_wait(uint8_t cpu_vector, uint32_t ms);

/** interrupts_on() - take CPU vectors 0x40 to 0x7f from now on, and count them */
void interrupts_on(void);

/** interrupts_off() - back to polling */
void interrupts_off(void);

/** interrupts_taken() - how often since the start */
uint32_t interrupts_taken(void);

#endif

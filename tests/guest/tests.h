/* SPDX-License-Identifier: MIT */
/* tests - the parts of the program that main.c chooses from */
#ifndef GUEST_TESTS_H
#define GUEST_TESTS_H

#include "tests/guest/driver.h"

#define PATIENCE_MS 60000u /* what any request of these tests may take, slow machines included */

/** test_registers() - identity, read-only registers, access widths, windows, the arena's memory */
void test_registers(struct device *d);

/** test_ops() - INFO, and each operation with a small input whose result is known */
void test_ops(const struct device *d);

/** test_errors() - requests that must be refused, each with its code and a sentence */
void test_errors(const struct device *d);

/** test_flight() - doorbell, cancel, deadline and reset while a request is in flight */
void test_flight(const struct device *d);

/** test_msix() - table, mask, pending bit, and an MSI in the local APIC, interrupts off */
void test_msix(const struct device *d);

/** test_rings() - requests through rings; only where ring_count() is not 0 */
void test_rings(const struct device *d);

/** test_bells() - doorbells and vectors of rings, BROKEN, reset */
void test_bells(const struct device *d);

/** test_interrupts() - completions as interrupts that wake a halted CPU */
void test_interrupts(const struct device *d);

/** test_echo_works() - one check: the device completes an inline echo */
void test_echo_works(const struct device *d);

/** long_call() - a request that keeps a worker busy for a while, its output in the arena */
struct call long_call(const struct device *d);

#define LONG_OUT_OFFSET 0x40000u /* of long_call()'s output in the arena */
#define LONG_OUT_BYTES (128u * 128u)

/** bench_run() - @n echo round trips, latencies in nanoseconds */
void bench_run(const struct device *d, uint32_t n);

/** bench_rings() - @n echo round trips through ring 0, and what a doorbell costs */
void bench_rings(const struct device *d, uint32_t n);

/** bench_forever() - one request after another, through ring 0 or the windows, with no exit that is not
 *  needed; returns when one fails */
void bench_forever(const struct device *d, bool through_ring);

#endif

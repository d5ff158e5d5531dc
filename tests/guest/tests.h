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

/** test_echo_works() - one check: the device completes an inline echo */
void test_echo_works(const struct device *d);

/** long_call() - a request that keeps a worker busy for a while, its output in the arena */
struct call long_call(const struct device *d);

#define LONG_OUT_OFFSET 0x40000u /* of long_call()'s output in the arena */
#define LONG_OUT_BYTES (128u * 128u)

/** bench_run() - @n echo round trips, latencies in nanoseconds */
void bench_run(const struct device *d, uint32_t n);

#endif

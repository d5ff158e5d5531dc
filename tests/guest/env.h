/* SPDX-License-Identifier: MIT */
/*
 * env - what a driver on the bare machine has: nothing but these
 *
 * 32-bit x86, paging off, interrupts off, one processor. Physical memory below 4 GiB is directly
 * addressable.
 */
#ifndef GUEST_ENV_H
#define GUEST_ENV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/guest/mem.h"

/** env_config_read() - PCI configuration space: bus 0..255, device 0..31, function 0..7, register a
 *  multiple of 4 */
uint32_t env_config_read(unsigned bus, unsigned dev, unsigned fn, unsigned reg);

/** env_config_write() - the same, writing */
void env_config_write(unsigned bus, unsigned dev, unsigned fn, unsigned reg, uint32_t value);

/** env_read32() - device memory at a physical address below 4 GiB */
uint32_t env_read32(uint32_t address);

/** env_write32() - the same, writing */
void env_write32(uint32_t address, uint32_t value);

/** env_now_ms() - milliseconds since some moment before the start; never goes back */
uint64_t env_now_ms(void);

/** env_print() - %s %c %u %d %x %U (uint64_t), no widths */
void env_print(const char *format, ...);

/** env_driver_main() - the driver: true when everything that it tried came out right */
bool env_driver_main(void);

#endif

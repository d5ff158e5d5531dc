/* SPDX-License-Identifier: MIT */
/* See env.h: what a driver on the bare machine has, made of cpu.h and pci.h. */
#include "tests/guest/env.h"

#include <stdarg.h>

#include "tests/guest/cpu.h"
#include "tests/guest/pci.h"

static pci_addr function_at(unsigned bus, unsigned dev, unsigned fn)
{
    return 0x80000000u | bus << 16 | dev << 11 | fn << 8;
}

uint32_t env_config_read(unsigned bus, unsigned dev, unsigned fn, unsigned reg)
{
    return pci_read(function_at(bus, dev, fn), (uint8_t)reg);
}

void env_config_write(unsigned bus, unsigned dev, unsigned fn, unsigned reg, uint32_t value)
{
    pci_write(function_at(bus, dev, fn), (uint8_t)reg, value);
}

uint32_t env_read32(uint32_t address)
{
    return *(volatile uint32_t *)(uintptr_t)address;
}

void env_write32(uint32_t address, uint32_t value)
{
    *(volatile uint32_t *)(uintptr_t)address = value;
}

uint64_t env_now_ms(void)
{
    return cpu_div(cpu_tsc(), cpu_khz(), NULL);
}

void env_print(const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    vsay(format, ap);
    va_end(ap);
}

/* SPDX-License-Identifier: MIT */
/*
 * cpu - the bare machine: ports, time, serial console, exit, and the few libc functions that a
 * compiler takes for granted
 *
 * Interrupts stay off. Time is the TSC, its frequency is measured once against the PIT.
 */
#ifndef GUEST_CPU_H
#define GUEST_CPU_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/guest/mem.h"

bool streq(const char *a, const char *b);

static inline void out8(uint16_t port, uint8_t v)
{
    __asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port) : "memory");
}

static inline uint8_t in8(uint16_t port)
{
    uint8_t v;

    __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory");
    return v;
}

static inline void out32(uint16_t port, uint32_t v)
{
    __asm__ volatile("outl %0, %1" ::"a"(v), "Nd"(port) : "memory");
}

static inline uint32_t in32(uint16_t port)
{
    uint32_t v;

    __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port) : "memory");
    return v;
}

static inline uint64_t cpu_tsc(void)
{
    uint32_t lo, hi;

    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi)::"memory");
    return (uint64_t)hi << 32 | lo;
}

static inline void cpu_pause(void)
{
    __asm__ volatile("pause" ::: "memory");
}

/** cpu_fence() - every access before it comes before every access after it */
static inline void cpu_fence(void)
{
    __asm__ volatile("lock; addl $0, (%%esp)" ::: "memory", "cc");
}

/** cpu_div() - 64-bit division by 32 bits, which takes a library elsewhere */
uint64_t cpu_div(uint64_t n, uint32_t d, uint32_t *ret_rest);

/** cpu_calibrate() - measure the TSC against the PIT, unless @khz is not 0: then believe it */
void cpu_calibrate(uint32_t khz);

/** cpu_khz() - TSC ticks per millisecond */
uint32_t cpu_khz(void);

/** cpu_ns() - nanoseconds of @ticks TSC ticks (at most some hours) */
uint64_t cpu_ns(uint64_t ticks);

/** cpu_after_ms() - TSC value @ms milliseconds from now */
uint64_t cpu_after_ms(uint32_t ms);

/** cpu_exit() - end the machine through isa-debug-exit; QEMU's exit status is @code * 2 + 1 */
_Noreturn void cpu_exit(uint8_t code);

/** say() - print on the serial port; %s %c %u %d %x %% and %U (uint64_t), no widths */
void say(const char *format, ...);

/** vsay() - the same with a va_list */
void vsay(const char *format, va_list ap);

/** serial_init() - 115200 8N1, no interrupts */
void serial_init(void);

#endif

/* SPDX-License-Identifier: MIT */
/* See cpu.h. */
#include <stdarg.h>

#include "tests/guest/cpu.h"

#define COM1 0x3f8
#define DEBUG_EXIT 0xf4
#define PIT_HZ 1193182u
#define PIT_CHANNEL2 0x42
#define PIT_COMMAND 0x43
#define PIT_GATE 0x61

static uint32_t tsc_khz;

/*
 * Plain loops of words: a KVM that emulates guest instructions takes microseconds for a string
 * instruction. volatile, so that the compiler does not turn the loop into a call of itself.
 */
void *(memcpy)(void *dst, const void *src, size_t n)
{
    volatile uint32_t *to = dst;
    const uint32_t *from = src;
    size_t words = n / 4;

    for (size_t i = 0; i < words; i++) {
        to[i] = from[i];
    }
    for (size_t i = words * 4; i < n; i++) {
        ((volatile uint8_t *)dst)[i] = ((const uint8_t *)src)[i];
    }
    return dst;
}

void *memset(void *dst, int c, size_t n)
{
    volatile uint32_t *to = dst;
    size_t words = n / 4;

    for (size_t i = 0; i < words; i++) {
        to[i] = (uint8_t)c * 0x01010101u;
    }
    for (size_t i = words * 4; i < n; i++) {
        ((volatile uint8_t *)dst)[i] = (uint8_t)c;
    }
    return dst;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const uint8_t *x = a;
    const uint8_t *y = b;

    for (size_t i = 0; i < n; i++) {
        if (x[i] != y[i]) {
            return x[i] < y[i] ? -1 : 1;
        }
    }
    return 0;
}

size_t strlen(const char *s)
{
    size_t n = 0;

    while (s[n]) {
        n++;
    }
    return n;
}

bool streq(const char *a, const char *b)
{
    return strlen(a) == strlen(b) && memcmp(a, b, strlen(a)) == 0;
}

uint64_t cpu_div(uint64_t n, uint32_t d, uint32_t *ret_rest)
{
    uint32_t hi = (uint32_t)(n >> 32);
    uint32_t lo = (uint32_t)n;
    uint32_t q_hi = hi / d;
    uint32_t rest = hi % d;
    uint32_t q_lo;

    __asm__("divl %4" : "=a"(q_lo), "=d"(rest) : "a"(lo), "d"(rest), "r"(d) : "cc");
    if (ret_rest) {
        *ret_rest = rest;
    }
    return (uint64_t)q_hi << 32 | q_lo;
}

/* Counts the TSC while channel 2 counts down 50 ms. */
static uint32_t measure_khz(void)
{
    const uint32_t count = PIT_HZ / 20;
    uint64_t start, ticks;

    out8(PIT_GATE, (in8(PIT_GATE) & ~3u) | 1u); /* gate on, speaker off */
    out8(PIT_COMMAND, 0xb0);                    /* channel 2, both bytes, mode 0 */
    out8(PIT_CHANNEL2, count & 0xff);
    out8(PIT_CHANNEL2, count >> 8);
    start = cpu_tsc();
    while (!(in8(PIT_GATE) & 0x20)) {
        cpu_pause();
    }
    ticks = cpu_tsc() - start;
    return (uint32_t)cpu_div(ticks, 50, NULL);
}

/* Whoever is interrupted while measuring finds too many ticks: the least of three is right. */
void cpu_calibrate(uint32_t khz)
{
    tsc_khz = khz ? khz : measure_khz();
    for (int i = 0; khz == 0 && i < 2; i++) {
        uint32_t again = measure_khz();

        tsc_khz = again < tsc_khz ? again : tsc_khz;
    }
    if (tsc_khz == 0) {
        tsc_khz = 1;
    }
}

uint32_t cpu_khz(void)
{
    return tsc_khz;
}

uint64_t cpu_ns(uint64_t ticks)
{
    uint32_t rest;
    uint64_t ms = cpu_div(ticks, tsc_khz, &rest);

    return ms * 1000000u + cpu_div((uint64_t)rest * 1000000u, tsc_khz, NULL);
}

uint64_t cpu_after_ms(uint32_t ms)
{
    return cpu_tsc() + (uint64_t)ms * tsc_khz;
}

_Noreturn void cpu_exit(uint8_t code)
{
    out8(DEBUG_EXIT, code);
    for (;;) {
        __asm__ volatile("cli; hlt");
    }
}

void serial_init(void)
{
    out8(COM1 + 1, 0);    /* no interrupts */
    out8(COM1 + 3, 0x80); /* divisor latch */
    out8(COM1 + 0, 1);
    out8(COM1 + 1, 0);
    out8(COM1 + 3, 3); /* 8N1 */
    out8(COM1 + 2, 7); /* FIFO on and empty */
}

static void put(char c)
{
    while (!(in8(COM1 + 5) & 0x20)) {
        cpu_pause();
    }
    out8(COM1, (uint8_t)c);
}

static void put_text(const char *s)
{
    while (*s) {
        put(*s++);
    }
}

static void put_number(uint64_t n, uint32_t base)
{
    char digits[24];
    size_t at = sizeof(digits);
    uint32_t rest;

    digits[--at] = 0;
    do {
        n = cpu_div(n, base, &rest);
        digits[--at] = "0123456789abcdef"[rest];
    } while (n);
    put_text(digits + at);
}

static void put_signed(int n)
{
    if (n < 0) {
        put('-');
    }
    put_number(n < 0 ? 0u - (uint32_t)n : (uint32_t)n, 10);
}

void vsay(const char *format, va_list ap)
{
    for (; *format; format++) {
        if (*format != '%') {
            put(*format);
            continue;
        }
        switch (*++format) {
        case 's':
            put_text(va_arg(ap, const char *));
            break;
        case 'c':
            put((char)va_arg(ap, int));
            break;
        case 'u':
            put_number(va_arg(ap, uint32_t), 10);
            break;
        case 'U':
            put_number(va_arg(ap, uint64_t), 10);
            break;
        case 'x':
            put_number(va_arg(ap, uint32_t), 16);
            break;
        case 'd':
            put_signed(va_arg(ap, int));
            break;
        default:
            put(*format);
            break;
        }
    }
}

void say(const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    vsay(format, ap);
    va_end(ap);
}

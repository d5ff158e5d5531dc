/* SPDX-License-Identifier: MIT */
/*
 * main - a multiboot program that drives the vGPU device by docs/device.md, nothing else
 *
 * Command line: MODE [N] [tsc_khz=K]
 *   selftest   all tests; TAP on the serial port
 *   windows    only those of a driver that knows no rings
 *   registers  only those that need no backend
 *   interrupts ring completions as interrupts
 *   bench N    N echo round trips through the windows, latencies
 *   rings N    the same through a ring
 *   forever    one ring request after another, counted in memory
 *   forever 0  the same through the windows
 *   echo N     N echoes, one line each, as fast as they are answered
 *   nobackend  one echo with a deadline of 200 ms, which must end with NO_BACKEND
 *   idle       find the device, then halt
 *   document   the driver that is written from docs/device.md alone (doc_driver.c)
 *
 * Ends through isa-debug-exit: QEMU's status is 33 when all went well, 35 otherwise.
 */
#include "tests/guest/cpu.h"
#include "tests/guest/env.h"
#include "tests/guest/ring.h"
#include "tests/guest/tap.h"
#include "tests/guest/tests.h"

#define EXIT_PASS 16
#define EXIT_FAIL 17
#define MULTIBOOT_MAGIC 0x2badb002u
#define HAS_COMMAND_LINE 4u
#define WORDS_MAX 8

struct multiboot_info {
    uint32_t flags, mem_lower, mem_upper, boot_device, command_line;
};

void guest_main(uint32_t magic, const struct multiboot_info *info);

static uint32_t split(const char *line, char *copy, size_t size, const char **words)
{
    uint32_t n = 0;
    bool inside = false;

    for (size_t i = 0; i + 1 < size && line[i] && n < WORDS_MAX; i++) {
        copy[i] = line[i] == ' ' ? 0 : line[i];
        if (line[i] != ' ' && !inside) {
            words[n++] = copy + i;
        }
        inside = line[i] != ' ';
        copy[i + 1] = 0;
    }
    return n;
}

static uint32_t parse_number(const char *s)
{
    uint32_t n = 0;

    for (; *s >= '0' && *s <= '9'; s++) {
        n = n * 10 + (uint32_t)(*s - '0');
    }
    return n;
}

static bool wait_backend(const struct device *d)
{
    if (device_wait_flags(d, BACKEND_UP, BACKEND_UP, PATIENCE_MS)) {
        return true;
    }
    say("not ok 1 - BACKEND_UP # no mediator within %u ms\n", PATIENCE_MS);
    return false;
}

static bool run_selftest(struct device *d, bool rings)
{
    test_registers(d);
    if (!wait_backend(d)) {
        return false;
    }
    test_ops(d);
    test_errors(d);
    test_flight(d);
    test_msix(d);
    if (rings && ring_count(d) > 0) {
        test_rings(d);
        test_bells(d);
    }
    return tap_finish() == 0;
}

static bool run_echo(const struct device *d, uint32_t n)
{
    static struct answer a;
    uint32_t failed = 0;

    for (uint32_t i = 0; i < n; i++) {
        struct call c = call_new(OP_ECHO);
        uint32_t error;

        c.data = "Hello from guest";
        c.data_len = 16;
        call_buf(&c, INLINE, IN, 0, 16);
        call_buf(&c, INLINE, OUT, 0, 16);
        error = device_call(d, &c, PATIENCE_MS, &a);
        say("echo %u error %u attempts %u\n", i, error, a.hdr.attempts);
        failed += error != OK || memcmp(a.payload, c.data, 16) != 0;
    }
    return failed == 0;
}

static bool run_no_backend(const struct device *d)
{
    static struct answer a;
    struct call c = call_new(OP_ECHO);
    uint64_t begin = cpu_tsc();
    uint32_t ms;

    tap_begin("a doorbell with no mediator ends with NO_BACKEND at its deadline");
    c.deadline_ms = 200;
    c.data = "is anybody there";
    c.data_len = 16;
    call_buf(&c, INLINE, IN, 0, 16);
    call_buf(&c, INLINE, OUT, 0, 16);
    tap_check("BACKEND_UP", reg_read(d, REG_STATUS) & BACKEND_UP, 0);
    tap_check("error", device_call(d, &c, PATIENCE_MS, &a), NO_BACKEND);
    ms = (uint32_t)cpu_div(cpu_ns(cpu_tsc() - begin), 1000000, NULL);
    say("# %u ms: %s\n", ms, (const char *)a.payload);
    tap_true("not before the deadline", ms >= 190 /* calibrated within 5 % */);
    tap_true("soon after it", ms < 10000);
    tap_end();
    return tap_finish() == 0;
}

static bool run(struct device *d, const char *mode, uint32_t n)
{
    if (streq(mode, "selftest") || streq(mode, "windows")) {
        return run_selftest(d, streq(mode, "selftest"));
    }
    if (streq(mode, "registers")) {
        test_registers(d);
        return tap_finish() == 0;
    }
    if (streq(mode, "nobackend")) {
        return run_no_backend(d);
    }
    if (streq(mode, "idle")) {
        say("idle: STATUS 0x%x\n", reg_read(d, REG_STATUS));
        for (;;) {
            __asm__ volatile("cli; hlt");
        }
    }
    if (!wait_backend(d)) {
        return false;
    }
    if (streq(mode, "bench")) {
        bench_run(d, n);
        return true;
    }
    if (streq(mode, "rings")) {
        bench_rings(d, n);
        return true;
    }
    if (streq(mode, "forever")) {
        bench_forever(d, n > 0);
        return false;
    }
    if (streq(mode, "interrupts")) {
        test_interrupts(d);
        return tap_finish() == 0;
    }
    if (streq(mode, "echo")) {
        return run_echo(d, n);
    }
    say("unknown mode '%s': selftest, windows, registers, interrupts, bench N, rings N, forever, "
        "echo N,"
        " nobackend or idle\n",
        mode);
    return false;
}

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    static struct device device;
    static char copy[256];
    const char *words[WORDS_MAX] = {0};
    uint32_t n = 0;
    uint32_t khz = 0;
    const char *why;

    serial_init();
    if (magic == MULTIBOOT_MAGIC && info->flags & HAS_COMMAND_LINE) {
        n = split((const char *)(uintptr_t)info->command_line, copy, sizeof(copy), words);
    }
    for (uint32_t i = 1; i < n; i++) {
        if (memcmp(words[i], "tsc_khz=", 8) == 0) {
            khz = parse_number(words[i] + 8);
        }
    }
    cpu_calibrate(khz);
    if (n > 1 && streq(words[1], "document")) {
        cpu_exit(env_driver_main() ? EXIT_PASS : EXIT_FAIL);
    }
    why = device_open(&device);
    if (why) {
        say("not ok 1 - device # %s\n", why);
        cpu_exit(EXIT_FAIL);
    }
    say("# BAR 0 at 0x%x, BAR 2 at 0x%x, arena of %u bytes, FEATURES 0x%x\n",
        (uint32_t)device.bars[0].base, (uint32_t)device.bars[2].base, device.arena_size,
        reg_read(&device, REG_FEATURES));
    cpu_exit(run(&device, n > 1 ? words[1] : "selftest", n > 2 ? parse_number(words[2]) : 1)
                 ? EXIT_PASS
                 : EXIT_FAIL);
}

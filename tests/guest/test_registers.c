/* SPDX-License-Identifier: MIT */
/* What can be tried without a backend. */
#include "tests/guest/cpu.h"
#include "tests/guest/tap.h"
#include "tests/guest/tests.h"

static uint8_t read8(const struct device *d, uint32_t at)
{
    return d->regs[at];
}

static uint16_t read16(const struct device *d, uint32_t at)
{
    return *(volatile uint16_t *)(d->regs + at);
}

static void test_identity(const struct device *d)
{
    tap_begin("PCI identity and BARs");
    tap_check("class", pci_read(d->pci, 0x08) >> 16, DOC_CLASS);
    tap_check("revision", pci_read(d->pci, 0x08) & 0xff, 1);
    tap_check("interrupt pin", (pci_read(d->pci, 0x3c) >> 8) & 0xff, 0);
    tap_check("size of BAR 0", d->bars[0].size, 4096);
    tap_true("BAR 0 is not prefetchable", !d->bars[0].prefetchable);
    tap_true("BAR 2 is 64-bit", d->bars[2].is_64bit);
    tap_true("BAR 2 is prefetchable", d->bars[2].prefetchable);
    tap_check("SHM_SIZE", d->bars[2].size,
              (uint64_t)reg_read(d, REG_SHM_SIZE_HI) << 32 | reg_read(d, REG_SHM_SIZE_LO));
    if (!(reg_read(d, REG_FEATURES) & FEATURE_RING)) {
        tap_check("no rings", reg_read(d, REG_RING_COUNT), 0);
    }
    tap_true("the default deadline is not 0", reg_read(d, REG_DEADLINE_MS) != 0);
    tap_end();
}

static void test_read_only(const struct device *d)
{
    static const uint16_t ro[] = {REG_MAGIC,         REG_ABI_VERSION,   REG_ERROR,
                                  REG_REQUEST_ID,    REG_RESPONSE_LEN,  REG_RESET_EPOCH,
                                  REG_REJECTS,       REG_REJECT_ERROR,  REG_DEADLINE_MS,
                                  REG_RING_COUNT,    REG_SHM_SIZE_LO,   REG_ARENA_OFFSET_LO,
                                  REG_ARENA_SIZE_LO, REG_ARENA_SIZE_HI, REG_VM_ID};
    static const uint16_t zero[] = {0x05c, 0x078,       0x07c,        0x084,
                                    0x0fc, 0x200,       0x3fc,        0xc00,
                                    0xffc, REG_CONTROL, REG_DOORBELL, REG_RING_DOORBELL,
                                    0x1fc};

    tap_begin("read-only, write-only and unknown registers");
    for (unsigned i = 0; i < sizeof(ro) / sizeof(*ro); i++) {
        uint32_t before = reg_read(d, ro[i]);

        reg_write(d, ro[i], ~before);
        tap_check("a read-only register keeps its value", reg_read(d, ro[i]), before);
    }
    for (unsigned i = 0; i < sizeof(zero) / sizeof(*zero); i++) {
        if (zero[i] != REG_DOORBELL && zero[i] != REG_CONTROL) {
            reg_write(d, zero[i], 0xdeadbeef);
        }
        tap_check("it reads as 0", reg_read(d, zero[i]), 0);
    }
    tap_check("STATUS is IDLE", reg_read(d, REG_STATUS) & STATE_MASK, STATE_IDLE);
    tap_end();
}

static void test_widths(const struct device *d)
{
    tap_begin("access widths");
    tap_check("byte 1 of MAGIC", read8(d, REG_MAGIC + 1), 'G');
    tap_check("byte 3 of MAGIC", read8(d, REG_MAGIC + 3), 'U');
    tap_check("high half of MAGIC", read16(d, REG_MAGIC + 2), 0x5550);
    reg_write(d, REG_REQUEST_LEN, 0x12345678);
    tap_check("REQUEST_LEN", reg_read(d, REG_REQUEST_LEN), 0x12345678);
    d->regs[REG_REQUEST_LEN] = 0xff;
    *(volatile uint16_t *)(d->regs + REG_REQUEST_LEN + 2) = 0xffff;
    tap_check("a narrow write is ignored", reg_read(d, REG_REQUEST_LEN), 0x12345678);
    reg_write(d, WINDOW_REQUEST, 0x44332211);
    d->regs[WINDOW_REQUEST + 1] = 0xaa;
    *(volatile uint16_t *)(d->regs + WINDOW_REQUEST + 2) = 0xccbb;
    tap_check("the window takes any width", reg_read(d, WINDOW_REQUEST), 0xccbbaa11);
    reg_write(d, REG_REQUEST_LEN, 0);
    tap_end();
}

static void test_windows(const struct device *d)
{
    tap_begin("windows");
    for (uint32_t at = 0; at < WINDOW_SIZE; at += 4) {
        reg_write(d, WINDOW_REQUEST + at, at * 0x9e3779b1u);
        reg_write(d, WINDOW_RESPONSE + at, 0xffffffffu);
    }
    for (uint32_t at = 0; at < WINDOW_SIZE; at += 4) {
        if (!tap_check("request window", reg_read(d, WINDOW_REQUEST + at), at * 0x9e3779b1u) ||
            !tap_check("response window", reg_read(d, WINDOW_RESPONSE + at), 0)) {
            break;
        }
    }
    tap_end();
}

static void test_arena(const struct device *d)
{
    uint32_t step = d->arena_size / 64 & ~63u;

    tap_begin("the arena is memory");
    tap_true("FEATURES has SHM", reg_read(d, REG_FEATURES) & FEATURE_SHM);
    tap_true("it has at least 512 KiB", d->arena_size >= 512 * 1024);
    for (uint32_t at = 0; step && at < d->arena_size; at += step) {
        *(volatile uint32_t *)(d->arena + at) = at ^ 0x5a5a5a5au;
    }
    for (uint32_t at = 0; step && at < d->arena_size; at += step) {
        tap_check("a word", *(volatile uint32_t *)(d->arena + at), at ^ 0x5a5a5a5au);
    }
    tap_end();
}

/* What a 32-bit driver does when firmware put the BAR out of its reach. */
static void test_move(struct device *d)
{
    uint64_t base = d->bars[2].base;
    const char *why;

    tap_begin("BAR 2 keeps its bytes at another address");
    *(volatile uint32_t *)(d->arena + 4096) = 0x12345678;
    why = device_move_shm(d);
    if (why) {
        tap_skip(why);
        return;
    }
    tap_true("it moved", d->bars[2].base != base);
    tap_check("a word", *(volatile uint32_t *)(d->arena + 4096), 0x12345678);
    tap_end();
}

/* Narrow and whole accesses at random, everywhere but at the doorbells and CONTROL. */
static void test_random(const struct device *d)
{
    uint32_t seed = 12345;

    tap_begin("random accesses");
    for (unsigned i = 0; i < 2000; i++) {
        uint32_t at, value;

        seed = seed * 1664525u + 1013904223u;
        at = (seed >> 8) & 0xfff;
        value = seed ^ seed << 13;
        if ((at & ~3u) == REG_CONTROL || (at & ~3u) == REG_DOORBELL || (seed & 1)) {
            (void)read8(d, at);
            (void)reg_read(d, at & ~3u);
        } else if (seed & 2) {
            d->regs[at] = (uint8_t)value;
            *(volatile uint16_t *)(d->regs + (at & ~1u)) = (uint16_t)value;
        } else {
            reg_write(d, at & ~3u, value);
        }
    }
    tap_check("MAGIC is still there", reg_read(d, REG_MAGIC), 0x55504756);
    tap_check("STATUS is IDLE", reg_read(d, REG_STATUS) & STATE_MASK, STATE_IDLE);
    reg_write(d, REG_PRIORITY, 0xff);
    reg_write(d, REG_CONTROL, 0x80000003u);
    tap_check("an unknown command is ignored", reg_read(d, REG_STATUS) & STATE_MASK, STATE_IDLE);
    tap_end();
}

void test_registers(struct device *d)
{
    test_identity(d);
    test_read_only(d);
    test_widths(d);
    test_windows(d);
    test_arena(d);
    test_move(d);
    test_random(d);
}

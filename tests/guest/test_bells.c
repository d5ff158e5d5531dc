/* SPDX-License-Identifier: MIT */
/* Doorbells and vectors of rings, and what a broken ring and a reset do. */
#include "tests/guest/cpu.h"
#include "tests/guest/msix.h"
#include "tests/guest/ring.h"
#include "tests/guest/tap.h"
#include "tests/guest/tests.h"

#define VECTOR 0x50u /* of the CPU; each test takes one of its own, for a requested one stays so */
#define INTERRUPTS 200u

static struct ring ring;
static struct answer answer;

static struct call small_echo(void)
{
    struct call c = call_new(OP_ECHO);

    c.data = "ring the bell...";
    c.data_len = 16;
    call_buf(&c, INLINE, IN, 0, 16);
    call_buf(&c, INLINE, OUT, 0, 16);
    return c;
}

/* New life of the device, and its ring @number. */
static bool start_over(const struct device *d, uint32_t number)
{
    const char *why;

    reg_write(d, REG_CONTROL, CONTROL_RESET);
    if (!tap_true("RESETTING clears", device_wait_flags(d, RESETTING, 0, PATIENCE_MS)) ||
        !tap_true("BACKEND_UP", device_wait_flags(d, BACKEND_UP, BACKEND_UP, PATIENCE_MS))) {
        return false;
    }
    why = ring_open(d, number, &ring);
    return tap_true(why ? why : "ring_open", why == NULL);
}

/* What became pending while MSI-X was off is sent, to a vector that no test looks at. */
static void drop_pending(const struct device *d, const struct msix *m)
{
    for (uint32_t i = 0; i < ring_count(d); i++) {
        msix_route(m, 1 + i, VECTOR - 1, false);
    }
    msix_control(m, MSIX_ENABLE);
    for (uint32_t i = 0; i < ring_count(d); i++) {
        msix_mask(m, 1 + i, true);
    }
}

/* A ring's vector is signalled once the driver asks for it, before it looks at the ring. */
static void test_vector(const struct device *d, const struct msix *m, uint32_t number)
{
    struct ring_completion done = {0};
    struct call c = small_echo();
    uint8_t vector = (uint8_t)(VECTOR + number);

    tap_begin("the vector of a ring reaches the local APIC");
    msix_route(m, 1 + number, vector, false);
    tap_true("nothing is requested yet", !apic_requested(vector));
    if (start_over(d, number)) {
        tap_true("nothing is there when it is armed", !ring_arm(&ring));
        ring_put(&ring, &c, 5);
        ring_publish(&ring);
        tap_true("it is requested", apic_wait(vector, PATIENCE_MS));
        tap_true("the completion is there by then", ring_take(&ring, &done));
        tap_check("its tag", done.tag, 5);
    }
    msix_mask(m, 1 + number, true);
    tap_end();
}

static void test_not_armed(const struct device *d, const struct msix *m)
{
    struct call c = small_echo();
    const uint8_t vector = VECTOR + 16;

    tap_begin("a driver that polls is not signalled");
    msix_route(m, 1, vector, false);
    if (start_over(d, 0)) {
        /* complete_event 0 is moved past by the first completion of a life only */
        tap_check("the first", ring_call(&ring, &c, PATIENCE_MS, &answer), OK);
        tap_true("its signal, which comes after it", apic_wait(vector, PATIENCE_MS));
    }
    msix_route(m, 1, vector + 1, false);
    for (unsigned i = 0; i < 20; i++) {
        tap_check("echo", ring_call(&ring, &c, PATIENCE_MS, &answer), OK);
    }
    tap_true("none of the others was signalled", !apic_requested(vector + 1));
    msix_mask(m, 1, true);
    tap_end();
}

static void test_masked(const struct device *d, const struct msix *m)
{
    struct ring_completion done;
    struct call c = small_echo();
    const uint8_t vector = VECTOR + 18;
    uint64_t end;

    tap_begin("a masked vector of a ring becomes pending, and is sent when it is unmasked");
    msix_route(m, 1, vector, true);
    if (start_over(d, 0)) {
        ring_arm(&ring);
        ring_put(&ring, &c, 6);
        ring_publish(&ring);
        tap_true("it completes", ring_wait(&ring, PATIENCE_MS, &done));
        end = cpu_after_ms(PATIENCE_MS); /* the signal comes after the completion */
        while (!msix_pending(m, 1) && cpu_tsc() < end) {
            cpu_pause();
        }
        tap_true("it is pending", msix_pending(m, 1));
        tap_true("and not requested", !apic_requested(vector));
        msix_mask(m, 1, false);
        tap_true("unmasked, it is requested", apic_wait(vector, PATIENCE_MS));
        tap_true("and not pending any more", !msix_pending(m, 1));
    }
    msix_mask(m, 1, true);
    tap_end();
}

/* While the device is kept busy it looks for new descriptors by itself. */
static void test_doorbells(const struct device *d)
{
    struct ring_completion done;
    struct call c = small_echo();
    uint32_t sent = 0, got = 0;

    tap_begin("doorbells are rung only when the device asks for them");
    if (start_over(d, 0)) {
        tap_check("the first descriptor needs one", ring.theirs->submit_event, 0);
        while (got < 1000) {
            while (sent < 1000 && sent - got < 16) {
                ring_put(&ring, &c, ++sent);
            }
            ring_publish(&ring);
            if (!ring_wait(&ring, PATIENCE_MS, &done)) {
                break;
            }
            got++;
        }
        tap_check("answers", got, 1000);
        tap_true("fewer doorbells than requests", ring.doorbells <= 1000);
        say("# 1000 requests, %u doorbells\n", ring.doorbells);
        for (unsigned i = 0; i < 50; i++) { /* with nothing submitted */
            reg_write(d, REG_RING_DOORBELL, i);
        }
        tap_check("doorbells for nothing do no harm", ring_call(&ring, &c, PATIENCE_MS, &answer),
                  OK);
    }
    tap_end();
}

static void expect_broken(const struct device *d)
{
    struct call c = small_echo();

    tap_true("STATUS says BROKEN", device_wait_flags(d, BROKEN, BROKEN, PATIENCE_MS));
    tap_true("the ring says so", ring.theirs->flags & RING_FLAG_BROKEN);
    tap_check("a window request is refused", device_call(d, &c, 0, &answer) == OK, 0);
    tap_check("REJECT_ERROR", reg_read(d, REG_REJECT_ERROR), DEVICE_BROKEN);
    if (start_over(d, 0)) {
        tap_check("STATUS after a reset", reg_read(d, REG_STATUS) & BROKEN, 0);
        tap_check("flags of the ring", ring.theirs->flags, 0);
        tap_check("complete_tail", ring.theirs->complete_tail, 0);
        tap_check("echo", ring_call(&ring, &c, PATIENCE_MS, &answer), OK);
    }
}

static void test_broken(const struct device *d)
{
    struct call c = small_echo();

    tap_begin("submit_tail jumps: BROKEN until a reset");
    if (start_over(d, 0)) {
        ring.ours->submit_tail = ring.entries + 1;
        reg_write(d, REG_RING_DOORBELL, 1);
        expect_broken(d);
    }
    tap_end();
    tap_begin("a descriptor of a slot that does not exist: BROKEN until a reset");
    if (start_over(d, 0)) {
        ring_put(&ring, &c, 1);
        ring.descs[0].slot = ring.entries;
        ring_publish(&ring);
        expect_broken(d);
    }
    tap_end();
}

static void test_reset(const struct device *d)
{
    uint32_t epoch = reg_read(d, REG_RESET_EPOCH);
    struct call slow = long_call(d);
    struct call c = small_echo();
    uint64_t end;
    uint32_t changed = 0;

    tap_begin("a reset with ring requests in flight");
    if (start_over(d, 0)) {
        for (uint64_t i = 0; i < 4; i++) {
            ring_put(&ring, &slow, i);
            slow.bufs[1].offset += 0x10000;
        }
        ring_publish(&ring);
        if (start_over(d, 0)) {
            memset(d->arena + LONG_OUT_OFFSET, 0xee, LONG_OUT_BYTES);
            tap_check("RESET_EPOCH", reg_read(d, REG_RESET_EPOCH), epoch + 2);
            tap_check("submit_tail", ring.ours->submit_tail, 0);
            tap_check("complete_tail", ring.theirs->complete_tail, 0);
            tap_check("echo", ring_call(&ring, &c, PATIENCE_MS, &answer), OK);
            end = cpu_after_ms(300);
            while (cpu_tsc() < end) {
                cpu_pause();
            }
            for (uint32_t i = 0; i < LONG_OUT_BYTES; i++) {
                changed += d->arena[LONG_OUT_OFFSET + i] != 0xee;
            }
            tap_check("bytes that somebody wrote after the reset", changed, 0);
            tap_check("no completion of the old life", ring.theirs->complete_tail, 1);
        }
    }
    tap_end();
}

void test_bells(const struct device *d)
{
    struct msix m;

    tap_begin("a vector per ring");
    if (!msix_open(d, &m)) {
        tap_skip("FEATURES has no MSIX");
    } else {
        tap_true("1 + RING_COUNT vectors at least", m.vectors >= 1 + ring_count(d));
        tap_end();
        apic_enable();
        drop_pending(d, &m);
        for (uint32_t i = 0; i < ring_count(d) && i < 4; i++) {
            test_vector(d, &m, i);
        }
        test_not_armed(d, &m);
        test_masked(d, &m);
        msix_control(&m, MSIX_FUNCTION_MASK);
    }
    test_doorbells(d);
    test_broken(d);
    test_reset(d);
}

/* Each completion is waited for by halting, so a lost message shows as a test that never ends. */
void test_interrupts(const struct device *d)
{
    struct call c = small_echo();
    struct ring_completion done;
    struct msix m;
    uint32_t before = interrupts_taken(), got = 0;

    tap_begin("completions wake a halted CPU by interrupts");
    if (!tap_true("MSI-X", msix_open(d, &m)) || !start_over(d, 0)) {
        tap_end();
        return;
    }
    msix_route(&m, 1, VECTOR, false);
    msix_control(&m, MSIX_ENABLE);
    interrupts_on();
    for (uint32_t i = 0; i < INTERRUPTS; i++) {
        ring_put(&ring, &c, i);
        ring_publish(&ring);
        for (;;) {
            interrupts_off();
            if (ring_take(&ring, &done)) {
                break;
            }
            if (!ring_arm(&ring)) {
                __asm__ volatile("sti; hlt" ::: "memory"); /* no gap between the two */
            }
        }
        got += done.error == OK && done.tag == i;
    }
    interrupts_off();
    msix_mask(&m, 1, true);
    msix_control(&m, MSIX_FUNCTION_MASK);
    tap_check("answers", got, INTERRUPTS);
    tap_true("interrupts were taken", interrupts_taken() > before);
    say("# %u requests, %u interrupts\n", INTERRUPTS, interrupts_taken() - before);
    tap_end();
}

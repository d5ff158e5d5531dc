/* SPDX-License-Identifier: MIT */
/* What happens while a request is in flight: another doorbell, cancel, deadline, reset. */
#include "tests/guest/cpu.h"
#include "tests/guest/tap.h"
#include "tests/guest/tests.h"

static uint8_t bytes[2048];
static struct answer answer;

/* Submits the long request with @deadline_ms; the caller's next access meets it in flight. */
static void start(const struct device *d, uint32_t deadline_ms)
{
    struct call c = long_call(d);

    c.deadline_ms = deadline_ms;
    device_write(d, bytes, call_encode(&c, 99, bytes));
    device_ring(d);
}

static void paint(const struct device *d)
{
    memset(d->arena + LONG_OUT_OFFSET, 0xee, LONG_OUT_BYTES);
}

/* The device gave the output range back: a late result must not appear in it. */
static void check_paint(const struct device *d, uint32_t ms)
{
    uint64_t end = cpu_after_ms(ms);
    uint32_t changed = 0;

    while (cpu_tsc() < end) {
        cpu_pause();
    }
    for (uint32_t i = 0; i < LONG_OUT_BYTES; i++) {
        changed += d->arena[LONG_OUT_OFFSET + i] != 0xee;
    }
    tap_check("bytes that somebody wrote after the end", changed, 0);
}

static void test_doorbell_while_busy(const struct device *d)
{
    uint32_t rejects = reg_read(d, REG_REJECTS);
    uint32_t id = reg_read(d, REG_REQUEST_ID);

    tap_begin("a doorbell while busy");
    start(d, PATIENCE_MS);
    device_ring(d);
    tap_check("state", reg_read(d, REG_STATUS) & STATE_MASK, STATE_BUSY);
    tap_check("REJECTS", reg_read(d, REG_REJECTS), rejects + 1);
    tap_check("REJECT_ERROR", reg_read(d, REG_REJECT_ERROR), BUSY);
    tap_check("REQUEST_ID", reg_read(d, REG_REQUEST_ID), id + 1);
    tap_check("ERROR while busy", reg_read(d, REG_ERROR), OK);
    tap_check("RESPONSE_LEN while busy", reg_read(d, REG_RESPONSE_LEN), 0);
    tap_check("response window while busy", reg_read(d, WINDOW_RESPONSE), 0);
    device_wait(d, PATIENCE_MS);
    device_read(d, &answer);
    tap_check("the first request's state", answer.state, STATE_DONE);
    tap_check("the first request's tag", answer.hdr.tag, 99);
    tap_end();
}

static void test_window_is_copied(const struct device *d)
{
    tap_begin("the window may change while the request is in flight");
    start(d, PATIENCE_MS);
    for (uint32_t at = 0; at < 192; at += 4) {
        reg_write(d, WINDOW_REQUEST + at, 0xffffffffu);
    }
    reg_write(d, REG_REQUEST_LEN, 3);
    device_wait(d, PATIENCE_MS);
    device_read(d, &answer);
    tap_check("state", answer.state, STATE_DONE);
    tap_check("tag", answer.hdr.tag, 99);
    tap_check("a pixel", d->arena[LONG_OUT_OFFSET + 5], 100);
    tap_end();
}

static void test_cancel(const struct device *d)
{
    tap_begin("CONTROL = CANCEL");
    start(d, PATIENCE_MS);
    reg_write(d, REG_CONTROL, CONTROL_CANCEL);
    tap_true("it ends at once", (device_wait(d, 5000) & STATE_MASK) != STATE_BUSY);
    paint(d);
    device_read(d, &answer);
    tap_check("state", answer.state, STATE_ERROR);
    tap_check("error", answer.error, CANCELLED);
    tap_check("tag", answer.hdr.tag, 99);
    reg_write(d, REG_CONTROL, CONTROL_CANCEL);
    tap_check("with nothing in flight it does nothing", reg_read(d, REG_ERROR), CANCELLED);
    test_echo_works(d);
    check_paint(d, 300);
    tap_end();
}

static void test_deadline(const struct device *d)
{
    uint64_t begin;
    uint64_t ms;

    tap_begin("a deadline that passes");
    begin = cpu_tsc();
    start(d, 30);
    device_wait(d, PATIENCE_MS);
    ms = cpu_div(cpu_ns(cpu_tsc() - begin), 1000000, NULL);
    paint(d);
    device_read(d, &answer);
    say("# ended after %U ms with %u: %s\n", ms, answer.error, (const char *)answer.payload);
    tap_check("state", answer.state, STATE_ERROR);
    tap_check("error", answer.error, DEADLINE);
    tap_true("not before the deadline", ms >= 28);
    tap_true("not long after it", ms < 5000);
    test_echo_works(d);
    check_paint(d, 300);
    tap_end();
}

static void test_reset(const struct device *d)
{
    uint32_t epoch = reg_read(d, REG_RESET_EPOCH);

    tap_begin("CONTROL = RESET with a request in flight");
    start(d, PATIENCE_MS);
    reg_write(d, REG_CONTROL, CONTROL_RESET);
    tap_check("state", reg_read(d, REG_STATUS) & STATE_MASK, STATE_IDLE);
    tap_check("RESET_EPOCH", reg_read(d, REG_RESET_EPOCH), epoch + 1);
    tap_check("REQUEST_LEN", reg_read(d, REG_REQUEST_LEN), 0);
    tap_check("REQUEST_ID", reg_read(d, REG_REQUEST_ID), 0);
    tap_check("ERROR", reg_read(d, REG_ERROR), 0);
    tap_check("REJECTS", reg_read(d, REG_REJECTS), 0);
    tap_check("REJECT_ERROR", reg_read(d, REG_REJECT_ERROR), 0);
    tap_check("request window", reg_read(d, WINDOW_REQUEST), 0);
    tap_check("response window", reg_read(d, WINDOW_RESPONSE), 0);
    if (reg_read(d, REG_STATUS) & RESETTING) {
        uint32_t rejects = reg_read(d, REG_REJECTS);

        say("# RESETTING was seen\n");
        device_ring(d);
        if (reg_read(d, REG_STATUS) & RESETTING) {
            tap_check("a doorbell meanwhile", reg_read(d, REG_REJECTS), rejects + 1);
        }
    }
    tap_true("RESETTING clears", device_wait_flags(d, RESETTING, 0, PATIENCE_MS));
    paint(d);
    device_wait(d, PATIENCE_MS); /* the doorbell above may have met the end of the reset */
    tap_true("BACKEND_UP returns", device_wait_flags(d, BACKEND_UP, BACKEND_UP, PATIENCE_MS));
    test_echo_works(d);
    check_paint(d, 300);
    tap_end();
}

static void test_priority(const struct device *d)
{
    uint32_t band = reg_read(d, REG_PRIORITY);

    tap_begin("PRIORITY takes a wish, clamped");
    tap_true("it is a band", band < 4);
    reg_write(d, REG_PRIORITY, 3);
    test_echo_works(d); /* an answer of the backend lies between the wish and the look at it */
    tap_true("still a band", reg_read(d, REG_PRIORITY) < 4);
    reg_write(d, REG_PRIORITY, 0xff);
    test_echo_works(d);
    tap_check("the default again", reg_read(d, REG_PRIORITY), band);
    tap_end();
}

void test_flight(const struct device *d)
{
    test_doorbell_while_busy(d);
    test_window_is_copied(d);
    test_cancel(d);
    test_deadline(d);
    test_priority(d);
    test_reset(d);
    test_reset(d);
}

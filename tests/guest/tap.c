/* SPDX-License-Identifier: MIT */
/* See tap.h. */
#include "tests/guest/cpu.h"
#include "tests/guest/tap.h"

static const char *current;
static uint32_t tests, failed_tests, failed_checks;

void tap_begin(const char *name)
{
    current = name;
    failed_checks = 0;
}

bool tap_check(const char *what, uint64_t got, uint64_t want)
{
    if (got != want) {
        failed_checks++;
        say("# %s: %s: got %U, expected %U\n", current, what, got, want);
    }
    return got == want;
}

bool tap_true(const char *what, bool holds)
{
    if (!holds) {
        failed_checks++;
        say("# %s: %s\n", current, what);
    }
    return holds;
}

void tap_end(void)
{
    tests++;
    if (failed_checks) {
        failed_tests++;
    }
    say("%s %u - %s\n", failed_checks ? "not ok" : "ok", tests, current);
}

void tap_skip(const char *why)
{
    tests++;
    say("ok %u - %s # SKIP %s\n", tests, current, why);
}

uint32_t tap_finish(void)
{
    say("1..%u\n", tests);
    say("# %u failed\n", failed_tests);
    return failed_tests;
}

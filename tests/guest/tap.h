/* SPDX-License-Identifier: MIT */
/* tap - test results on the serial port, in the Test Anything Protocol */
#ifndef GUEST_TAP_H
#define GUEST_TAP_H

#include <stdbool.h>
#include <stdint.h>

/** tap_begin() - name the test that the checks from now on belong to */
void tap_begin(const char *name);

/** tap_check() - one check of the current test; a failed one prints what it saw and expected */
bool tap_check(const char *what, uint64_t got, uint64_t want);

/** tap_true() - the same for a condition */
bool tap_true(const char *what, bool holds);

/** tap_end() - print the current test's line: ok, or not ok */
void tap_end(void);

/** tap_skip() - the current test cannot run here */
void tap_skip(const char *why);

/** tap_finish() - print the plan; returns how many tests failed */
uint32_t tap_finish(void);

#endif

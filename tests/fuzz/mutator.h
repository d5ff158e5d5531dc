/* SPDX-License-Identifier: MIT */
/*
 * mutator - a hostile peer in shared memory, in a second thread or between the target's steps
 *
 * It stores to the words of its patches again and again, first one value, then the other. A thread does
 * it while the fuzz target works on the same memory; what such an input does depends on timing: to
 * see a crash again run its file many times (FUZZER -runs=100000 FILE). Starting and stopping it takes
 * long, so that most inputs do without and call mutator_turn() between their steps.
 *
 * Its stores are atomic. Under ThreadSanitizer a plain access of the target to one of these words is
 * therefore reported: it could be made twice.
 */
#ifndef VGPU_TESTS_MUTATOR_H
#define VGPU_TESTS_MUTATOR_H

#include <stdint.h>

#define MUTATOR_PATCHES 32u

struct mutator_patch {
    uint64_t *word;
    uint64_t values[2];
};

/** mutator_turn() - store every patch once; @turn chooses the values */
void mutator_turn(const struct mutator_patch *patches, unsigned count, unsigned turn);

/** mutator_start() - store the patches' values from now on; they stay the caller's until stop */
void mutator_start(const struct mutator_patch *patches, unsigned count);

/** mutator_stop() - returns when the thread touches nothing any more */
void mutator_stop(void);

#endif

/* SPDX-License-Identifier: MIT */
#include "tests/fuzz/mutator.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>

/* Counters of coverage are not for two threads. */
#define NO_COVERAGE __attribute__((no_sanitize("coverage")))

static struct {
    const struct mutator_patch *patches;
    unsigned count;
    bool wanted;  /* written by the target */
    bool running; /* written by the thread */
} mutator;

NO_COVERAGE static bool is_wanted(void)
{
    return __atomic_load_n(&mutator.wanted, __ATOMIC_ACQUIRE);
}

NO_COVERAGE void mutator_turn(const struct mutator_patch *patches, unsigned count, unsigned turn)
{
    for (unsigned i = 0; i < count; i++) {
        __atomic_store_n(patches[i].word, patches[i].values[(turn + i) % 2], __ATOMIC_RELAXED);
    }
}

NO_COVERAGE static void *mutate(void *unused)
{
    (void)unused;
    for (;;) {
        while (!is_wanted()) {
            sched_yield();
        }
        __atomic_store_n(&mutator.running, true, __ATOMIC_RELEASE);
        for (unsigned turn = 0; is_wanted(); turn++) {
            mutator_turn(mutator.patches, mutator.count, turn);
        }
        __atomic_store_n(&mutator.running, false, __ATOMIC_RELEASE);
    }
    return NULL;
}

static void wait_until(bool running)
{
    while (__atomic_load_n(&mutator.running, __ATOMIC_ACQUIRE) != running) {
        sched_yield();
    }
}

void mutator_start(const struct mutator_patch *patches, unsigned count)
{
    static pthread_t thread;
    static bool there;

    if (!there) {
        there = pthread_create(&thread, NULL, mutate, NULL) == 0;
        if (!there) {
            abort();
        }
    }
    mutator.patches = patches;
    mutator.count = count;
    __atomic_store_n(&mutator.wanted, true, __ATOMIC_RELEASE);
    wait_until(true);
}

void mutator_stop(void)
{
    __atomic_store_n(&mutator.wanted, false, __ATOMIC_RELEASE);
    wait_until(false);
}

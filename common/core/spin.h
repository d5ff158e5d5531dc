/* SPDX-License-Identifier: MIT */
/*
 * spin - decide whether to poll on or to sleep
 *
 * Pure: time is passed in. Polling pays while work comes at shorter intervals than a wake-up costs.
 * The mean gap between pieces of work (exponentially weighted, 1/8) is kept; while it is below the
 * cap a poller that finds nothing polls on for at most the cap, otherwise it sleeps at once. A lone
 * piece of work after a long sleep therefore costs no polling, and a stream is polled for. A gap
 * counts as at most SPIN_GAP_MAX caps, so that one long pause is forgotten after some 20 pieces.
 */
#ifndef VGPU_CORE_SPIN_H
#define VGPU_CORE_SPIN_H

#include <stdbool.h>
#include <stdint.h>

struct spin {
    uint64_t cap_ns; /* 0: never poll */
    uint64_t gap_ns; /* mean, at most SPIN_GAP_MAX * cap_ns */
    uint64_t last_ns;
};

#define SPIN_GAP_MAX 8u

/** spin_init() - @cap_ns: longest time to poll without finding anything */
void spin_init(struct spin *s, uint64_t cap_ns);

/** spin_found() - polling, or a wake-up, found work */
void spin_found(struct spin *s, uint64_t now_ns);

/** spin_on() - nothing was found: whether to look again instead of sleeping */
bool spin_on(const struct spin *s, uint64_t now_ns);

/** spin_pause() - tell the CPU that this is a polling loop */
static inline void spin_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield" ::: "memory");
#else
    __asm__ volatile("" ::: "memory");
#endif
}

#endif

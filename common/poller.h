/* SPDX-License-Identifier: MIT */
/*
 * poller - lets a libuv loop poll shared memory for a while before it sleeps
 *
 * poll() looks at the owner's rings and serves what is there. While work flows it is called again and
 * again instead of sleeping in the kernel (policy: common/core/spin.h); the loop's other handles are
 * served in between, at least every POLLER_TURN_NS. Before the loop sleeps, arm() asks for bells; it
 * says whether something came meanwhile, then polling goes on. After a wake-up poll() is called once
 * in any case, so that bells need no more than their eventfd read.
 *
 * A loop that sleeps costs nothing: no timer, no idle handle is active then.
 */
#ifndef VGPU_POLLER_H
#define VGPU_POLLER_H

#include <uv.h>

#include "common/core/spin.h"

#define POLLER_TURN_NS 20000u

struct poller_ops {
    /* Serve what is there. Return: whether there was something. */
    bool (*poll)(void *user);
    /* The loop is about to sleep: ask for bells. Return: whether there is work already. */
    bool (*arm)(void *user);
};

/* Caller's storage. */
struct poller {
    struct spin spin;
    const struct poller_ops *ops;
    void *user;
    uv_prepare_t prepare;
    uv_check_t check;
    uv_idle_t awake;        /* active: the loop does not sleep */
    uint64_t polls, sleeps; /* for statistics */
};

/**
 * poller_start() - poll in @loop from its next turn on
 * @cap_ns: longest time to poll in vain; 0: only after wake-ups
 *
 * The handles do not keep the loop alive.
 */
void poller_start(struct poller *p, uv_loop_t *loop, uint64_t cap_ns, const struct poller_ops *ops,
                  void *user);

/** poller_set_cap() - another cap from now on */
void poller_set_cap(struct poller *p, uint64_t cap_ns);

/**
 * poller_stop() - close the handles; poll() and arm() are not called any more
 *
 * Also from inside poll() and arm(), more than once, and on zeroed storage that was never started. The
 * storage stays until the loop has run once more.
 */
void poller_stop(struct poller *p);

/**
 * poller_default_cap_ns() - what suits this process: 0 where fewer than @cpus_needed CPUs may be used
 * (who polls on the only CPU keeps the others from working), else @cap_ns
 */
uint64_t poller_default_cap_ns(unsigned cpus_needed, uint64_t cap_ns);

#endif

/* SPDX-License-Identifier: MIT */
#include "common/poller.h"

#include <sched.h>

#include "common/clock.h"

#define POLLS_PER_LOOK 16 /* at the clock */

static void on_awake(uv_idle_t *idle)
{
    (void)idle;
}

/* poll() and arm() may stop the poller. */
static bool stopped(const struct poller *p)
{
    return uv_is_closing((const uv_handle_t *)&p->prepare) != 0;
}

static void stay_awake(struct poller *p, bool awake)
{
    if (awake != (uv_is_active((uv_handle_t *)&p->awake) != 0)) {
        if (awake) {
            uv_idle_start(&p->awake, on_awake);
        } else {
            uv_idle_stop(&p->awake);
        }
    }
}

static bool poll_once(struct poller *p)
{
    if (stopped(p)) {
        return false;
    }
    p->polls++;
    return p->ops->poll(p->user);
}

/* Poll until the turn is over. Return: whether the loop has to come back at once. */
static bool poll_turn(struct poller *p)
{
    uint64_t now_ns = clock_now_ns();
    uint64_t until_ns = now_ns + POLLER_TURN_NS;

    do {
        for (int i = 0; i < POLLS_PER_LOOK; i++) {
            if (poll_once(p)) {
                spin_found(&p->spin, clock_now_ns());
                break;
            }
            spin_pause();
        }
        now_ns = clock_now_ns();
        if (stopped(p) || !spin_on(&p->spin, now_ns)) {
            return false;
        }
    } while (now_ns < until_ns);
    return true;
}

static void on_prepare(uv_prepare_t *prepare)
{
    struct poller *p = prepare->data;
    bool awake = false;

    if (spin_on(&p->spin, clock_now_ns())) {
        awake = poll_turn(p);
    }
    if (!awake && !stopped(p)) {
        awake = p->ops->arm(p->user);
        p->sleeps += !awake;
    }
    if (!stopped(p)) {
        stay_awake(p, awake);
    }
}

/* After the kernel was asked: bells were read by the owner's handles, or the loop did not sleep. */
static void on_check(uv_check_t *check)
{
    struct poller *p = check->data;

    if (poll_once(p)) {
        spin_found(&p->spin, clock_now_ns());
    }
}

void poller_start(struct poller *p, uv_loop_t *loop, uint64_t cap_ns, const struct poller_ops *ops,
                  void *user)
{
    *p = (struct poller){.ops = ops, .user = user};
    spin_init(&p->spin, cap_ns);
    uv_prepare_init(loop, &p->prepare);
    uv_check_init(loop, &p->check);
    uv_idle_init(loop, &p->awake);
    p->prepare.data = p->check.data = p;
    uv_prepare_start(&p->prepare, on_prepare);
    uv_check_start(&p->check, on_check);
    uv_unref((uv_handle_t *)&p->prepare);
    uv_unref((uv_handle_t *)&p->check);
    uv_unref((uv_handle_t *)&p->awake);
}

void poller_set_cap(struct poller *p, uint64_t cap_ns)
{
    if (cap_ns != p->spin.cap_ns) {
        spin_init(&p->spin, cap_ns);
    }
}

void poller_stop(struct poller *p)
{
    if (p->ops && !stopped(p)) {
        uv_close((uv_handle_t *)&p->prepare, NULL);
        uv_close((uv_handle_t *)&p->check, NULL);
        uv_close((uv_handle_t *)&p->awake, NULL);
    }
}

uint64_t poller_default_cap_ns(unsigned cpus_needed, uint64_t cap_ns)
{
    cpu_set_t cpus;

    if (sched_getaffinity(0, sizeof(cpus), &cpus) != 0) {
        return 0;
    }
    return (unsigned)CPU_COUNT(&cpus) >= cpus_needed ? cap_ns : 0;
}

/* SPDX-License-Identifier: MIT */
/* test_poller.c - a loop that polls shared memory before it sleeps: bells, turns, arming, stopping */
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/core/ring.h"
#include "common/poller.h"
#include "tests/unit/unit.h"

#define REQUESTS 20000u

/* A device's end of a ring in a loop, as the mediator and an executor have it. */
struct server {
    uv_loop_t loop;
    struct poller poller;
    struct ring_device ring;
    uv_poll_t bell;
    int kick, call;
    uint32_t served, stop_after;
    bool stop_in_arm;
    unsigned calls_after_stop;
    bool stopped;
};

static void stop(struct server *s)
{
    poller_stop(&s->poller);
    poller_stop(&s->poller); /* twice is fine */
    s->stopped = true;
    uv_close((uv_handle_t *)&s->bell, NULL);
}

static void signal_fd(int fd)
{
    uint64_t one = 1;

    ck_assert_int_eq(write(fd, &one, sizeof(one)), sizeof(one));
}

static void answer(struct server *s, const struct vgpu_desc *desc)
{
    struct vgpu_completion c = {.tag = desc->tag, .slot = desc->slot};

    ring_complete(&s->ring, &c);
    s->served++;
}

static bool on_poll(void *user)
{
    struct server *s = user;
    struct vgpu_desc desc;
    bool any = false;

    s->calls_after_stop += s->stopped;
    while (!s->stopped && ring_take(&s->ring, &desc) == 0) {
        answer(s, &desc);
        any = true;
    }
    if (ring_device_publish(&s->ring)) {
        signal_fd(s->call);
    }
    if (!s->stopped && s->stop_after && s->served >= s->stop_after && !s->stop_in_arm) {
        stop(s);
    }
    return any;
}

static bool on_arm(void *user)
{
    struct server *s = user;

    s->calls_after_stop += s->stopped;
    if (s->stop_after && s->served >= s->stop_after && s->stop_in_arm) {
        stop(s);
        return true;
    }
    return ring_device_arm(&s->ring);
}

static const struct poller_ops ops = {.poll = on_poll, .arm = on_arm};

static void on_bell(uv_poll_t *bell, int status, int events)
{
    uint64_t count;

    (void)events;
    ck_assert_int_eq(status, 0);
    ck_assert_int_eq(read(((struct server *)bell->data)->kick, &count, sizeof(count)),
                     sizeof(count));
}

static void server_open(struct server *s, void *memory, const struct ring_shape *shape,
                        uint64_t cap_ns)
{
    ck_assert_int_eq(uv_loop_init(&s->loop), 0);
    s->kick = eventfd(0, EFD_NONBLOCK);
    s->call = eventfd(0, 0);
    ring_device_init(&s->ring, memory, shape, 0, 0);
    poller_start(&s->poller, &s->loop, cap_ns, &ops, s);
    ck_assert_int_eq(uv_poll_init(&s->loop, &s->bell, s->kick), 0);
    s->bell.data = s;
    uv_poll_start(&s->bell, UV_READABLE, on_bell);
}

static void server_close(struct server *s)
{
    ck_assert_int_eq(uv_loop_close(&s->loop), 0);
    close(s->kick);
    close(s->call);
}

static void *run_loop(void *loop)
{
    uv_run(loop, UV_RUN_DEFAULT);
    return NULL;
}

/* Submit in bursts, collect, sleep on the call eventfd when arm allows it. */
static void drive(struct ring_driver *d, struct server *s)
{
    uint64_t seed = 5, count;
    uint32_t sent = 0, got = 0, slot;
    struct vgpu_completion c;

    while (got < REQUESTS) {
        uint64_t burst = 1 + unit_below(&seed, 12);

        while (burst-- > 0 && sent < REQUESTS && ring_slot_take(d, &slot) == 0) {
            ring_submit(d, slot, 64, sent++);
        }
        if (ring_driver_publish(d)) {
            signal_fd(s->kick);
        }
        while (ring_collect(d, &c) == 0) {
            ring_slot_give_back(d, c.slot);
            got++;
        }
        if (got < sent && !ring_driver_arm(d)) {
            ck_assert_int_eq(read(s->call, &count, sizeof(count)), sizeof(count));
        }
    }
}

static const struct {
    const char *what;
    uint64_t cap_ns;
    bool stop_in_arm;
} servers[] = {
    {"sleeps at once", 0, false},
    {"polls", 50000, false},
    {"polls longer than a turn", 500000, false},
    {"sleeps at once, stopped while arming", 0, true},
    {"polls, stopped while arming", 50000, true},
};

/* A loop in a thread serves a driver in another; whoever loses a wake-up hangs. */
START_TEST(serves_a_ring)
{
    static struct server s;
    const struct ring_shape shape = {16, 256};
    void *memory = aligned_alloc(VGPU_RING_PAGE, (size_t)ring_bytes(&shape));
    struct ring_driver d;
    pthread_t thread;

    memset(memory, 0, (size_t)ring_bytes(&shape));
    s = (struct server){.stop_after = REQUESTS, .stop_in_arm = servers[_i].stop_in_arm};
    ck_assert_int_eq(ring_driver_init(&d, memory, &shape, false), 0);
    server_open(&s, memory, &shape, servers[_i].cap_ns);
    ck_assert_int_eq(pthread_create(&thread, NULL, run_loop, &s.loop), 0);
    drive(&d, &s);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(s.served, REQUESTS);
    ck_assert_uint_eq(s.calls_after_stop, 0);
    ck_assert_uint_gt(s.poller.polls, 0);
    server_close(&s);
    ring_driver_fini(&d);
    free(memory);
}
END_TEST

/* ---- a loop alone ---- */

struct alone {
    uv_loop_t loop;
    struct poller poller;
    uv_timer_t timer;
    unsigned polls, arms;
    bool busy;
};

static bool alone_poll(void *user)
{
    struct alone *a = user;

    a->polls++;
    return a->busy;
}

static bool alone_arm(void *user)
{
    struct alone *a = user;

    a->arms++;
    return a->busy;
}

static const struct poller_ops alone_ops = {.poll = alone_poll, .arm = alone_arm};

static void on_timer(uv_timer_t *timer)
{
    struct alone *a = timer->data;

    poller_stop(&a->poller);
    uv_close((uv_handle_t *)timer, NULL);
}

static void alone_run(struct alone *a, uint64_t cap_ns, uint64_t ms)
{
    ck_assert_int_eq(uv_loop_init(&a->loop), 0);
    poller_start(&a->poller, &a->loop, cap_ns, &alone_ops, a);
    uv_timer_init(&a->loop, &a->timer);
    a->timer.data = a;
    uv_timer_start(&a->timer, on_timer, ms, 0);
    uv_run(&a->loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(uv_loop_close(&a->loop), 0);
}

/* With nothing to do the loop arms, sleeps until its timer, and asks a handful of times at most. */
START_TEST(an_idle_loop_sleeps)
{
    static struct alone a;

    memset(&a, 0, sizeof(a));
    alone_run(&a, _i * UINT64_C(50000), 100);
    ck_assert_uint_ge(a.arms, 1);
    ck_assert_uint_le(a.arms, 5);
    ck_assert_uint_le(a.polls, 5);
    ck_assert_uint_eq(a.poller.sleeps, a.arms);
}
END_TEST

/* Work that never ends does not keep the loop from its timers. */
START_TEST(a_busy_loop_serves_its_other_handles)
{
    static struct alone a;

    memset(&a, 0, sizeof(a));
    a.busy = true;
    alone_run(&a, 50000, 20);
    ck_assert_uint_gt(a.polls, 100);
}
END_TEST

START_TEST(the_poller_does_not_keep_the_loop_alive)
{
    static struct alone a;

    memset(&a, 0, sizeof(a));
    ck_assert_int_eq(uv_loop_init(&a.loop), 0);
    poller_start(&a.poller, &a.loop, 50000, &alone_ops, &a);
    uv_run(&a.loop, UV_RUN_DEFAULT);
    poller_stop(&a.poller);
    uv_run(&a.loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(uv_loop_close(&a.loop), 0);
}
END_TEST

START_TEST(one_that_was_never_started)
{
    static struct poller p;

    poller_stop(&p);
}
END_TEST

START_TEST(caps_are_set)
{
    struct poller p = {.ops = NULL};

    poller_set_cap(&p, 1000);
    ck_assert_uint_eq(p.spin.cap_ns, 1000);
    poller_set_cap(&p, 0);
    ck_assert_uint_eq(p.spin.cap_ns, 0);
    ck_assert_uint_eq(poller_default_cap_ns(1, 50000), 50000);
    ck_assert_uint_eq(poller_default_cap_ns(1000000, 50000), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("poller");
    TCase *tc = tcase_create("poller");

    tcase_add_loop_test(tc, serves_a_ring, 0, N_ELEMS(servers));
    tcase_add_loop_test(tc, an_idle_loop_sleeps, 0, 2);
    tcase_add_test(tc, a_busy_loop_serves_its_other_handles);
    tcase_add_test(tc, the_poller_does_not_keep_the_loop_alive);
    tcase_add_test(tc, one_that_was_never_started);
    tcase_add_test(tc, caps_are_set);
    suite_add_tcase(s, tc);
    return unit_run(s);
}

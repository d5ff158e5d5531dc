/* SPDX-License-Identifier: MIT */
/* test_mediator_core.c - the mediator's tables: sessions, jobs, liveness, classes, layouts */
#include <stddef.h>
#include <string.h>

#include "local-mediator/core/classes.h"
#include "local-mediator/core/jobstate.h"
#include "local-mediator/core/layout.h"
#include "local-mediator/core/liveness.h"
#include "local-mediator/core/session.h"
#include "proto/vgpu_local.h"
#include "tests/unit/unit.h"

/* ---- session ---- */

/* clang-format off */
static const struct session_case {
    const char *name;
    enum session_state state;
    uint16_t type;
    enum session_action action;
} session_cases[] = {
    {"HELLO comes first", SESSION_NEW, VGPU_MSG_HELLO, SESSION_GREET},
    {"nothing else comes first", SESSION_NEW, VGPU_MSG_REQUEST, SESSION_BAD},
    {"not even RESET", SESSION_NEW, VGPU_MSG_RESET, SESSION_BAD},
    {"one HELLO only", SESSION_OPEN, VGPU_MSG_HELLO, SESSION_BAD},
    {"requests when open", SESSION_OPEN, VGPU_MSG_REQUEST, SESSION_REQUEST},
    {"no request before RESET_ACK", SESSION_RESETTING, VGPU_MSG_REQUEST, SESSION_BAD},
    {"a newer reset while resetting", SESSION_RESETTING, VGPU_MSG_RESET, SESSION_RESET},
    {"a cancellation that crossed the reset", SESSION_RESETTING, VGPU_MSG_CANCEL, SESSION_IGNORE},
    {"refused: ignored", SESSION_REFUSED, VGPU_MSG_REQUEST, SESSION_IGNORE},
    {"a type of no stub", SESSION_OPEN, VGPU_MSG_RING, SESSION_BAD},
};
/* clang-format on */

START_TEST(sessions)
{
    const struct session_case *c = &session_cases[_i];

    ck_assert_msg(session_action(c->state, c->type) == c->action, "%s", c->name);
}
END_TEST

START_TEST(epochs)
{
    ck_assert(session_is_late(VGPU_MSG_REQUEST, 3, 4));
    ck_assert(!session_is_late(VGPU_MSG_REQUEST, 4, 4));
    ck_assert(!session_is_late(VGPU_MSG_RESET, 5, 4));
    ck_assert(!session_is_late(VGPU_MSG_HELLO, 0, 4));
    ck_assert(session_is_newer(5, 4));
    ck_assert(!session_is_newer(4, 4));
    ck_assert(!session_is_newer(3, 4));
    ck_assert(session_is_newer(0, UINT32_MAX)); /* wraps */
}
END_TEST

/* ---- jobs ---- */

START_TEST(a_job_from_start_to_end)
{
    static const enum job_event events[] = {JOB_EVENT_INPUTS, JOB_EVENT_ACCEPTED, JOB_EVENT_PICKED,
                                            JOB_EVENT_RETRY,  JOB_EVENT_PICKED,   JOB_EVENT_ANSWER,
                                            JOB_EVENT_SENT};
    enum job_state state = JOB_RECEIVING;

    for (size_t i = 0; i < N_ELEMS(events); i++) {
        ck_assert_int_eq(jobstate_next(state, events[i], &state), 0);
    }
    ck_assert_int_eq(state, JOB_ENDED);
}
END_TEST

/* clang-format off */
static const struct step_case {
    const char *name;
    enum job_state state;
    enum job_event event;
    int next; /* -1: the event does not fit */
} step_cases[] = {
    {"an ORDERED one waits before it is queued", JOB_ACCEPTING, JOB_EVENT_HELD, JOB_WAITING},
    {"and is queued when nothing earlier is left", JOB_WAITING, JOB_EVENT_ACCEPTED, JOB_QUEUED},
    {"waiting jobs are not picked", JOB_WAITING, JOB_EVENT_PICKED, -1},
    {"a writer is left", JOB_RUNNING, JOB_EVENT_UNWIND, JOB_ENDING},
    {"it is gone: again", JOB_ENDING, JOB_EVENT_RETRY, JOB_QUEUED},
    {"it is gone: the answer", JOB_ENDING, JOB_EVENT_ANSWER, JOB_SENDING},
    {"only what runs has a writer", JOB_QUEUED, JOB_EVENT_UNWIND, -1},
    {"not twice", JOB_ENDING, JOB_EVENT_UNWIND, -1},
    {"no input after the queue", JOB_QUEUED, JOB_EVENT_INPUTS, -1},
};
/* clang-format on */

START_TEST(steps)
{
    const struct step_case *c = &step_cases[_i];
    enum job_state next = c->state;
    int r = jobstate_next(c->state, c->event, &next);

    ck_assert_msg(c->next < 0 ? r == JOBSTATE_E_INVALID : r == 0 && (int)next == c->next, "%s",
                  c->name);
    ck_assert_str_ne(jobstate_name(c->state), "unknown");
}
END_TEST

START_TEST(every_state_can_be_dropped_and_answered_once)
{
    for (int state = JOB_RECEIVING; state < JOB_ENDED; state++) {
        enum job_state next;

        ck_assert_int_eq(jobstate_next((enum job_state)state, JOB_EVENT_DROP, &next), 0);
        ck_assert_int_eq(next, JOB_ENDED);
        ck_assert_int_eq(jobstate_next((enum job_state)state, JOB_EVENT_ANSWER, &next),
                         state == JOB_SENDING ? JOBSTATE_E_INVALID : 0);
    }
    for (int event = JOB_EVENT_INPUTS; event <= JOB_EVENT_DROP; event++) {
        enum job_state next;

        ck_assert_int_eq(jobstate_next(JOB_ENDED, (enum job_event)event, &next),
                         JOBSTATE_E_INVALID);
    }
}
END_TEST

/* clang-format off */
static const struct loss_case {
    const char *name;
    struct job_loss loss;
    uint32_t verdict;
} loss_cases[] = {
    {"first try", {.tries = 1}, VGPU_E_OK},
    {"second try", {.tries = 2}, VGPU_E_OK},
    {"third try", {.tries = 3}, VGPU_E_QUARANTINED},
    {"may not run twice", {.tries = 1, .no_retry = true}, VGPU_E_WORKER_LOST},
    {"ran too long", {.tries = 1, .too_long = true}, VGPU_E_JOB_TOO_LONG},
    {"ran too long and may not run twice", {.tries = 1, .no_retry = true, .too_long = true}, VGPU_E_JOB_TOO_LONG},
    {"was cancelled anyway", {.tries = 1, .cancelled = true}, VGPU_E_CANCELLED},
};
/* clang-format on */

START_TEST(losses)
{
    ck_assert_msg(jobstate_after_loss(&loss_cases[_i].loss) == loss_cases[_i].verdict, "%s",
                  loss_cases[_i].name);
}
END_TEST

/* ---- liveness ---- */

START_TEST(liveness)
{
    ck_assert_int_eq(liveness_of(100, 100, 10), LIVENESS_UP);
    ck_assert_int_eq(liveness_of(100, 129, 10), LIVENESS_UP);
    ck_assert_int_eq(liveness_of(100, 130, 10), LIVENESS_TORPID);
    ck_assert_int_eq(liveness_of(100, 159, 10), LIVENESS_TORPID);
    ck_assert_int_eq(liveness_of(100, 160, 10), LIVENESS_LOST);
    ck_assert_int_eq(liveness_of(100, 50, 10), LIVENESS_UP);
}
END_TEST

/* ---- classes ---- */

START_TEST(needs)
{
    const uint8_t gemm[] = {VGPU_DTYPE_F64, 0, 0, 0, 0, 0, 0, 0};
    const uint8_t odd[] = {200, 0, 0, 0, 0, 0, 0, 0};

    ck_assert_uint_eq(classes_need(VGPU_OP_GEMM, gemm, 8).dtype, VGPU_DTYPE_F64);
    ck_assert_uint_eq(classes_need(VGPU_OP_GEMM, odd, 8).dtype, CLASSES_ANY_DTYPE);
    ck_assert_uint_eq(classes_need(VGPU_OP_GEMM, gemm, 0).dtype, CLASSES_ANY_DTYPE);
    ck_assert_uint_eq(classes_need(VGPU_OP_ECHO, gemm, 8).dtype, CLASSES_ANY_DTYPE);
}
END_TEST

START_TEST(offers)
{
    const struct offer offer = {.ops = UINT64_C(1) << VGPU_OP_GEMM | UINT64_C(1) << 63,
                                .dtypes = 1 << VGPU_DTYPE_F32};

    ck_assert(classes_offers(&offer, (struct need){VGPU_OP_GEMM, VGPU_DTYPE_F32}));
    ck_assert(!classes_offers(&offer, (struct need){VGPU_OP_GEMM, VGPU_DTYPE_F64}));
    ck_assert(!classes_offers(&offer, (struct need){VGPU_OP_FFT, VGPU_DTYPE_F32}));
    ck_assert(classes_offers(&offer, (struct need){63, CLASSES_ANY_DTYPE}));
    ck_assert(!classes_offers(&offer, (struct need){64, CLASSES_ANY_DTYPE}));
    ck_assert(!classes_offers(&offer, (struct need){VGPU_OP_GEMM, 255}));
}
END_TEST

START_TEST(classes_are_shared_and_reused)
{
    struct classes c = {0};
    const struct offer all = {.ops = UINT64_MAX, .dtypes = UINT64_MAX};
    uint8_t first, again, other;

    ck_assert_int_eq(classes_get(&c, (struct need){16, 0}, &first), 0);
    ck_assert_int_eq(classes_get(&c, (struct need){16, 0}, &again), 0);
    ck_assert_uint_eq(first, again);
    ck_assert_int_eq(classes_get(&c, (struct need){17, 1}, &other), 0);
    ck_assert_uint_ne(first, other);
    ck_assert_uint_eq(classes_mask(&c, &all), UINT64_C(1) << first | UINT64_C(1) << other);
    classes_put(&c, first);
    classes_put(&c, again);
    ck_assert_uint_eq(classes_mask(&c, &all), UINT64_C(1) << other);
    for (uint32_t i = 0; i < SCHED_CLASSES - 1; i++) {
        ck_assert_int_eq(classes_get(&c, (struct need){18, (uint8_t)(i + 1)}, &again), 0);
    }
    ck_assert_int_eq(classes_get(&c, (struct need){19, 0}, &again), CLASSES_E_FULL);
    ck_assert_uint_eq(classes_mask(&c, &all), UINT64_MAX);
}
END_TEST

/* ---- the memory that a HELLO describes ---- */

/* A device of 64 MiB with 4 rings of 128 entries, as it is by default. */
static struct vgpu_hello good_hello(void)
{
    return (struct vgpu_hello){
        .features = VGPU_LOCAL_FEATURE_SHM,
        .arena_size = (64u << 20) - (8u << 20),
        .rings = 4,
        .ring_entries = 128,
        .slot_bytes = 4096,
        .shm_size = 64u << 20,
        .ring_offset = VGPU_SHM_CONTROL_SIZE,
        .ring_stride = 2u << 20,
        .arena_offset = (8u << 20),
    };
}

#define AT(field) offsetof(struct vgpu_hello, field), sizeof(((struct vgpu_hello *)0)->field)

/* clang-format off */
static const struct layout_case {
    const char *name;
    size_t offset, size; /* of the field that is changed; size 0: none */
    uint64_t value;
    const char *wrong; /* part of the sentence; NULL: it fits */
} layout_cases[] = {
    {"as it is", 0, 0, 0, "overlaps"}, /* 64 KiB + 8 MiB of rings reach into the arena */
    {"smaller stride", AT(ring_stride), 0x120000, NULL},
    {"entries that are no power of two", AT(ring_entries), 100, "power of two"},
    {"too many entries", AT(ring_entries), 8192, "power of two"},
    {"slots of no bytes", AT(slot_bytes), 0, "slot"},
    {"no rings", AT(rings), 0, "without rings"},
    {"too many rings", AT(rings), 65, "more than 64"},
    {"rings off a page", AT(ring_offset), VGPU_SHM_CONTROL_SIZE + 64, "aligned"},
    {"stride off a page", AT(ring_stride), 0x120040, "aligned"},
    {"rings that overlap", AT(ring_stride), 0x100000, "less than a ring takes"},
    {"no stride", AT(ring_stride), 0, "less than a ring takes"},
    {"rings behind the end", AT(ring_offset), 64u << 20, "outside"},
    {"an offset that overflows", AT(ring_offset), UINT64_MAX - 4095, "outside"},
    {"a stride that overflows", AT(ring_stride), UINT64_C(1) << 62, "outside"},
    {"an arena off a page", AT(arena_offset), (8u << 20) + 64, "aligned"},
    {"an arena outside", AT(arena_offset), 64u << 20, "outside"},
    {"an arena that overflows", AT(arena_offset), UINT64_MAX - 4095, "outside"},
    {"no arena", AT(arena_size), 0, "empty"},
    {"an arena beyond the end", AT(arena_size), (56u << 20) + 4096, "outside"},
    {"an arena in the rings", AT(arena_offset), 4u << 20, "overlaps"},
    {"too much memory", AT(shm_size), UINT64_C(1) << 37, "more memory"},
    {"rings without the offer", AT(features), 0, "does not offer"},
};
/* clang-format on */

START_TEST(layouts)
{
    const struct layout_case *c = &layout_cases[_i];
    struct vgpu_hello hello = good_hello();
    const char *wrong;

    if (_i > 0) {
        hello.ring_stride = 0x120000;
    }
    memcpy((uint8_t *)&hello + c->offset, &c->value, c->size);
    wrong = layout_check(&hello);
    ck_assert_msg(!wrong == !c->wrong && (!wrong || strstr(wrong, c->wrong)), "%s: %s", c->name,
                  wrong ? wrong : "it fits");
    ck_assert_uint_eq(layout_fds(&hello),
                      c->value == 0 && c->offset == offsetof(struct vgpu_hello, features) && c->size
                          ? 0
                          : 3u + 2u * hello.rings);
}
END_TEST

START_TEST(a_hello_without_shared_memory)
{
    struct vgpu_hello hello = {.arena_size = 1 << 20};

    ck_assert_ptr_null(layout_check(&hello));
    ck_assert_uint_eq(layout_fds(&hello), 0);
    hello.arena_size = VGPU_SHM_SIZE_MAX + 1;
    ck_assert_ptr_nonnull(layout_check(&hello));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("mediator core");
    TCase *tc = tcase_create("tables");

    tcase_add_loop_test(tc, sessions, 0, N_ELEMS(session_cases));
    tcase_add_test(tc, epochs);
    tcase_add_test(tc, a_job_from_start_to_end);
    tcase_add_loop_test(tc, steps, 0, N_ELEMS(step_cases));
    tcase_add_test(tc, every_state_can_be_dropped_and_answered_once);
    tcase_add_loop_test(tc, losses, 0, N_ELEMS(loss_cases));
    tcase_add_test(tc, liveness);
    tcase_add_test(tc, needs);
    tcase_add_test(tc, offers);
    tcase_add_test(tc, classes_are_shared_and_reused);
    tcase_add_loop_test(tc, layouts, 0, N_ELEMS(layout_cases));
    tcase_add_test(tc, a_hello_without_shared_memory);
    suite_add_tcase(s, tc);
    return unit_run(s);
}

/* SPDX-License-Identifier: MIT */
/*
 * test_mediator_inflight.c - the in-flight area: a mediator killed at any instruction loses nothing
 *
 * A child works through a script on shared memory, one processor instruction at a time
 * (PTRACE_SINGLESTEP). After each one the parent copies the memory and lets the next mediator adopt the
 * copy: every request must be in the ring still, or in flight, or answered; exactly one of these.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/core/ring.h"
#include "local-mediator/core/inflight.h"
#include "tests/unit/unit.h"

#define ENTRIES 64u
#define REQUESTS 20u
#define SLOTS 5u /* so that each is used several times */
#define EPOCH 7u
#define GEN 99u
#define TAG(k) (1000u + (k))
#define BEFORE_WRAP UINT64_C(0x1fffffff0) /* indices wrap in the middle of the script */

static const struct ring_shape shape = {.entries = ENTRIES, .slot_bytes = 256};

/* Everything that outlives a mediator. */
struct world {
    _Alignas(4096) uint8_t ring[65536];
    _Alignas(64) uint8_t area[64 + 64 + 64 * ENTRIES];
};

static struct inflight map_area(struct world *w)
{
    struct inflight f;

    inflight_map(&f, w->area, 1, ENTRIES);
    return f;
}

static struct world *new_world(uint64_t base)
{
    struct world *w =
        mmap(NULL, sizeof(*w), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct inflight f;

    ck_assert_ptr_ne(w, MAP_FAILED);
    ck_assert_uint_le(ring_bytes(&shape), sizeof(w->ring));
    f = map_area(w);
    inflight_reset(&f, EPOCH, GEN);
    f.rings[0].submit_count = base;
    f.rings[0].complete_tail = (uint32_t)base;
    return w;
}

/* ---- the script: what a mediator does ---- */

struct script {
    struct world *world;
    struct inflight area;
    struct ring_device dev;
    uint64_t count;
    uint32_t in_slot[SLOTS]; /* request + 1; 0: none */
};

static void begin(struct script *s, struct world *w, uint64_t base)
{
    *s = (struct script){.world = w, .area = map_area(w), .count = base};
    ring_device_init(&s->dev, w->ring, &shape, (uint32_t)base, (uint32_t)base);
}

static void take(struct script *s, uint32_t request, uint32_t slot)
{
    const struct vgpu_inflight_slot record = {
        .index = (uint32_t)s->count,
        .seq = VGPU_RING_SEQ(0, s->count + 1),
        .tag = TAG(request),
        .length = 48,
        .deadline_ns = 5,
    };

    s->count++;
    s->in_slot[slot] = request + 1;
    inflight_take(&s->area, 0, slot, &record);
}

static void answer(struct script *s, uint32_t slot)
{
    struct vgpu_completion completion = {
        .tag = TAG(s->in_slot[slot] - 1), .slot = slot, .error = slot % 3 == 0};

    s->in_slot[slot] = 0;
    ring_complete(&s->dev, &completion);
    inflight_complete(&s->area, 0, slot, s->dev.complete_tail - 1, completion.error);
}

static void run_script(struct world *w, uint64_t base)
{
    struct script s;
    uint32_t request = 0;

    begin(&s, w, base);
    for (uint32_t step = 0; request < REQUESTS; step++) {
        uint32_t slot = step * 3 % SLOTS; /* out of order */

        if (!s.in_slot[slot]) {
            take(&s, request++, slot);
        } else if (step % 3) {
            inflight_start(&s.area, 0, slot);
        } else {
            answer(&s, slot);
            ring_device_publish(&s.dev);
        }
        if (step % 16 == 15) {
            inflight_forget_failures(&s.area, 0);
        }
    }
}

/* ---- what must be true at any time ---- */

static uint32_t times_answered(const struct inflight *f, const struct ring_map *map,
                               uint32_t request, uint64_t base)
{
    uint32_t times = 0;

    for (uint32_t i = (uint32_t)base; i != f->rings[0].complete_tail; i++) {
        times += map->completions[i % ENTRIES].tag == TAG(request);
    }
    return times;
}

static uint32_t times_in_flight(const struct inflight *f, uint32_t request)
{
    uint32_t slots[ENTRIES];
    uint32_t count = inflight_in_order(f, 0, slots);
    uint32_t times = 0;

    for (uint32_t i = 0; i < count; i++) {
        times += inflight_slot(f, 0, slots[i])->tag == TAG(request);
    }
    return times;
}

/* Let the next mediator take over a copy. */
static void check_takeover(const struct world *w, uint64_t base)
{
    static struct world copy;
    struct inflight f = map_area(&copy);
    struct ring_map map;
    uint64_t taken;

    memcpy(&copy, w, sizeof(copy));
    ck_assert_int_eq(inflight_adopt(&f, EPOCH, GEN + 1), 0);
    ring_map(&map, copy.ring, &shape);
    taken = f.rings[0].submit_count - base;
    ck_assert_uint_le(taken, REQUESTS);
    for (uint32_t k = 0; k < REQUESTS; k++) {
        uint32_t there = times_answered(&f, &map, k, base) + times_in_flight(&f, k);

        ck_assert_msg(there == (k < taken), "request %u is there %u times, %lu were taken", k,
                      there, (unsigned long)taken);
    }
    ck_assert_int_eq(inflight_adopt(&f, EPOCH, GEN + 2), 0);
}

/* Run @body in a child and look at the world after each of its instructions. */
static void step_through(struct world *w, void (*body)(struct world *w, uint64_t base),
                         uint64_t base)
{
    unsigned long steps = 0;
    pid_t child = fork();
    int status;

    ck_assert_int_ge(child, 0);
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0) {
            _exit(77);
        }
        raise(SIGSTOP);
        body(w, base);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFSTOPPED(status), "this test needs ptrace()");
    for (;;) {
        static uint8_t before[sizeof(w->area)];

        memcpy(before, w->area, sizeof(before));
        ck_assert_int_eq(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL), 0);
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        if (!WIFSTOPPED(status)) {
            break;
        }
        if (memcmp(before, w->area, sizeof(before)) != 0) {
            steps++;
            check_takeover(w, base);
        }
    }
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    ck_assert_uint_gt(steps, 0);
}

START_TEST(killed_at_any_instruction)
{
    struct world *w = new_world(0);

    step_through(w, run_script, 0);
    munmap(w, sizeof(*w));
}
END_TEST

START_TEST(killed_at_any_instruction_while_indices_wrap)
{
    struct world *w = new_world(BEFORE_WRAP);

    step_through(w, run_script, BEFORE_WRAP);
    munmap(w, sizeof(*w));
}
END_TEST

static void adopt(struct world *w, uint64_t base)
{
    struct inflight f = map_area(w);

    (void)base;
    inflight_adopt(&f, EPOCH, GEN + 1);
}

/* The next mediator is killed too, while it adopts. */
START_TEST(killed_while_adopting)
{
    struct world *w = new_world(0);
    struct inflight f = map_area(w);

    run_script(w, 0);
    for (uint32_t i = 0; i < SLOTS; i++) {
        struct vgpu_inflight_slot *s = inflight_slot(&f, 0, i);

        if (s->state == VGPU_INFLIGHT_STARTED) { /* as if killed right after this store */
            ((struct vgpu_completion *)(w->ring + VGPU_RING_COMPLETIONS(
                                                      ENTRIES)))[f.rings[0].complete_tail % ENTRIES]
                .tag = s->tag;
            s->complete_index = f.rings[0].complete_tail;
            s->error = 1;
            s->state = VGPU_INFLIGHT_COMPLETING;
            break;
        }
    }
    step_through(w, adopt, 0);
    ck_assert_uint_eq(f.rings[0].failed, 1);
    munmap(w, sizeof(*w));
}
END_TEST

/* ---- what is not believed ---- */

static void take_two(struct world *w)
{
    struct script s;

    begin(&s, w, 0);
    take(&s, 0, 3);
    take(&s, 1, 5);
    inflight_start(&s.area, 0, 3);
}

START_TEST(other_lives_and_new_areas_are_empty)
{
    struct world *w = new_world(0);
    struct inflight f = map_area(w);

    take_two(w);
    ck_assert_int_eq(inflight_adopt(&f, EPOCH + 1, GEN), INFLIGHT_E_NONE);
    memset(w->area, 0, sizeof(w->area));
    ck_assert_int_eq(inflight_adopt(&f, EPOCH, GEN), INFLIGHT_E_NONE);
    munmap(w, sizeof(*w));
}
END_TEST

START_TEST(order_and_contents)
{
    struct world *w = new_world(0);
    struct inflight f = map_area(w);
    uint32_t slots[ENTRIES];

    take_two(w);
    ck_assert_int_eq(inflight_adopt(&f, EPOCH, GEN), 0);
    ck_assert_uint_eq(inflight_in_order(&f, 0, slots), 2);
    ck_assert(slots[0] == 3 && slots[1] == 5);
    ck_assert_int_eq(inflight_slot(&f, 0, 3)->state, VGPU_INFLIGHT_STARTED);
    ck_assert_int_eq(inflight_slot(&f, 0, 5)->state, VGPU_INFLIGHT_TAKEN);
    ck_assert_uint_eq(inflight_slot(&f, 0, 5)->tag, TAG(1));
    inflight_break(&f);
    ck_assert_int_eq(inflight_adopt(&f, EPOCH, GEN), INFLIGHT_E_BROKEN);
    munmap(w, sizeof(*w));
}
END_TEST

/* A word of the area, in units of 32 bits, and what somebody wrote there. */
/* clang-format off */
static const struct damage {
    const char *what;
    size_t word;
    uint32_t value;
    int outcome;
} damages[] = {
    {"another magic", 0, 0x12345678, INFLIGHT_E_VOID},
    {"another version", 1, 2 | 1 << 16, INFLIGHT_E_VOID},
    {"other rings", 1, 1 | 2 << 16, INFLIGHT_E_VOID},
    {"other entries", 2, 128, INFLIGHT_E_VOID},
    {"an unknown flag", 6, 2, INFLIGHT_E_VOID},
    {"fewer descriptors than are in flight", 16, 0, INFLIGHT_E_VOID},
    {"more descriptors than are in flight", 16, 3, INFLIGHT_E_VOID},
    {"more completions than descriptors", 18, 1, INFLIGHT_E_VOID},
    {"failed is neither 0 nor 1", 19, 2, INFLIGHT_E_VOID},
    {"an unknown state", 32 + 16 * 3, 4, INFLIGHT_E_VOID},
    {"a request lost", 32 + 16 * 3, VGPU_INFLIGHT_FREE, INFLIGHT_E_VOID},
    {"a completion far away", 32 + 16 * 3, VGPU_INFLIGHT_COMPLETING, 0}, /* index 0 is the next */
    {"another index", 32 + 16 * 3 + 1, 1, INFLIGHT_E_VOID},
    {"another count", 32 + 16 * 3 + 2, 2, INFLIGHT_E_VOID},
    {"another ring", 32 + 16 * 3 + 3, 2 << 16, INFLIGHT_E_VOID},
    {"a request that never was", 32 + 16 * 9, VGPU_INFLIGHT_STARTED, INFLIGHT_E_VOID},
};
/* clang-format on */

START_TEST(damage_is_noticed)
{
    const struct damage *d = &damages[_i];
    struct world *w = new_world(0);
    struct inflight f = map_area(w);
    uint32_t value = d->value;

    take_two(w);
    memcpy(w->area + 4 * d->word, &value, sizeof(value));
    ck_assert_msg(inflight_adopt(&f, EPOCH, GEN) == d->outcome, "%s", d->what);
    munmap(w, sizeof(*w));
}
END_TEST

START_TEST(the_same_request_twice)
{
    struct world *w = new_world(0);
    struct inflight f = map_area(w);

    take_two(w);
    *inflight_slot(&f, 0, 5) = *inflight_slot(&f, 0, 3);
    ck_assert_int_eq(inflight_adopt(&f, EPOCH, GEN), INFLIGHT_E_VOID);
    munmap(w, sizeof(*w));
}
END_TEST

/* Whatever lies there: no crash, and what is adopted fits. */
START_TEST(noise)
{
    uint64_t seed = 1;
    struct world *w = new_world(0);
    struct inflight f = map_area(w);
    uint32_t slots[ENTRIES];

    for (int round = 0; round < 2000; round++) {
        inflight_reset(&f, EPOCH, GEN);
        take_two(w);
        for (uint64_t i = unit_below(&seed, 8) + 1; i > 0; i--) {
            w->area[unit_below(&seed, sizeof(w->area))] = (uint8_t)unit_random(&seed);
        }
        if (inflight_adopt(&f, EPOCH, GEN) == 0) {
            ck_assert_uint_eq(inflight_in_order(&f, 0, slots),
                              (uint32_t)f.rings[0].submit_count - f.rings[0].complete_tail);
        }
    }
    munmap(w, sizeof(*w));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mediator_inflight");
    TCase *tc = tcase_create("inflight");

    tcase_add_test(tc, killed_at_any_instruction);
    tcase_add_test(tc, killed_at_any_instruction_while_indices_wrap);
    tcase_add_test(tc, killed_while_adopting);
    tcase_add_test(tc, other_lives_and_new_areas_are_empty);
    tcase_add_test(tc, order_and_contents);
    tcase_add_loop_test(tc, damage_is_noticed, 0, N_ELEMS(damages));
    tcase_add_test(tc, the_same_request_twice);
    tcase_add_test(tc, noise);
    suite_add_tcase(suite, tc);
    return unit_run(suite);
}

/* SPDX-License-Identifier: MIT */
/*
 * test_ring.c - both ends of a ring: against each other, against a hostile peer, with two threads, and
 * models of the event index and of going to sleep
 */
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include "common/core/ring.h"
#include "tests/unit/unit.h"

#define ENTRIES_MOST 256

static const struct ring_shape small = {16, 256};

/* One ring and both its ends. */
struct rig {
    struct ring_shape shape;
    void *memory;
    struct ring_driver driver;
    struct ring_device device;
};

/* Both ends as they are after @start requests: indices are free running, so any start is possible. */
static void rig_open_at(struct rig *rig, const struct ring_shape *shape, uint32_t start)
{
    size_t bytes = (size_t)ring_bytes(shape);

    rig->shape = *shape;
    rig->memory = aligned_alloc(VGPU_RING_PAGE, bytes);
    ck_assert_ptr_nonnull(rig->memory);
    memset(rig->memory, 0xa5, bytes); /* only the two pages are zero after a reset */
    ck_assert_int_eq(ring_driver_init(&rig->driver, rig->memory, shape, false), 0);
    ring_zero(&rig->driver.map);
    rig->driver.submit_tail = rig->driver.published = rig->driver.complete_head = start;
    rig->driver.map.driver->submit_tail = rig->driver.map.driver->complete_event = start;
    rig->driver.map.device->submit_event = start;
    ring_device_init(&rig->device, rig->memory, shape, start, start);
}

static void rig_open(struct rig *rig)
{
    rig_open_at(rig, &small, 0);
}

static void rig_close(struct rig *rig)
{
    ring_driver_fini(&rig->driver);
    ring_driver_fini(&rig->driver);
    free(rig->memory);
}

/* Submit a request of one word. Return: its slot. */
static uint32_t submit(struct rig *rig, uint64_t tag)
{
    uint32_t slot;

    ck_assert_int_eq(ring_slot_take(&rig->driver, &slot), 0);
    memcpy(ring_request(&rig->driver.map, slot), &tag, sizeof(tag));
    ring_submit(&rig->driver, slot, sizeof(tag), tag);
    return slot;
}

static void complete(struct rig *rig, const struct vgpu_desc *desc)
{
    uint64_t word;
    struct vgpu_completion c = {.tag = desc->tag, .slot = desc->slot, .length = sizeof(word)};

    ring_copy_in(&word, ring_request(&rig->device.map, desc->slot), sizeof(word));
    word = ~word;
    memcpy(ring_response(&rig->device.map, desc->slot), &word, sizeof(word));
    ring_complete(&rig->device, &c);
}

/* Collect one completion, check the bytes that came with it, give its slot back. Return: its tag. */
static uint64_t collect(struct rig *rig)
{
    struct vgpu_completion c;
    uint64_t word;

    ck_assert_int_eq(ring_collect(&rig->driver, &c), 0);
    ck_assert_uint_eq(c.length, sizeof(word));
    ring_copy_in(&word, ring_response(&rig->driver.map, c.slot), sizeof(word));
    ck_assert_uint_eq(word, ~c.tag);
    ring_slot_give_back(&rig->driver, c.slot);
    return c.tag;
}

/* ---- layout ---- */

static const struct {
    const char *what;
    struct ring_shape shape;
    bool possible;
} shapes[] = {
    {"the smallest", {16, 256}, true},
    {"the default", {128, 4096}, true},
    {"the largest", {4096, 65536}, true},
    {"a job ring", {64, 4160}, true},
    {"no entries", {0, 4096}, false},
    {"too few entries", {8, 4096}, false},
    {"too many entries", {8192, 4096}, false},
    {"entries that are no power of two", {48, 4096}, false},
    {"all bits of entries", {UINT32_MAX, 4096}, false},
    {"the top bit of entries", {1u << 31, 4096}, false},
    {"no bytes", {128, 0}, false},
    {"too few bytes", {128, 192}, false},
    {"bytes that are no multiple of 64", {128, 4097}, false},
    {"too many bytes", {128, 65600}, false},
    {"bytes that overflow", {4096, 0xffffffc0}, false},
};

START_TEST(shapes_are_checked)
{
    const char *wrong = ring_shape_check(&shapes[_i].shape);

    ck_assert_msg(!wrong == shapes[_i].possible, "%s: %s", shapes[_i].what, wrong ? wrong : "ok");
}
END_TEST

/* The parts of a ring lie where vgpu_regs.h says, in the ring, and do not overlap. */
START_TEST(parts_lie_in_the_ring)
{
    const struct ring_shape *shape = &shapes[_i].shape;
    uint64_t bytes = ring_bytes(shape);
    uint8_t *base = aligned_alloc(VGPU_RING_PAGE, (size_t)bytes);
    struct ring_map map;

    ring_map(&map, base, shape);
    ck_assert_uint_eq(bytes % VGPU_RING_PAGE, 0);
    ck_assert_ptr_eq(map.driver, base);
    ck_assert_ptr_eq(map.device, base + 4096);
    ck_assert_ptr_eq(map.descs, base + 8192);
    ck_assert_ptr_eq(map.completions, map.descs + shape->entries);
    ck_assert(map.slots >= (uint8_t *)(map.completions + shape->entries));
    ck_assert_ptr_eq(ring_response(&map, 0), ring_request(&map, 0) + shape->slot_bytes);
    ck_assert(ring_request(&map, 1) >= ring_response(&map, 0) + shape->slot_bytes);
    ck_assert(ring_response(&map, shape->entries - 1) + shape->slot_bytes <= base + bytes);
    ck_assert_uint_eq((uintptr_t)ring_request(&map, shape->entries - 1) % 64, 0);
    free(base);
}
END_TEST

START_TEST(copies_of_any_length)
{
    _Alignas(8) uint8_t from[40];
    uint8_t to[42];

    for (size_t i = 0; i < sizeof(from); i++) {
        from[i] = (uint8_t)(i + 1);
    }
    for (size_t n = 0; n <= sizeof(from); n++) {
        memset(to, 0, sizeof(to));
        ring_copy_in(to + 1, from, n); /* an odd destination */
        ck_assert_mem_eq(to + 1, from, n);
        ck_assert_uint_eq(to[0], 0);
        ck_assert_uint_eq(to[n + 1], 0);
    }
}
END_TEST

/* ---- both ends against each other ---- */

START_TEST(one_request)
{
    struct vgpu_desc desc;
    struct rig rig;
    uint32_t slot;

    rig_open(&rig);
    ck_assert_int_eq(ring_take(&rig.device, &desc), RING_E_EMPTY);
    slot = submit(&rig, 77);
    ck_assert_int_eq(ring_take(&rig.device, &desc), RING_E_EMPTY); /* not published yet */
    ck_assert(ring_driver_publish(&rig.driver));
    ck_assert(!ring_driver_publish(&rig.driver)); /* nothing new */
    ck_assert_uint_eq(ring_waiting(&rig.device), 1);
    ck_assert_int_eq(ring_take(&rig.device, &desc), 0);
    ck_assert_uint_eq(desc.slot, slot);
    ck_assert_uint_eq(desc.length, 8);
    ck_assert_uint_eq(desc.tag, 77);
    ck_assert_uint_eq(ring_waiting(&rig.device), 0);
    complete(&rig, &desc);
    ck_assert(ring_device_publish(&rig.device));
    ck_assert(!ring_device_publish(&rig.device));
    ck_assert_uint_eq(collect(&rig), 77);
    ck_assert_uint_eq(rig.driver.in_use, 0);
    rig_close(&rig);
}
END_TEST

/* The driver's fence was lost: it looked at submit_event before the device had armed. */
START_TEST(a_bell_that_was_not_rung)
{
    struct vgpu_desc desc;
    struct rig rig;

    rig_open(&rig);
    ck_assert(!ring_driver_unheard(&rig.driver)); /* nothing there */
    submit(&rig, 1);
    ck_assert(!ring_driver_unheard(&rig.driver)); /* not published */
    ck_assert(ring_driver_publish(&rig.driver));
    ck_assert(ring_driver_unheard(&rig.driver));
    ck_assert_int_eq(ring_take(&rig.device, &desc), 0);
    ck_assert(!ring_device_arm(&rig.device));
    ck_assert(!ring_driver_unheard(&rig.driver)); /* it sleeps and has it all */
    submit(&rig, 2);
    ck_assert(ring_driver_publish(&rig.driver));
    ck_assert(ring_driver_unheard(&rig.driver));
    complete(&rig, &desc);
    ring_device_publish(&rig.device);
    collect(&rig);
    ck_assert(ring_driver_unheard(&rig.driver));
    ck_assert_int_eq(ring_take(&rig.device, &desc), 0);
    complete(&rig, &desc);
    ring_device_publish(&rig.device);
    collect(&rig);
    ck_assert(!ring_driver_unheard(&rig.driver)); /* an old event: the device is at work */
    rig_close(&rig);
}
END_TEST

START_TEST(a_full_ring)
{
    struct vgpu_desc desc[16];
    struct vgpu_completion c;
    struct rig rig;
    uint32_t slot;

    rig_open(&rig);
    for (uint64_t i = 0; i < 16; i++) {
        submit(&rig, i);
    }
    ck_assert_int_eq(ring_slot_take(&rig.driver, &slot), RING_E_FULL);
    ring_driver_publish(&rig.driver);
    ck_assert_uint_eq(ring_waiting(&rig.device), 16);
    for (uint64_t i = 0; i < 16; i++) {
        ck_assert_int_eq(ring_take(&rig.device, &desc[i]), 0);
        ck_assert_uint_eq(desc[i].tag, i);
    }
    ck_assert_int_eq(ring_take(&rig.device, &desc[0]), RING_E_EMPTY);
    /* Taken is not completed: there is no slot to submit with yet. */
    ck_assert_int_eq(ring_slot_take(&rig.driver, &slot), RING_E_FULL);
    for (unsigned i = 16; i-- > 0;) { /* last in, first out */
        complete(&rig, &desc[i]);
    }
    ck_assert_int_eq(ring_collect(&rig.driver, &c), RING_E_EMPTY); /* not published yet */
    ring_device_publish(&rig.device);
    for (uint64_t i = 16; i-- > 0;) {
        ck_assert_uint_eq(collect(&rig), i);
    }
    ck_assert_int_eq(ring_collect(&rig.driver, &c), RING_E_EMPTY);
    rig_close(&rig);
}
END_TEST

/* A slot that was taken and not submitted comes back; a collected one stays in use until it does. */
START_TEST(slots_come_back)
{
    struct vgpu_desc desc;
    struct vgpu_completion c;
    uint32_t slots[16], again;
    struct rig rig;

    rig_open(&rig);
    for (unsigned i = 0; i < 16; i++) {
        ck_assert_int_eq(ring_slot_take(&rig.driver, &slots[i]), 0);
        for (unsigned k = 0; k < i; k++) {
            ck_assert_uint_ne(slots[k], slots[i]);
        }
    }
    ring_slot_give_back(&rig.driver, slots[3]);
    ck_assert_int_eq(ring_slot_take(&rig.driver, &again), 0);
    ck_assert_uint_eq(again, slots[3]);
    ring_submit(&rig.driver, again, 8, 1);
    ring_driver_publish(&rig.driver);
    ck_assert_int_eq(ring_take(&rig.device, &desc), 0);
    complete(&rig, &desc);
    ring_device_publish(&rig.device);
    ck_assert_int_eq(ring_collect(&rig.driver, &c), 0);
    ck_assert_int_eq(ring_slot_take(&rig.driver, &again), RING_E_FULL);
    ring_slot_give_back(&rig.driver, c.slot);
    ck_assert_int_eq(ring_slot_take(&rig.driver, &again), 0);
    rig_close(&rig);
}
END_TEST

/* What happened so far, and what must be true at any time. */
struct history {
    uint64_t submitted, taken, completed, collected;
    struct vgpu_desc held[ENTRIES_MOST]; /* taken and not completed */
    unsigned n_held;
    bool seen[4096];
};

static void check_history(const struct rig *rig, const struct history *h, uint32_t start)
{
    ck_assert_uint_eq(rig->driver.submit_tail, start + (uint32_t)h->submitted);
    ck_assert_uint_eq(rig->device.submit_head, start + (uint32_t)h->taken);
    ck_assert_uint_eq(rig->device.complete_tail, start + (uint32_t)h->completed);
    ck_assert_uint_eq(rig->driver.complete_head, start + (uint32_t)h->collected);
    ck_assert_uint_eq(rig->driver.in_use, h->submitted - h->collected);
    ck_assert_uint_le(h->submitted - h->collected, rig->shape.entries);
    ck_assert_ptr_null(rig->driver.wrong);
    ck_assert_ptr_null(rig->device.wrong);
}

static void random_step(struct rig *rig, struct history *h, uint64_t *seed)
{
    uint32_t visible;
    unsigned pick;

    switch (unit_below(seed, 6)) {
    case 0:
    case 1:
        if (rig->driver.in_use < rig->shape.entries && h->submitted < N_ELEMS(h->seen)) {
            submit(rig, h->submitted++);
        }
        break;
    case 2:
        ring_driver_publish(&rig->driver);
        break;
    case 3:
        visible = rig->driver.published - rig->device.submit_head;
        ck_assert_uint_eq(ring_waiting(&rig->device), visible);
        if (visible > 0) {
            ck_assert_int_eq(ring_take(&rig->device, &h->held[h->n_held]), 0);
            ck_assert_uint_eq(h->held[h->n_held++].tag, h->taken++);
        }
        break;
    case 4:
        if (h->n_held > 0) { /* any of them: completions come in any order */
            pick = (unsigned)unit_below(seed, h->n_held);
            complete(rig, &h->held[pick]);
            h->held[pick] = h->held[--h->n_held];
            h->completed++;
        }
        break;
    default:
        ring_device_publish(&rig->device);
        while (rig->device.published != rig->driver.complete_head) {
            uint64_t tag = collect(rig);

            ck_assert(!h->seen[tag]);
            h->seen[tag] = true;
            h->collected++;
        }
        break;
    }
}

static const struct {
    const char *what;
    struct ring_shape shape;
    uint32_t start;
} random_cases[] = {
    {"from 0", {16, 256}, 0},
    {"around the wrap of the indices", {16, 256}, UINT32_MAX - 1000},
    {"just before the wrap", {64, 512}, UINT32_MAX},
    {"one ring's length before the wrap", {128, 4096}, UINT32_MAX - 127},
    {"around the change of sign", {256, 256}, INT32_MAX - 100u},
};

/* Random steps of both ends; every request comes back once, with its own bytes. */
START_TEST(random_steps)
{
    static struct history h;
    uint64_t seed = 100 + (uint64_t)_i;
    uint32_t start = random_cases[_i].start;
    struct rig rig;

    memset(&h, 0, sizeof(h));
    rig_open_at(&rig, &random_cases[_i].shape, start);
    for (unsigned i = 0; h.collected < N_ELEMS(h.seen); i++) {
        ck_assert_msg(i < 1000000, "%s: no progress", random_cases[_i].what);
        random_step(&rig, &h, &seed);
        check_history(&rig, &h, start);
    }
    rig_close(&rig);
}
END_TEST

/* A device end that goes on where another one stopped; the driver notices nothing. */
START_TEST(the_device_restarts)
{
    struct vgpu_desc desc[4];
    struct ring_device next;
    struct rig rig;

    rig_open_at(&rig, &small, UINT32_MAX - 1);
    for (uint64_t i = 0; i < 4; i++) {
        submit(&rig, i);
    }
    ring_driver_publish(&rig.driver);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_int_eq(ring_take(&rig.device, &desc[i]), 0);
    }
    complete(&rig, &desc[1]);
    ring_device_publish(&rig.device);
    complete(&rig, &desc[0]); /* written, and not published: it died here */
    ring_device_init(&next, rig.memory, &small, rig.device.submit_head, rig.device.complete_tail);
    rig.device = next;
    ck_assert_uint_eq(collect(&rig), 1);
    ck_assert_uint_eq(collect(&rig), 0);
    ck_assert_int_eq(ring_take(&rig.device, &desc[3]), 0);
    ck_assert_uint_eq(desc[3].tag, 3);
    complete(&rig, &desc[3]);
    complete(&rig, &desc[2]);
    ring_device_publish(&rig.device);
    ck_assert_uint_eq(collect(&rig), 3);
    ck_assert_uint_eq(collect(&rig), 2);
    rig_close(&rig);
}
END_TEST

/* A driver end that takes over from one that is gone, once nothing of that one is in flight. */
START_TEST(the_driver_restarts)
{
    struct ring_driver next;
    struct vgpu_desc desc[2];
    struct rig rig;
    uint32_t slot;

    rig_open_at(&rig, &small, UINT32_MAX - 1);
    submit(&rig, 1);
    submit(&rig, 2);
    ring_driver_publish(&rig.driver);
    ck_assert_int_eq(ring_slot_take(&rig.driver, &slot), 0);
    ring_submit(&rig.driver, slot, 8, 3); /* not published: nobody misses it */
    ck_assert_int_eq(ring_driver_init(&next, rig.memory, &small, false), 0);
    ck_assert_int_eq(ring_driver_resume(&next), RING_E_LEFT);
    ck_assert_uint_eq(next.published, 0);
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_int_eq(ring_take(&rig.device, &desc[i]), 0);
        complete(&rig, &desc[i]);
        ring_device_publish(&rig.device);
        ck_assert_int_eq(ring_left(&next.map), i ? 0 : RING_E_LEFT);
    }
    ck_assert_int_eq(ring_driver_resume(&next), 0);
    ring_driver_fini(&rig.driver);
    rig.driver = next;
    ck_assert(!ring_driver_lost(&rig.driver));
    for (uint64_t i = 10; i < 50; i++) {
        submit(&rig, i);
        ring_driver_publish(&rig.driver);
        ck_assert_int_eq(ring_take(&rig.device, &desc[0]), 0);
        complete(&rig, &desc[0]);
        ring_device_publish(&rig.device);
        ck_assert_uint_eq(collect(&rig), i);
    }
    /* The device is reset: it shows, and both ends begin anew. */
    submit(&rig, 99);
    ring_driver_publish(&rig.driver);
    ring_zero(&rig.driver.map);
    ck_assert(ring_driver_lost(&rig.driver));
    ring_device_init(&rig.device, rig.memory, &small, 0, 0);
    ring_driver_restart(&rig.driver);
    ck_assert(!ring_driver_lost(&rig.driver));
    ck_assert_int_eq(ring_driver_resume(&rig.driver), 0);
    ck_assert_uint_eq(rig.driver.in_use, 0);
    submit(&rig, 100);
    ring_driver_publish(&rig.driver);
    ck_assert_int_eq(ring_take(&rig.device, &desc[0]), 0);
    complete(&rig, &desc[0]);
    ring_device_publish(&rig.device);
    ck_assert_uint_eq(collect(&rig), 100);
    /* Pages that no two ends can have left. */
    rig.driver.map.driver->submit_tail += 17;
    ck_assert_int_eq(ring_left(&rig.driver.map), RING_E_BROKEN);
    rig.driver.map.driver->submit_tail -= 18;
    ck_assert_int_eq(ring_driver_resume(&rig.driver), RING_E_BROKEN);
    rig_close(&rig);
}
END_TEST

START_TEST(flags_reach_the_driver)
{
    struct rig rig;

    rig_open(&rig);
    ck_assert_uint_eq(ring_driver_flags(&rig.driver), 0);
    ring_device_set_flags(&rig.device, VGPU_RING_BROKEN);
    ck_assert_uint_eq(ring_driver_flags(&rig.driver), VGPU_RING_BROKEN);
    ring_zero(&rig.driver.map);
    ck_assert_uint_eq(ring_driver_flags(&rig.driver), 0);
    rig_close(&rig);
}
END_TEST

/* The fence for write-combining memory changes nothing that can be seen here but must not hurt. */
START_TEST(write_combining)
{
    struct vgpu_desc desc;
    struct rig rig;

    rig_open(&rig);
    rig.driver.write_combining = true;
    submit(&rig, 5);
    ck_assert(ring_driver_publish(&rig.driver));
    ck_assert_int_eq(ring_take(&rig.device, &desc), 0);
    ck_assert_uint_eq(desc.tag, 5);
    rig_close(&rig);
}
END_TEST

/* ---- event index ---- */

/* "moved past": some index from before on, up to and without after, is the event. */
static bool crossed_reference(uint32_t event, uint32_t before, uint32_t after)
{
    for (uint32_t i = before; i != after; i++) {
        if (i == event) {
            return true;
        }
    }
    return false;
}

START_TEST(crossed_means_moved_past)
{
    static const uint32_t bases[] = {0, 1, 1000, INT32_MAX - 20u, UINT32_MAX - 20, UINT32_MAX};
    uint32_t before = bases[_i];

    for (uint32_t moved = 0; moved <= 40; moved++) {
        for (uint32_t d = 0; d <= 120; d++) {
            uint32_t event = before + d - 60;

            ck_assert_msg(!vgpu_ring_crossed(event, before, before + moved) ==
                              !crossed_reference(event, before, before + moved),
                          "event %u, from %u to %u", event, before, before + moved);
        }
    }
}
END_TEST

/* The driver's doorbell: exactly when submit_tail moves past what the device asked for. */
START_TEST(doorbells_exactly_when_needed)
{
    for (uint32_t event = 0; event < 12; event++) {
        for (uint32_t first = 0; first < 6; first++) {
            for (uint32_t second = 1; second < 6; second++) {
                uint32_t start = UINT32_MAX - 5;
                struct rig rig;

                rig_open_at(&rig, &small, start);
                rig.device.map.device->submit_event = start + event;
                for (uint32_t i = 0; i < first; i++) {
                    submit(&rig, i);
                }
                ck_assert(ring_driver_publish(&rig.driver) == (event < first));
                for (uint32_t i = 0; i < second; i++) {
                    submit(&rig, i);
                }
                ck_assert(ring_driver_publish(&rig.driver) ==
                          (event >= first && event < first + second));
                rig_close(&rig);
            }
        }
    }
}
END_TEST

/* The device's signal, the other way round. */
START_TEST(signals_exactly_when_needed)
{
    for (uint32_t event = 0; event < 8; event++) {
        for (uint32_t batch = 1; batch <= 4; batch++) {
            uint32_t start = UINT32_MAX - 3;
            struct vgpu_desc desc;
            struct rig rig;

            rig_open_at(&rig, &small, start);
            rig.driver.map.driver->complete_event = start + event;
            for (uint32_t i = 0; i < 8; i++) {
                submit(&rig, i);
            }
            ring_driver_publish(&rig.driver);
            for (uint32_t done = 0; done < 8; done += batch) {
                uint32_t n = 8 - done < batch ? 8 - done : batch;

                for (uint32_t i = 0; i < n; i++) {
                    ck_assert_int_eq(ring_take(&rig.device, &desc), 0);
                    complete(&rig, &desc);
                }
                ck_assert(ring_device_publish(&rig.device) == (event >= done && event < done + n));
            }
            rig_close(&rig);
        }
    }
}
END_TEST

/* One that polls and never arms is not signalled after the first time; one that arms is, each time. */
START_TEST(arming)
{
    struct vgpu_desc desc;
    struct rig rig;

    rig_open(&rig);
    for (uint64_t i = 0; i < 100; i++) {
        submit(&rig, i);
        ck_assert(ring_driver_publish(&rig.driver) == (i == 0));
        ck_assert_int_eq(ring_take(&rig.device, &desc), 0);
        complete(&rig, &desc);
        ck_assert(ring_device_publish(&rig.device) == (i == 0));
        collect(&rig);
    }
    for (uint64_t i = 0; i < 100; i++) {
        ck_assert(!ring_device_arm(&rig.device));
        ck_assert(!ring_driver_arm(&rig.driver));
        submit(&rig, i);
        ck_assert(ring_driver_publish(&rig.driver));
        ck_assert(ring_device_arm(&rig.device)); /* came meanwhile: do not sleep */
        ck_assert_int_eq(ring_take(&rig.device, &desc), 0);
        complete(&rig, &desc);
        ck_assert(ring_device_publish(&rig.device));
        ck_assert(ring_driver_arm(&rig.driver));
        collect(&rig);
    }
    rig_close(&rig);
}
END_TEST

/* ---- going to sleep: a model of two processors ---- */

/*
 * Every interleaving of a submitter, which publishes some batches, and a server, which takes all there is,
 * arms, and sleeps unless it sees more. Each processor has a store buffer of one entry per word, as x86
 * has: its stores become visible to the other at any later time, or at its fence. A state in which the
 * server sleeps, no bell is on its way and something was published is a lost wake-up.
 */
enum variant { AS_BUILT, NO_PUBLISH_FENCE, NO_ARM_FENCE, NO_LOOK, VARIANTS };

enum { SUBMIT_STORE, SUBMIT_FENCE, SUBMIT_LOOK, SUBMIT_DONE };
enum { SERVE_TAKE, SERVE_ARM, SERVE_FENCE, SERVE_LOOK, SERVE_SLEEP };

struct model {
    uint32_t tail, event;               /* in memory */
    uint32_t tail_buffer, event_buffer; /* stored, not visible yet */
    uint32_t published, before, head;
    uint32_t submit_pc, serve_pc, batches;
    uint32_t tail_waits, event_waits, bell; /* 0 or 1 */
};

struct search {
    enum variant variant;
    uint32_t batch;
    unsigned lost, n_visited;
    struct model visited[4096];
};

#define MODEL_BATCHES 3

/* One step of the submitter. Return: whether it can take one. */
static bool submit_step(struct model *m, const struct search *s)
{
    switch (m->submit_pc) {
    case SUBMIT_STORE:
        m->before = m->published;
        m->published += s->batch;
        m->tail_buffer = m->published;
        m->tail_waits = true;
        m->submit_pc = s->variant == NO_PUBLISH_FENCE ? SUBMIT_LOOK : SUBMIT_FENCE;
        return true;
    case SUBMIT_FENCE:
        if (m->tail_waits) {
            return false; /* goes on when the buffer is empty */
        }
        m->submit_pc = SUBMIT_LOOK;
        return true;
    case SUBMIT_LOOK:
        m->bell = m->bell || vgpu_ring_crossed(m->event, m->before, m->published);
        m->submit_pc = ++m->batches < MODEL_BATCHES ? SUBMIT_STORE : SUBMIT_DONE;
        return true;
    default:
        return false;
    }
}

static bool serve_step(struct model *m, const struct search *s)
{
    switch (m->serve_pc) {
    case SERVE_TAKE:
        m->head = m->tail;
        m->serve_pc = SERVE_ARM;
        return true;
    case SERVE_ARM:
        m->event_buffer = m->head;
        m->event_waits = true;
        m->serve_pc = s->variant == NO_ARM_FENCE ? SERVE_LOOK : SERVE_FENCE;
        return true;
    case SERVE_FENCE:
        if (m->event_waits) {
            return false;
        }
        m->serve_pc = s->variant == NO_LOOK ? SERVE_SLEEP : SERVE_LOOK;
        return true;
    case SERVE_LOOK:
        m->serve_pc = m->tail != m->head ? SERVE_TAKE : SERVE_SLEEP;
        return true;
    default:
        if (!m->bell) {
            return false;
        }
        m->bell = false;
        m->serve_pc = SERVE_TAKE;
        return true;
    }
}

static bool visit(struct search *s, const struct model *m)
{
    for (unsigned i = 0; i < s->n_visited; i++) {
        if (memcmp(&s->visited[i], m, sizeof(*m)) == 0) {
            return false;
        }
    }
    ck_assert_uint_lt(s->n_visited, N_ELEMS(s->visited));
    s->visited[s->n_visited++] = *m;
    return true;
}

static void explore(struct search *s, const struct model *m)
{
    struct model next;
    bool moved = false;

    if (!visit(s, m)) {
        return;
    }
    next = *m;
    if (submit_step(&next, s)) {
        moved = true;
        explore(s, &next);
    }
    next = *m;
    if (serve_step(&next, s)) {
        moved = true;
        explore(s, &next);
    }
    if (m->tail_waits) {
        next = *m;
        next.tail = m->tail_buffer;
        next.tail_waits = false;
        moved = true;
        explore(s, &next);
    }
    if (m->event_waits) {
        next = *m;
        next.event = m->event_buffer;
        next.event_waits = false;
        moved = true;
        explore(s, &next);
    }
    s->lost += !moved && m->head != m->published;
}

static const char *const variant_names[VARIANTS] = {"as built", "no fence in publish",
                                                    "no fence in arm", "no look after arming"};

START_TEST(sleeping_loses_no_wakeup)
{
    static const uint32_t bases[] = {0, UINT32_MAX - 4, UINT32_MAX};
    static struct search s;

    for (unsigned i = 0; i < N_ELEMS(bases); i++) {
        for (uint32_t batch = 1; batch <= 3; batch++) {
            uint32_t base = bases[i];
            struct model start = {
                .tail = base, .event = base, .published = base, .before = base, .head = base};

            memset(&s, 0, sizeof(s));
            s.variant = (enum variant)_i;
            s.batch = batch;
            explore(&s, &start);
            ck_assert_uint_gt(s.n_visited, 50);
            ck_assert_msg((s.lost == 0) == (_i == AS_BUILT), "%s: %u of %u states",
                          variant_names[_i], s.lost, s.n_visited);
        }
    }
}
END_TEST

/* ---- a hostile driver ---- */

static const struct {
    const char *what;
    uint32_t tail;
    struct vgpu_desc desc;
    const char *wrong; /* NULL: it is taken */
} hostile_drivers[] = {
    {"a good one", 1, {.slot = 15, .length = 256}, NULL},
    {"a tail one too far", 17, {.slot = 0, .length = 8}, "jumped"},
    {"a tail far ahead", 1u << 31, {.slot = 0, .length = 8}, "jumped"},
    {"a tail that went back", UINT32_MAX, {.slot = 0, .length = 8}, "jumped"},
    {"a slot past the last", 1, {.slot = 16, .length = 8}, "slot"},
    {"a slot that overflows", 1, {.slot = UINT32_MAX, .length = 8}, "slot"},
    {"no length", 1, {.slot = 0, .length = 0}, "length"},
    {"a length past the slot", 1, {.slot = 0, .length = 257}, "length"},
    {"a length that overflows", 1, {.slot = 0, .length = UINT32_MAX}, "length"},
    {"the first reserved byte", 1, {.slot = 0, .length = 8, .reserved = {1}}, "reserved"},
    {"the last reserved byte", 1, {.slot = 0, .length = 8, .reserved = {[47] = 0x80}}, "reserved"},
};

START_TEST(a_hostile_driver)
{
    struct vgpu_desc desc;
    const char *wrong = hostile_drivers[_i].wrong;
    struct rig rig;

    rig_open(&rig);
    rig.device.map.descs[0] = hostile_drivers[_i].desc;
    rig.device.map.driver->submit_tail = hostile_drivers[_i].tail;
    if (!wrong) {
        ck_assert_int_eq(ring_take(&rig.device, &desc), 0);
        rig_close(&rig);
        return;
    }
    ck_assert_uint_le(ring_waiting(&rig.device), 16);
    ck_assert(ring_device_arm(&rig.device)); /* there is something to look at: the breach */
    ck_assert_int_eq(ring_take(&rig.device, &desc), RING_E_BROKEN);
    ck_assert_msg(strstr(rig.device.wrong, wrong), "%s: %s", hostile_drivers[_i].what,
                  rig.device.wrong);
    /* For good, and nothing keeps a loop awake for it any more. */
    rig.device.map.driver->submit_tail = 1;
    rig.device.map.descs[0] = (struct vgpu_desc){.length = 8};
    ck_assert_int_eq(ring_take(&rig.device, &desc), RING_E_BROKEN);
    ck_assert(!ring_device_arm(&rig.device));
    ck_assert_uint_eq(ring_waiting(&rig.device), 0);
    ring_zero(&rig.device.map);
    ring_device_init(&rig.device, rig.memory, &small, 0, 0);
    ck_assert_int_eq(ring_take(&rig.device, &desc), RING_E_EMPTY); /* healed */
    rig_close(&rig);
}
END_TEST

/* ---- a hostile device ---- */

static const struct {
    const char *what;
    uint32_t tail;
    struct vgpu_completion completion;
    const char *wrong;
} hostile_devices[] = {
    {"a good one", 1, {.slot = 0, .length = 256}, NULL},
    {"an empty response", 1, {.slot = 0, .length = 0}, NULL},
    {"a tail one too far", 17, {.slot = 0, .length = 8}, "jumped"},
    {"a tail that went back", UINT32_MAX, {.slot = 0, .length = 8}, "jumped"},
    {"a slot past the last", 1, {.slot = 16, .length = 8}, "slot"},
    {"a slot that overflows", 1, {.slot = UINT32_MAX, .length = 8}, "slot"},
    {"a slot that is free", 1, {.slot = 7, .length = 8}, "slot"},
    {"a slot that is taken and not submitted", 1, {.slot = 1, .length = 8}, "slot"},
    {"a length past the slot", 1, {.slot = 0, .length = 257}, "larger"},
};

START_TEST(a_hostile_device)
{
    struct vgpu_completion c;
    const char *wrong = hostile_devices[_i].wrong;
    struct rig rig;
    uint32_t slot;

    rig_open(&rig);
    ck_assert_uint_eq(submit(&rig, 1), 0);
    ck_assert_int_eq(ring_slot_take(&rig.driver, &slot), 0);
    ck_assert_uint_eq(slot, 1);
    ring_driver_publish(&rig.driver);
    rig.driver.map.completions[0] = hostile_devices[_i].completion;
    rig.driver.map.device->complete_tail = hostile_devices[_i].tail;
    ck_assert(ring_driver_arm(&rig.driver));
    if (!wrong) {
        ck_assert_int_eq(ring_collect(&rig.driver, &c), 0);
        rig_close(&rig);
        return;
    }
    ck_assert_int_eq(ring_collect(&rig.driver, &c), RING_E_BROKEN);
    ck_assert_msg(strstr(rig.driver.wrong, wrong), "%s: %s", hostile_devices[_i].what,
                  rig.driver.wrong);
    rig.driver.map.completions[0] = (struct vgpu_completion){.length = 8};
    rig.driver.map.device->complete_tail = 1;
    ck_assert_int_eq(ring_collect(&rig.driver, &c), RING_E_BROKEN);
    ck_assert(!ring_driver_arm(&rig.driver));
    rig_close(&rig);
}
END_TEST

START_TEST(a_device_that_completes_twice)
{
    struct vgpu_completion c;
    struct rig rig;

    rig_open(&rig);
    submit(&rig, 1);
    ring_driver_publish(&rig.driver);
    rig.driver.map.completions[0] = rig.driver.map.completions[1] =
        (struct vgpu_completion){.length = 8};
    rig.driver.map.device->complete_tail = 2;
    ck_assert_int_eq(ring_collect(&rig.driver, &c), 0);
    ck_assert_int_eq(ring_collect(&rig.driver, &c), RING_E_BROKEN);
    rig_close(&rig);
}
END_TEST

/* ---- two threads ---- */

/* Both threads sleep on bells whenever arm says that they may: a lost wake-up hangs the test. */
#define RUN_REQUESTS 100000u

struct bell {
    pthread_mutex_t lock;
    pthread_cond_t rung;
    bool pending;
    uint64_t times;
};

static void bell_ring(struct bell *b)
{
    pthread_mutex_lock(&b->lock);
    b->pending = true;
    b->times++;
    pthread_cond_signal(&b->rung);
    pthread_mutex_unlock(&b->lock);
}

static void bell_wait(struct bell *b)
{
    pthread_mutex_lock(&b->lock);
    while (!b->pending) {
        pthread_cond_wait(&b->rung, &b->lock);
    }
    b->pending = false;
    pthread_mutex_unlock(&b->lock);
}

struct run {
    struct rig rig;
    struct bell kick, call;
};

/* Take what is there; complete some of it out of order; sleep when there is nothing. */
static void *serve(void *argument)
{
    struct run *run = argument;
    struct vgpu_desc held[16];
    unsigned n_held = 0;
    uint64_t seed = 9;

    for (uint32_t done = 0; done < RUN_REQUESTS;) {
        int r = n_held < 16 ? ring_take(&run->rig.device, &held[n_held]) : RING_E_EMPTY;

        n_held += r == 0;
        if (n_held > 0 && (r != 0 || unit_below(&seed, 3) == 0)) {
            unsigned pick = (unsigned)unit_below(&seed, n_held);

            complete(&run->rig, &held[pick]);
            held[pick] = held[--n_held];
            done++;
        }
        if (r != 0 && ring_device_publish(&run->rig.device)) {
            bell_ring(&run->call);
        }
        if (r != 0 && n_held == 0 && done < RUN_REQUESTS && !ring_device_arm(&run->rig.device)) {
            bell_wait(&run->kick);
        }
    }
    if (ring_device_publish(&run->rig.device)) {
        bell_ring(&run->call);
    }
    return NULL;
}

static bool completed(const struct rig *rig)
{
    const uint32_t *tail = &rig->driver.map.device->complete_tail;

    return __atomic_load_n(tail, __ATOMIC_ACQUIRE) != rig->driver.complete_head;
}

/* Submit bursts of at most @burst_most, collect, and now and then sleep. */
static void drive(struct run *run, unsigned burst_most)
{
    static bool seen[RUN_REQUESTS];
    uint64_t seed = 4;
    uint32_t sent = 0, got = 0;

    memset(seen, 0, sizeof(seen));
    while (got < RUN_REQUESTS) {
        uint64_t burst = 1 + unit_below(&seed, burst_most);

        while (burst-- > 0 && sent < RUN_REQUESTS &&
               run->rig.driver.in_use < run->rig.shape.entries) {
            submit(&run->rig, sent++);
        }
        if (ring_driver_publish(&run->rig.driver)) {
            bell_ring(&run->kick);
        }
        while (completed(&run->rig)) {
            uint64_t tag = collect(&run->rig);

            ck_assert(!seen[tag]);
            seen[tag] = true;
            got++;
        }
        if (got < sent && (sent == RUN_REQUESTS || unit_below(&seed, 4) == 0) &&
            !ring_driver_arm(&run->rig.driver)) {
            bell_wait(&run->call);
        }
    }
}

START_TEST(two_threads)
{
    static const unsigned bursts[] = {1, 20};
    static struct run run;
    pthread_t server;

    run = (struct run){
        .kick = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, 0},
        .call = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, 0},
    };
    rig_open_at(&run.rig, &small, UINT32_MAX - RUN_REQUESTS / 2);
    ck_assert_int_eq(pthread_create(&server, NULL, serve, &run), 0);
    drive(&run, bursts[_i]);
    pthread_join(server, NULL);
    ck_assert_uint_eq(run.rig.driver.in_use, 0);
    ck_assert_uint_lt(run.kick.times, RUN_REQUESTS);
    ck_assert_uint_lt(run.call.times, RUN_REQUESTS);
    rig_close(&run.rig);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_loop_test(tc, shapes_are_checked, 0, N_ELEMS(shapes));
    tcase_add_loop_test(tc, parts_lie_in_the_ring, 0, 4);
    tcase_add_test(tc, copies_of_any_length);
    tcase_add_test(tc, one_request);
    tcase_add_test(tc, a_bell_that_was_not_rung);
    tcase_add_test(tc, a_full_ring);
    tcase_add_test(tc, slots_come_back);
    tcase_add_loop_test(tc, random_steps, 0, N_ELEMS(random_cases));
    tcase_add_test(tc, the_device_restarts);
    tcase_add_test(tc, the_driver_restarts);
    tcase_add_test(tc, flags_reach_the_driver);
    tcase_add_test(tc, write_combining);
    tcase_add_loop_test(tc, crossed_means_moved_past, 0, 6);
    tcase_add_test(tc, doorbells_exactly_when_needed);
    tcase_add_test(tc, signals_exactly_when_needed);
    tcase_add_test(tc, arming);
    tcase_add_loop_test(tc, sleeping_loses_no_wakeup, 0, VARIANTS);
    tcase_add_loop_test(tc, a_hostile_driver, 0, N_ELEMS(hostile_drivers));
    tcase_add_loop_test(tc, a_hostile_device, 0, N_ELEMS(hostile_devices));
    tcase_add_test(tc, a_device_that_completes_twice);
    tcase_add_loop_test(tc, two_threads, 0, 2);
}

int main(void)
{
    Suite *s = suite_create("ring");
    TCase *tc = tcase_create("ring");

    add_tests(tc);
    suite_add_tcase(s, tc);
    return unit_run(s);
}

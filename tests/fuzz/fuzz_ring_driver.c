/* SPDX-License-Identifier: MIT */
/*
 * fuzz_ring_driver.c - the driver's end of a ring, as the mediator uses it towards an executor and the
 * guest library towards its device, in memory that a hostile device writes to all the time
 */
#include <stdbool.h>

#include "common/core/request.h"
#include "common/core/ring.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/mutator.h"

#define ENTRIES 16u
#define SLOT_BYTES 256u
#define RING_BYTES (VGPU_RING_SLOTS(ENTRIES) + VGPU_RING_PAGE * 3)
#define STEPS 64u
#define PAYLOAD_MAX (SLOT_BYTES - (uint32_t)sizeof(struct vgpu_resp_hdr))

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define DEVICE_WORDS_ONLY true /* as in fuzz_ring.c */
#endif
#endif
#ifndef DEVICE_WORDS_ONLY
#define DEVICE_WORDS_ONLY false
#endif

static _Alignas(4096) uint8_t memory[RING_BYTES];
static const struct ring_shape shape = {ENTRIES, SLOT_BYTES};

/* Completions of every slot, in the order in which the driver takes them. */
static void make_image(const struct ring_map *map, uint32_t start)
{
    memset(memory, 0, sizeof(memory));
    for (uint32_t i = 0; i < ENTRIES; i++) {
        map->completions[(start + i) % ENTRIES] =
            (struct vgpu_completion){.slot = i, .length = sizeof(struct vgpu_resp_hdr)};
        response_error(ring_response(map, i), SLOT_BYTES, VGPU_OP_ECHO, 0, VGPU_E_OK, "");
    }
    map->driver->submit_tail = start;
    map->device->complete_tail = start;
}

static uint64_t *choose_word(const struct ring_map *map, struct fuzz_input *in)
{
    uint32_t which = (uint32_t)fuzz_take(in, 1), at = (uint32_t)fuzz_take(in, 2);
    uint32_t slot = at / 64 % ENTRIES;

    switch (which % 8) {
    case 0:
    case 1:
        return (uint64_t *)(void *)&map->device->complete_tail;
    case 2:
        return (uint64_t *)(void *)&map->device->submit_event;
    case 3:
    case 4:
        return (uint64_t *)(void *)&map->completions[slot] + at % 4;
    case 5:
        if (!DEVICE_WORDS_ONLY) {
            return (uint64_t *)(void *)(memory + at % (RING_BYTES / 8) * 8);
        } /* fall through */
    default:
        return (uint64_t *)(void *)ring_response(map, slot) + at % (SLOT_BYTES / 8);
    }
}

/* Values of the tail are chosen near to where the driver is: others are refused at once. */
static unsigned read_patches(const struct ring_map *map, struct fuzz_input *in, uint32_t start,
                             struct mutator_patch *patches)
{
    unsigned count = (unsigned)fuzz_take(in, 1) % MUTATOR_PATCHES;

    for (unsigned i = 0; i < count; i++) {
        uint64_t *word = choose_word(map, in);
        uint64_t other = fuzz_take(in, 8);

        if ((uint32_t *)(void *)word == &map->device->complete_tail && other % 4) {
            other = (uint32_t)(start + other / 4 % (ENTRIES + 2));
        }
        patches[i] = (struct mutator_patch){.word = word, .values = {*word, other}};
    }
    return count;
}

static void submit(struct ring_driver *d, bool *in_flight)
{
    uint32_t slot;

    if (ring_slot_take(d, &slot) == 0) {
        fuzz_check(slot < ENTRIES && !in_flight[slot]);
        in_flight[slot] = true;
        fuzz_echo(ring_request(&d->map, slot), 0);
        ring_submit(d, slot, FUZZ_ECHO_BYTES, slot);
    }
}

/* Return: whether the ring is still whole. */
static bool collect(struct ring_driver *d, bool *in_flight)
{
    struct vgpu_completion c;
    struct vgpu_resp_hdr hdr;
    char why[REQUEST_WHY_MAX];
    int r = ring_collect(d, &c);
    uint8_t *copy;

    if (r != 0) {
        fuzz_check((r == RING_E_BROKEN) == (d->wrong != NULL));
        return r != RING_E_BROKEN;
    }
    fuzz_check(c.slot < ENTRIES && in_flight[c.slot] && c.length <= SLOT_BYTES);
    copy = malloc(c.length + 1u);
    ring_copy_in(copy, ring_response(&d->map, c.slot), c.length);
    if (response_check(copy, c.length, VGPU_OP_ECHO, 0, PAYLOAD_MAX, &hdr, why) == VGPU_E_OK) {
        fuzz_check(hdr.size == c.length && hdr.size - sizeof(hdr) <= PAYLOAD_MAX);
    }
    free(copy);
    in_flight[c.slot] = false;
    ring_slot_give_back(d, c.slot);
    return true;
}

static bool step(struct ring_driver *d, bool *in_flight, unsigned what)
{
    if (what & 1) {
        submit(d, in_flight);
    }
    if (what & 2) {
        (void)ring_driver_publish(d);
    }
    if (what & 4) {
        (void)ring_driver_arm(d);
    }
    (void)ring_driver_flags(d);
    fuzz_check(d->in_use <= ENTRIES);
    return collect(d, in_flight);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mutator_patch patches[MUTATOR_PATCHES];
    struct fuzz_input in = {data, size};
    bool in_thread = fuzz_take(&in, 1) % 8 == 0;
    uint32_t start = (uint32_t)fuzz_take(&in, 4);
    bool in_flight[ENTRIES] = {false};
    struct ring_driver d;
    unsigned count;

    if (ring_bytes(&shape) > sizeof(memory) ||
        ring_driver_init(&d, memory, &shape, start & 1) != 0) {
        abort();
    }
    make_image(&d.map, start);
    d.submit_tail = d.published = d.complete_head = start;
    count = read_patches(&d.map, &in, start, patches);
    if (in_thread) {
        mutator_start(patches, count);
    }
    for (unsigned i = 0; i < STEPS && step(&d, in_flight, (unsigned)fuzz_take(&in, 1)); i++) {
        if (!in_thread) {
            mutator_turn(patches, count, i);
        }
    }
    if (in_thread) {
        mutator_stop();
    }
    ring_driver_fini(&d);
    return 0;
}

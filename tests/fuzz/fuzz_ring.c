/* SPDX-License-Identifier: MIT */
/*
 * fuzz_ring.c - the device's end of a ring, as the mediator uses it, in memory that a hostile driver
 * writes to all the time: what is taken is in bounds, and stays what it was when it was checked
 */
#include <stdbool.h>

#include "common/core/request.h"
#include "common/core/ring.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/mutator.h"

#define ENTRIES 16u
#define SLOT_BYTES 256u
#define RING_BYTES (VGPU_RING_SLOTS(ENTRIES) + VGPU_RING_PAGE * 3)
#define ARENA (UINT64_C(1) << 20)
#define STEPS 64u

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
/* The device's own words are written plainly: leave them alone, or each of its stores is reported. */
#define DRIVER_WORDS_ONLY true
#endif
#endif
#ifndef DRIVER_WORDS_ONLY
#define DRIVER_WORDS_ONLY false
#endif

static _Alignas(4096) uint8_t memory[RING_BYTES];
static const struct ring_shape shape = {ENTRIES, SLOT_BYTES};

/* A full ring of good requests, whose indices start anywhere. */
static void make_image(const struct ring_map *map, uint32_t start)
{
    memset(memory, 0, sizeof(memory));
    for (uint32_t i = 0; i < ENTRIES; i++) {
        map->descs[(start + i) % ENTRIES] =
            (struct vgpu_desc){.slot = i, .length = FUZZ_ECHO_BYTES, .tag = i};
        fuzz_echo(ring_request(map, i), i);
    }
    map->driver->submit_tail = start + ENTRIES;
}

/* Where a hostile driver writes: anywhere, but best to what the device reads. */
static uint64_t *choose_word(const struct ring_map *map, struct fuzz_input *in)
{
    uint32_t which = (uint32_t)fuzz_take(in, 1), at = (uint32_t)fuzz_take(in, 2);
    uint32_t slot = at / 64 % ENTRIES;

    switch (which % 8) {
    case 0:
        return (uint64_t *)(void *)&map->driver->submit_tail;
    case 1:
        return (uint64_t *)(void *)&map->driver->complete_event;
    case 2:
    case 3:
        return (uint64_t *)(void *)&map->descs[slot] + at % 8;
    case 4:
        if (!DRIVER_WORDS_ONLY) {
            return (uint64_t *)(void *)(memory + at % (RING_BYTES / 8) * 8);
        } /* fall through */
    default:
        return (uint64_t *)(void *)ring_request(map, slot) + at % (SLOT_BYTES / 8);
    }
}

static unsigned read_patches(const struct ring_map *map, struct fuzz_input *in,
                             struct mutator_patch *patches)
{
    unsigned count = (unsigned)fuzz_take(in, 1) % MUTATOR_PATCHES;

    for (unsigned i = 0; i < count; i++) {
        uint64_t *word = choose_word(map, in);
        uint64_t other = fuzz_take(in, 8);
        bool keep = fuzz_take(in, 1) % 2; /* the good value, now and then */

        patches[i] = (struct mutator_patch){.word = word, .values = {keep ? *word : ~other, other}};
    }
    return count;
}

static void check_parsed(const struct request *r, const struct request_limits *limits)
{
    for (unsigned i = 0; i < r->hdr.nbufs; i++) {
        const struct vgpu_buf *b = &r->bufs[i];
        uint64_t space = b->kind == VGPU_BUF_ARENA    ? limits->arena_size
                         : b->dir == VGPU_BUF_OUT     ? limits->payload_max
                         : b->kind == VGPU_BUF_INLINE ? r->hdr.size
                                                      : UINT64_MAX;

        fuzz_check(b->offset <= space && b->length <= space - b->offset);
    }
    fuzz_check(r->body_offset + r->hdr.body_len <= r->hdr.size);
}

/* Take a request and answer it, as the mediator does. */
static void serve(struct ring_device *d, const struct vgpu_desc *desc)
{
    const struct request_limits limits = {.max_size = SLOT_BYTES,
                                          .payload_max = SLOT_BYTES - sizeof(struct vgpu_resp_hdr),
                                          .arena_size = ARENA};
    uint8_t *copy = malloc(desc->length); /* of its exact size: a byte past it is seen */
    struct vgpu_completion c = {.tag = desc->tag, .slot = desc->slot};
    uint8_t response[SLOT_BYTES];
    char why[REQUEST_WHY_MAX] = "";
    struct request r;

    ring_copy_in(copy, ring_request(&d->map, desc->slot), desc->length);
    c.error = request_parse(copy, desc->length, &limits, &r, why);
    if (c.error == VGPU_E_OK) {
        check_parsed(&r, &limits);
    }
    c.length = response_error(response, sizeof(response), request_peek_op(copy, desc->length),
                              request_peek_tag(copy, desc->length), c.error, why);
    memcpy(ring_response(&d->map, desc->slot), response, c.length);
    ring_complete(d, &c);
    free(copy);
}

/* Return: whether the ring is still whole. */
static bool step(struct ring_device *d, unsigned what)
{
    static const uint8_t zero[48];
    struct vgpu_desc desc;
    uint32_t head = d->submit_head;
    int r;

    fuzz_check(ring_waiting(d) <= ENTRIES);
    r = ring_take(d, &desc);
    fuzz_check(d->submit_head == head + (r == 0));
    if (r == 0) {
        fuzz_check(desc.slot < ENTRIES && desc.length > 0 && desc.length <= SLOT_BYTES &&
                   memcmp(desc.reserved, zero, sizeof(zero)) == 0);
        serve(d, &desc);
    }
    if (what & 1) {
        (void)ring_device_publish(d);
    }
    if (what & 2) {
        (void)ring_device_arm(d);
    }
    fuzz_check((r == RING_E_BROKEN) == (d->wrong != NULL));
    fuzz_check(r != RING_E_BROKEN || (!ring_device_arm(d) && ring_waiting(d) == 0));
    return r != RING_E_BROKEN;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mutator_patch patches[MUTATOR_PATCHES];
    struct fuzz_input in = {data, size};
    bool in_thread = fuzz_take(&in, 1) % 8 == 0;
    uint32_t start = (uint32_t)fuzz_take(&in, 4);
    struct ring_device d;
    unsigned count;

    if (ring_bytes(&shape) > sizeof(memory)) {
        abort();
    }
    ring_map(&d.map, memory, &shape);
    make_image(&d.map, start);
    count = read_patches(&d.map, &in, patches);
    ring_device_init(&d, memory, &shape, start, start);
    if (in_thread) {
        mutator_start(patches, count);
    }
    for (unsigned i = 0; i < STEPS && step(&d, (unsigned)fuzz_take(&in, 1)); i++) {
        if (!in_thread) {
            mutator_turn(patches, count, i);
        }
    }
    if (in_thread) {
        mutator_stop();
    }
    return 0;
}

/* SPDX-License-Identifier: MIT */
#include "common/core/ring.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/*
 * Memory order. There are two questions, the same ones at both ends:
 *
 * 1. "What did the peer write before it moved its index?" Whoever moves an index stores it with
 *    release, whoever reads it loads with acquire. So the descriptor, and the request in its slot, are
 *    there when submit_tail is seen; the completion and the response when complete_tail is seen. It also
 *    holds backwards: the driver writes to a slot or a descriptor again only after it has seen a
 *    completion, and the device reads or wrote those bytes before it moved complete_tail.
 *    On x86 both are plain moves, on arm64 ldar and stlr.
 *
 * 2. "Does the peer sleep, or will it see what I just wrote?" One side stores an index and then looks
 *    at the event index (publish); the other stores its event index and then looks at the index (arm).
 *    At least one of them must see the other's store, else both wait for ever. Release and acquire do
 *    not give that: a store may be delayed past a later load of another word, on x86 too. So there
 *    is a full fence between the two on both sides. tests/unit/test_ring.c has a model that loses
 *    wake-ups as soon as one of the two fences, or the look after arming, is left out.
 *
 * The event index itself is read relaxed, after the fence: nothing else depends on it. A wrong value
 * from a hostile peer costs that peer its own signals.
 *
 * Shared words are plain integers in the layout, which guests without <stdatomic.h> use too.
 */
static uint32_t load_acquire(const uint32_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static uint32_t load_relaxed(const uint32_t *word)
{
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}

static void store_release(uint32_t *word, uint32_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

/* Between a store that the peer waits for and a look at what the peer stored (question 2). */
static void full_fence(void)
{
    atomic_thread_fence(memory_order_seq_cst);
}

/* Write-combining stores may pass later stores, releases included; on x86 only sfence and stronger hold
 * them. The index itself, if it lies in such memory too, leaves with the full fence that follows. On
 * arm64 a release holds such stores as well; the fence costs next to nothing beside them. */
static void write_combining_fence(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __asm__ volatile("sfence" ::: "memory");
#else
    full_fence();
#endif
}

/*
 * The peer may write to the bytes while they are copied, and after. Atomic loads are what makes the
 * compiler read each once and check the copy: after memcpy() it may go back to the source, whose bytes
 * the language says nobody changes. ThreadSanitizer sees the difference too: tests/fuzz/fuzz_ring.c.
 */
void ring_copy_in(void *dst, const void *shared, size_t bytes)
{
    const uint64_t *words = shared;
    size_t n = bytes / sizeof(*words);
    const uint8_t *rest = (const uint8_t *)(words + n);
    uint8_t *to = dst;

    for (size_t i = 0; i < n; i++) {
        uint64_t word = __atomic_load_n(&words[i], __ATOMIC_RELAXED);

        memcpy(to + i * sizeof(word), &word, sizeof(word));
    }
    for (size_t i = 0; i < bytes % sizeof(*words); i++) {
        to[n * sizeof(*words) + i] = __atomic_load_n(&rest[i], __ATOMIC_RELAXED);
    }
}

/* ---- layout ---- */

const char *ring_shape_check(const struct ring_shape *shape)
{
    uint32_t n = shape->entries;

    if (n < VGPU_RING_ENTRIES_MIN || n > VGPU_RING_ENTRIES_MAX || (n & (n - 1)) != 0) {
        return "the entries of a ring are a power of two from 16 to 4096";
    }
    if (shape->slot_bytes < 256 || shape->slot_bytes > 65536 || shape->slot_bytes % 64 != 0) {
        return "the bytes of a slot are a multiple of 64 from 256 to 65536";
    }
    return NULL;
}

uint64_t ring_bytes(const struct ring_shape *shape)
{
    uint64_t end = VGPU_RING_SLOTS(shape->entries) +
                   (uint64_t)shape->entries * VGPU_SLOT_STRIDE(shape->slot_bytes);

    return (end + VGPU_RING_PAGE - 1) / VGPU_RING_PAGE * VGPU_RING_PAGE;
}

void ring_map(struct ring_map *map, void *base, const struct ring_shape *shape)
{
    uint8_t *b = base;

    *map = (struct ring_map){
        .shape = *shape,
        .driver = (void *)b,
        .device = (void *)(b + VGPU_RING_PAGE),
        .descs = (void *)(b + VGPU_RING_DESCS),
        .completions = (void *)(b + VGPU_RING_COMPLETIONS(shape->entries)),
        .slots = b + VGPU_RING_SLOTS(shape->entries),
    };
}

void ring_zero(const struct ring_map *map)
{
    memset(map->driver, 0, sizeof(*map->driver));
    memset(map->device, 0, sizeof(*map->device));
    full_fence();
}

int ring_left(const struct ring_map *map)
{
    uint32_t n =
        load_acquire(&map->driver->submit_tail) - load_acquire(&map->device->complete_tail);

    if (n == 0) {
        return 0;
    }
    return n <= map->shape.entries ? RING_E_LEFT : RING_E_BROKEN;
}

static uint32_t entry(const struct ring_map *map, uint32_t index)
{
    return index & (map->shape.entries - 1);
}

/* ---- the driver's end ---- */

int ring_driver_init(struct ring_driver *d, void *base, const struct ring_shape *shape,
                     bool write_combining)
{
    uint32_t n = shape->entries;

    *d = (struct ring_driver){.write_combining = write_combining};
    ring_map(&d->map, base, shape);
    d->free = calloc(n, sizeof(*d->free));
    d->busy = calloc(n, sizeof(*d->busy));
    if (!d->free || !d->busy) {
        ring_driver_fini(d);
        return -ENOMEM;
    }
    ring_driver_restart(d);
    return 0;
}

void ring_driver_restart(struct ring_driver *d)
{
    uint32_t n = d->map.shape.entries;

    for (uint32_t i = 0; i < n; i++) {
        d->free[i] = (uint16_t)(n - 1 - i);
        d->busy[i] = false;
    }
    d->submit_tail = 0;
    d->published = 0;
    d->complete_head = 0;
    d->in_use = 0;
    d->wrong = NULL;
}

int ring_driver_resume(struct ring_driver *d)
{
    int r = ring_left(&d->map);

    if (r == 0) {
        d->submit_tail = load_relaxed(&d->map.driver->submit_tail);
        d->published = d->submit_tail;
        d->complete_head = d->submit_tail;
    }
    return r;
}

bool ring_driver_lost(const struct ring_driver *d)
{
    return load_relaxed(&d->map.driver->submit_tail) != d->published;
}

void ring_driver_fini(struct ring_driver *d)
{
    free(d->free);
    free(d->busy);
    d->free = NULL;
    d->busy = NULL;
}

int ring_slot_take(struct ring_driver *d, uint32_t *ret_slot)
{
    uint32_t left = d->map.shape.entries - d->in_use;

    if (left == 0) {
        return RING_E_FULL;
    }
    *ret_slot = d->free[left - 1];
    d->in_use++;
    return 0;
}

/* Last in, first out: the slot whose lines are most likely still in the cache. */
void ring_slot_give_back(struct ring_driver *d, uint32_t slot)
{
    d->busy[slot] = false;
    d->free[d->map.shape.entries - d->in_use] = (uint16_t)slot;
    d->in_use--;
}

void ring_submit(struct ring_driver *d, uint32_t slot, uint32_t length, uint64_t tag)
{
    d->busy[slot] = true;
    d->map.descs[entry(&d->map, d->submit_tail)] = (struct vgpu_desc){
        .slot = slot,
        .length = length,
        .tag = tag,
    };
    d->submit_tail++;
}

bool ring_driver_publish(struct ring_driver *d)
{
    uint32_t before = d->published;

    if (before == d->submit_tail) {
        return false;
    }
    if (d->write_combining) {
        write_combining_fence();
    }
    store_release(&d->map.driver->submit_tail, d->submit_tail);
    d->published = d->submit_tail;
    full_fence();
    return vgpu_ring_crossed(load_relaxed(&d->map.device->submit_event), before, d->submit_tail);
}

bool ring_driver_unheard(const struct ring_driver *d)
{
    return vgpu_ring_crossed(load_relaxed(&d->map.device->submit_event), d->complete_head,
                             d->published);
}

static int device_broke(struct ring_driver *d, const char *wrong)
{
    d->wrong = wrong;
    return RING_E_BROKEN;
}

int ring_collect(struct ring_driver *d, struct vgpu_completion *ret)
{
    uint32_t ahead;

    if (d->wrong) {
        return RING_E_BROKEN;
    }
    ahead = load_acquire(&d->map.device->complete_tail) - d->complete_head;
    if (ahead == 0) {
        return RING_E_EMPTY;
    }
    if (ahead > d->map.shape.entries) {
        return device_broke(d, "complete_tail jumped");
    }
    ring_copy_in(ret, &d->map.completions[entry(&d->map, d->complete_head)], sizeof(*ret));
    if (ret->slot >= d->map.shape.entries || !d->busy[ret->slot]) {
        return device_broke(d, "a completion of a slot that is not in flight");
    }
    if (ret->length > d->map.shape.slot_bytes) {
        return device_broke(d, "a completion of a response that is larger than its slot");
    }
    d->busy[ret->slot] = false;
    d->complete_head++;
    return 0;
}

bool ring_driver_arm(struct ring_driver *d)
{
    store_release(&d->map.driver->complete_event, d->complete_head);
    full_fence();
    return !d->wrong && load_acquire(&d->map.device->complete_tail) != d->complete_head;
}

uint32_t ring_driver_flags(const struct ring_driver *d)
{
    return load_acquire(&d->map.device->flags);
}

/* ---- the device's end ---- */

void ring_device_init(struct ring_device *d, void *base, const struct ring_shape *shape,
                      uint32_t submit_head, uint32_t complete_tail)
{
    *d = (struct ring_device){
        .submit_head = submit_head,
        .complete_tail = complete_tail,
        .published = complete_tail,
    };
    ring_map(&d->map, base, shape);
    store_release(&d->map.device->complete_tail, complete_tail);
}

static int driver_broke(struct ring_device *d, const char *wrong)
{
    d->wrong = wrong;
    return RING_E_BROKEN;
}

static bool is_zero(const uint8_t *bytes, size_t length)
{
    uint8_t any = 0;

    for (size_t i = 0; i < length; i++) {
        any |= bytes[i];
    }
    return any == 0;
}

int ring_take(struct ring_device *d, struct vgpu_desc *ret)
{
    uint32_t ahead;

    if (d->wrong) {
        return RING_E_BROKEN;
    }
    ahead = load_acquire(&d->map.driver->submit_tail) - d->submit_head;
    if (ahead == 0) {
        return RING_E_EMPTY;
    }
    if (ahead > d->map.shape.entries) {
        return driver_broke(d, "submit_tail jumped");
    }
    ring_copy_in(ret, &d->map.descs[entry(&d->map, d->submit_head)], sizeof(*ret));
    if (ret->slot >= d->map.shape.entries) {
        return driver_broke(d, "a descriptor names a slot that does not exist");
    }
    if (ret->length == 0 || ret->length > d->map.shape.slot_bytes) {
        return driver_broke(d, "a descriptor has the length of no request");
    }
    if (!is_zero(ret->reserved, sizeof(ret->reserved))) {
        return driver_broke(d, "a reserved field of a descriptor is not zero");
    }
    d->submit_head++;
    return 0;
}

uint32_t ring_waiting(const struct ring_device *d)
{
    uint32_t ahead = load_acquire(&d->map.driver->submit_tail) - d->submit_head;

    if (d->wrong) {
        return 0;
    }
    return ahead < d->map.shape.entries ? ahead : d->map.shape.entries;
}

void ring_complete(struct ring_device *d, const struct vgpu_completion *completion)
{
    memcpy(&d->map.completions[entry(&d->map, d->complete_tail)], completion, sizeof(*completion));
    d->complete_tail++;
}

bool ring_device_publish(struct ring_device *d)
{
    uint32_t before = d->published;

    if (before == d->complete_tail) {
        return false;
    }
    store_release(&d->map.device->complete_tail, d->complete_tail);
    d->published = d->complete_tail;
    full_fence();
    return vgpu_ring_crossed(load_relaxed(&d->map.driver->complete_event), before,
                             d->complete_tail);
}

bool ring_device_arm(struct ring_device *d)
{
    store_release(&d->map.device->submit_event, d->submit_head);
    full_fence();
    return !d->wrong && load_acquire(&d->map.driver->submit_tail) != d->submit_head;
}

void ring_device_set_flags(struct ring_device *d, uint32_t flags)
{
    store_release(&d->map.device->flags, flags);
}

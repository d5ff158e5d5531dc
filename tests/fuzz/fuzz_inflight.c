/* SPDX-License-Identifier: MIT */
/*
 * fuzz_inflight.c - a mediator that adopts an in-flight area: one that another mediator used and that was
 * then damaged, or any bytes. What it adopts is consistent, and adopting it again changes nothing.
 */
#include <stdbool.h>

#include "local-mediator/core/inflight.h"
#include "tests/fuzz/fuzz.h"

#define RINGS 2u
#define ENTRIES 16u
#define BYTES (64u + 64u * RINGS + 64u * RINGS * ENTRIES)
#define EPOCH 3u

static _Alignas(64) uint8_t area[BYTES];

/* What the requests are meant to be, as a mediator that was never killed would know. */
struct wanted {
    uint64_t count[RINGS];
    uint32_t complete_tail[RINGS];
    enum vgpu_inflight_state state[RINGS][ENTRIES];
};

/* One step of a mediator at work: take, start or complete. */
static void work(struct inflight *f, struct wanted *w, unsigned what, unsigned where)
{
    unsigned ring = where % RINGS, slot = where / RINGS % ENTRIES;
    enum vgpu_inflight_state *state = &w->state[ring][slot];

    if (what % 3 == 0 && *state == VGPU_INFLIGHT_FREE) {
        const struct vgpu_inflight_slot record = {
            .index = (uint32_t)w->count[ring],
            .seq = VGPU_RING_SEQ(ring, w->count[ring] + 1),
            .tag = where,
            .length = 64,
        };

        inflight_take(f, ring, slot, &record);
        w->count[ring]++;
        *state = VGPU_INFLIGHT_TAKEN;
    } else if (what % 3 == 1 && *state == VGPU_INFLIGHT_TAKEN) {
        inflight_start(f, ring, slot);
        *state = VGPU_INFLIGHT_STARTED;
    } else if (what % 3 == 2 && *state != VGPU_INFLIGHT_FREE) {
        inflight_complete(f, ring, slot, w->complete_tail[ring]++, what & 8);
        *state = VGPU_INFLIGHT_FREE;
    }
}

/* Where the indices of a ring start after a long life: near their wrap, too. */
static void start_at(struct inflight *f, struct wanted *w, uint64_t count)
{
    for (unsigned i = 0; i < RINGS; i++) {
        w->count[i] = count & UINT64_C(0xffffffffff);
        w->complete_tail[i] = (uint32_t)w->count[i];
        f->rings[i].submit_count = w->count[i];
        f->rings[i].complete_tail = w->complete_tail[i];
    }
}

static void check_as_wanted(const struct inflight *f, const struct wanted *w)
{
    for (unsigned i = 0; i < RINGS; i++) {
        fuzz_check(f->rings[i].submit_count == w->count[i]);
        fuzz_check(f->rings[i].complete_tail == w->complete_tail[i]);
        for (unsigned s = 0; s < ENTRIES; s++) {
            fuzz_check(inflight_slot(f, i, s)->state == w->state[i][s]);
        }
    }
}

/* What the mediator relies on after it adopted an area. */
static void check_adopted(const struct inflight *f)
{
    for (unsigned ring = 0; ring < RINGS; ring++) {
        uint32_t slots[ENTRIES];
        uint32_t n = inflight_in_order(f, ring, slots);

        fuzz_check(n <= ENTRIES);
        fuzz_check((uint32_t)f->rings[ring].submit_count - f->rings[ring].complete_tail == n);
        for (uint32_t i = 0; i < n; i++) {
            const struct vgpu_inflight_slot *s = inflight_slot(f, ring, slots[i]);

            fuzz_check(slots[i] < ENTRIES);
            fuzz_check(s->state == VGPU_INFLIGHT_TAKEN || s->state == VGPU_INFLIGHT_STARTED);
            fuzz_check(s->seq >> 48 == ring + 1 && s->seq != VGPU_RING_SEQ(ring, 0));
            fuzz_check(i == 0 || inflight_slot(f, ring, slots[i - 1])->seq < s->seq);
        }
    }
}

static void damage(struct fuzz_input *in)
{
    while (in->left > 0) {
        size_t at = fuzz_take(in, 2) % BYTES;
        size_t length = 1 + fuzz_take(in, 1) % 8;

        fuzz_copy(in, area + at, length < BYTES - at ? length : BYTES - at);
    }
}

static void adopt(struct inflight *f)
{
    static _Alignas(64) uint8_t before[BYTES];

    if (inflight_adopt(f, EPOCH, 2) != 0) {
        return;
    }
    check_adopted(f);
    memcpy(before, area, BYTES);
    fuzz_check(inflight_adopt(f, EPOCH, 2) == 0 && memcmp(before, area, BYTES) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct inflight f;
    struct wanted w;
    unsigned steps;

    memset(&w, 0, sizeof(w));
    memset(area, 0, BYTES);
    inflight_map(&f, area, RINGS, ENTRIES);
    inflight_reset(&f, EPOCH, 1);
    start_at(&f, &w, fuzz_take(&in, 5));
    steps = (unsigned)fuzz_take(&in, 1);
    while (steps-- > 0) {
        unsigned what = (unsigned)fuzz_take(&in, 1);

        work(&f, &w, what, (unsigned)fuzz_take(&in, 1));
    }
    fuzz_check(inflight_adopt(&f, EPOCH + 1, 2) == INFLIGHT_E_NONE);
    fuzz_check(inflight_adopt(&f, EPOCH, 2) == 0);
    check_as_wanted(&f, &w);
    check_adopted(&f);
    damage(&in);
    adopt(&f);
    return 0;
}

/* SPDX-License-Identifier: MIT */
#include "local-mediator/core/inflight.h"

#include <stdlib.h>
#include <string.h>

#define VERSION 1u
#define COUNT_MASK UINT64_C(0xffffffffffff)

/* A kill stops this thread between two instructions: what it stored before stays, whatever it is. So
 * the compiler alone has to keep the order; a release store does that, and is a plain one on x86. */
static void store_32(uint32_t *word, uint32_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static void store_64(uint64_t *word, uint64_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

void inflight_map(struct inflight *f, void *base, uint32_t rings, uint32_t entries)
{
    uint8_t *b = base;

    *f = (struct inflight){
        .head = (void *)b,
        .rings = (void *)(b + sizeof(struct vgpu_inflight)),
        .slots =
            (void *)(b + sizeof(struct vgpu_inflight) + rings * sizeof(struct vgpu_inflight_ring)),
        .n_rings = rings,
        .entries = entries,
    };
}

void inflight_reset(struct inflight *f, uint32_t epoch, uint64_t mediator_gen)
{
    store_32(&f->head->magic, 0);
    memset(f->rings, 0, f->n_rings * sizeof(*f->rings));
    memset(f->slots, 0, (size_t)f->n_rings * f->entries * sizeof(*f->slots));
    f->head->version = VERSION;
    f->head->rings = (uint16_t)f->n_rings;
    f->head->entries = f->entries;
    f->head->epoch = epoch;
    f->head->mediator_gen = mediator_gen;
    f->head->flags = 0;
    memset(f->head->reserved, 0, sizeof(f->head->reserved));
    store_32(&f->head->magic, VGPU_INFLIGHT_MAGIC);
}

void inflight_break(struct inflight *f)
{
    store_32(&f->head->flags, VGPU_INFLIGHT_BROKEN);
}

void inflight_take(struct inflight *f, uint32_t ring, uint32_t slot,
                   const struct vgpu_inflight_slot *record)
{
    struct vgpu_inflight_slot *s = inflight_slot(f, ring, slot);

    s->index = record->index;
    s->seq = record->seq;
    s->tag = record->tag;
    s->length = record->length;
    s->deadline_ns = record->deadline_ns;
    store_32(&s->state, VGPU_INFLIGHT_TAKEN);
    store_64(&f->rings[ring].submit_count, record->seq & COUNT_MASK);
}

void inflight_start(struct inflight *f, uint32_t ring, uint32_t slot)
{
    store_32(&inflight_slot(f, ring, slot)->state, VGPU_INFLIGHT_STARTED);
}

/* What follows once the state COMPLETING is there: the next mediator does it if this one cannot. */
static void finish_completing(struct inflight *f, uint32_t ring, struct vgpu_inflight_slot *s)
{
    struct vgpu_inflight_ring *r = &f->rings[ring];

    if (s->error) {
        store_32(&r->failed, 1);
    }
    store_32(&r->complete_tail, s->complete_index + 1);
    store_32(&s->state, VGPU_INFLIGHT_FREE);
}

void inflight_complete(struct inflight *f, uint32_t ring, uint32_t slot, uint32_t complete_index,
                       uint32_t error)
{
    struct vgpu_inflight_slot *s = inflight_slot(f, ring, slot);

    s->complete_index = complete_index;
    s->error = error;
    store_32(&s->state, VGPU_INFLIGHT_COMPLETING);
    finish_completing(f, ring, s);
}

void inflight_forget_failures(struct inflight *f, uint32_t ring)
{
    store_32(&f->rings[ring].failed, 0);
}

/* ---- the next mediator ---- */

static bool head_fits(const struct inflight *f)
{
    const struct vgpu_inflight *h = f->head;

    return h->magic == VGPU_INFLIGHT_MAGIC && h->version == VERSION && h->rings == f->n_rings &&
           h->entries == f->entries && !(h->flags & ~VGPU_INFLIGHT_BROKEN);
}

/* Whether the record can be one of a request in flight. */
static bool record_fits(const struct inflight *f, uint32_t ring, const struct vgpu_inflight_slot *s)
{
    uint64_t count = s->seq & COUNT_MASK;

    return s->seq >> 48 == ring + UINT64_C(1) && count >= 1 && (uint32_t)(count - 1) == s->index &&
           count <= (f->rings[ring].submit_count & COUNT_MASK);
}

/* The record was written, submit_count was not: nothing has happened yet. */
static bool is_half_taken(const struct inflight *f, uint32_t ring,
                          const struct vgpu_inflight_slot *s)
{
    return s->state == VGPU_INFLIGHT_TAKEN &&
           s->seq == VGPU_RING_SEQ(ring, f->rings[ring].submit_count + 1);
}

/* Return: whether the slot fits; requests in flight are counted. */
static bool adopt_slot(struct inflight *f, uint32_t ring, struct vgpu_inflight_slot *s,
                       uint32_t *in_flight)
{
    uint32_t tail = f->rings[ring].complete_tail;

    switch (s->state) {
    case VGPU_INFLIGHT_FREE:
        return true;
    case VGPU_INFLIGHT_TAKEN:
        if (is_half_taken(f, ring, s)) {
            store_32(&s->state, VGPU_INFLIGHT_FREE);
            return true;
        }
        (*in_flight)++;
        return record_fits(f, ring, s);
    case VGPU_INFLIGHT_STARTED:
        (*in_flight)++;
        return record_fits(f, ring, s);
    case VGPU_INFLIGHT_COMPLETING:
        if (!record_fits(f, ring, s) || tail - s->complete_index > 1) {
            return false;
        }
        finish_completing(f, ring, s);
        return true;
    default:
        return false;
    }
}

static bool adopt_ring(struct inflight *f, uint32_t ring)
{
    const struct vgpu_inflight_ring *r = &f->rings[ring];
    uint32_t in_flight = 0;

    for (uint32_t i = 0; i < f->entries; i++) {
        if (!adopt_slot(f, ring, inflight_slot(f, ring, i), &in_flight)) {
            return false;
        }
    }
    return (uint32_t)r->submit_count - r->complete_tail == in_flight && r->failed <= 1;
}

static bool is_twice(const struct inflight *f, uint32_t ring, const uint32_t *slots, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        if (inflight_slot(f, ring, slots[i])->seq == inflight_slot(f, ring, slots[i - 1])->seq) {
            return true;
        }
    }
    return false;
}

int inflight_adopt(struct inflight *f, uint32_t epoch, uint64_t mediator_gen)
{
    uint32_t *slots;
    bool fits = true;

    if (f->head->magic == 0 || (head_fits(f) && f->head->epoch != epoch)) {
        return INFLIGHT_E_NONE;
    }
    if (!head_fits(f)) {
        return INFLIGHT_E_VOID;
    }
    if (f->head->flags & VGPU_INFLIGHT_BROKEN) {
        return INFLIGHT_E_BROKEN;
    }
    slots = malloc(f->entries * sizeof(*slots));
    for (uint32_t i = 0; i < f->n_rings && fits; i++) {
        fits = slots && adopt_ring(f, i) && !is_twice(f, i, slots, inflight_in_order(f, i, slots));
    }
    free(slots);
    if (!fits) {
        return INFLIGHT_E_VOID;
    }
    store_64(&f->head->mediator_gen, mediator_gen);
    return 0;
}

/* qsort() has no argument for the area: sort pairs. */
struct pair {
    uint64_t seq;
    uint32_t slot;
};

static int compare(const void *a, const void *b)
{
    const struct pair *x = a;
    const struct pair *y = b;

    return x->seq < y->seq ? -1 : x->seq > y->seq;
}

uint32_t inflight_in_order(const struct inflight *f, uint32_t ring, uint32_t *ret_slots)
{
    struct pair pairs[VGPU_RING_ENTRIES_MAX];
    uint32_t count = 0;

    for (uint32_t i = 0; i < f->entries; i++) {
        const struct vgpu_inflight_slot *s = inflight_slot(f, ring, i);

        if (s->state == VGPU_INFLIGHT_TAKEN || s->state == VGPU_INFLIGHT_STARTED) {
            pairs[count].seq = s->seq;
            pairs[count++].slot = i;
        }
    }
    qsort(pairs, count, sizeof(pairs[0]), compare);
    for (uint32_t i = 0; i < count; i++) {
        ret_slots[i] = pairs[i].slot;
    }
    return count;
}

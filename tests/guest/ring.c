/* SPDX-License-Identifier: MIT */
/* See ring.h. */
#include "tests/guest/ring.h"

#include "tests/guest/cpu.h"

#define DESCS (2u * RING_PAGE)

static uint64_t next_tag = 0x5247000000000000ull;

uint32_t ring_count(const struct device *d)
{
    return reg_read(d, REG_FEATURES) & FEATURE_RING ? reg_read(d, REG_RING_COUNT) : 0;
}

const char *ring_open(const struct device *d, uint32_t number, struct ring *ret)
{
    uint32_t n = reg_read(d, REG_RING_ENTRIES);
    uint8_t *base = (uint8_t *)(uintptr_t)(uint32_t)d->bars[2].base + reg_read(d, REG_RING_OFFSET) +
                    number * reg_read(d, REG_RING_STRIDE);

    if (number >= ring_count(d)) {
        return "the device has no such ring";
    }
    if (n < 16 || n > RING_ENTRIES_MAX || (n & (n - 1)) != 0) {
        return "RING_ENTRIES is not a power of two from 16 to 4096";
    }
    memset(ret, 0, sizeof(*ret));
    ret->device = d;
    ret->number = number;
    ret->entries = n;
    ret->slot_bytes = reg_read(d, REG_SLOT_BYTES);
    ret->ours = (void *)base;
    ret->theirs = (void *)(base + RING_PAGE);
    ret->descs = (void *)(base + DESCS);
    ret->completions = (void *)(base + DESCS + 64 * n);
    ret->slots = base + ((DESCS + 64 * n + 32 * n + RING_PAGE - 1) & ~(RING_PAGE - 1));
    ret->n_free = n;
    for (uint32_t i = 0; i < n; i++) {
        ret->free[i] = (uint16_t)(n - 1 - i);
    }
    return NULL;
}

uint8_t *ring_request(const struct ring *r, uint32_t slot)
{
    return r->slots + slot * (2 * r->slot_bytes + 64);
}

uint8_t *ring_response(const struct ring *r, uint32_t slot)
{
    return ring_request(r, slot) + r->slot_bytes;
}

uint32_t ring_put(struct ring *r, const struct call *c, uint64_t tag)
{
    volatile struct ring_desc *d = &r->descs[r->submit_tail % r->entries];
    uint32_t slot;

    if (r->n_free == 0) {
        return ~0u;
    }
    slot = r->free[--r->n_free];
    r->busy[slot] = 1;
    d->length = call_encode(c, tag, ring_request(r, slot));
    d->slot = slot;
    d->tag = tag;
    for (unsigned i = 0; i < 12; i++) {
        d->reserved[i] = 0;
    }
    r->submit_tail++;
    return slot;
}

bool ring_publish(struct ring *r)
{
    uint32_t before = r->published;

    if (before == r->submit_tail) {
        return false;
    }
    cpu_fence();
    r->ours->submit_tail = r->submit_tail;
    r->published = r->submit_tail;
    cpu_fence();
    if (r->submit_tail - r->theirs->submit_event - 1 >= r->submit_tail - before) {
        return false;
    }
    reg_write(r->device, REG_RING_DOORBELL + 4 * r->number, 1);
    r->doorbells++;
    return true;
}

bool ring_arm(struct ring *r)
{
    r->ours->complete_event = r->complete_head;
    cpu_fence();
    return r->theirs->complete_tail != r->complete_head;
}

bool ring_take(struct ring *r, struct ring_completion *ret)
{
    volatile struct ring_completion *c = &r->completions[r->complete_head % r->entries];

    if (r->theirs->complete_tail == r->complete_head) {
        return false;
    }
    __asm__ volatile("" ::: "memory"); /* x86 keeps loads in order */
    ret->tag = c->tag;
    ret->seq = c->seq;
    ret->slot = c->slot;
    ret->length = c->length;
    ret->error = c->error;
    ret->reserved = c->reserved;
    r->complete_head++;
    if (ret->slot < r->entries && r->busy[ret->slot]) {
        r->busy[ret->slot] = 0;
        r->free[r->n_free++] = (uint16_t)ret->slot;
    } else {
        say("# a completion names slot %u, which is not in use\n", ret->slot);
        ret->slot = 0;
        ret->error = ~1u;
    }
    return true;
}

bool ring_wait(struct ring *r, uint32_t ms, struct ring_completion *ret)
{
    uint64_t end = cpu_after_ms(ms);

    while (!ring_take(r, ret)) {
        if (cpu_tsc() > end) {
            return false;
        }
        cpu_pause();
    }
    return true;
}

void ring_answer(const struct ring *r, const struct ring_completion *done, struct answer *ret)
{
    const uint8_t *bytes = ring_response(r, done->slot);

    memset(ret, 0, sizeof(*ret));
    ret->state = done->error ? STATE_ERROR : STATE_DONE;
    ret->error = done->error;
    ret->len = done->length;
    if (ret->len >= sizeof(ret->hdr) && ret->len <= WINDOW_SIZE) {
        memcpy(&ret->hdr, bytes, sizeof(ret->hdr));
        memcpy(ret->payload, bytes + sizeof(ret->hdr), ret->len - sizeof(ret->hdr));
    }
}

uint32_t ring_call(struct ring *r, const struct call *c, uint32_t ms, struct answer *ret)
{
    struct ring_completion done;
    uint64_t tag = ++next_tag;

    if (ring_put(r, c, tag) == ~0u) {
        return ~1u;
    }
    ring_publish(r);
    if (!ring_wait(r, ms, &done)) {
        return ~0u;
    }
    ring_answer(r, &done, ret);
    if (done.tag != tag || ret->hdr.tag != tag || ret->hdr.seq != done.seq ||
        ret->hdr.error != done.error || ret->hdr.size != done.length || done.reserved != 0) {
        say("# completion: error %u, length %u; response: error %u, size %u\n", done.error,
            done.length, ret->hdr.error, ret->hdr.size);
        return ~1u;
    }
    return done.error;
}

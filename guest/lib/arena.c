/* SPDX-License-Identifier: MIT */
/* arena.c - see arena.h */
#include <errno.h>
#include <stdlib.h>

#include "guest/lib/arena.h"

void arena_init(struct arena *a, struct transport *transport)
{
    *a = (struct arena){.transport = transport};
    pthread_mutex_init(&a->lock, NULL);
}

static void part_drop(struct arena *a, unsigned i)
{
    ranges_fini(&a->parts[i].ranges);
    a->transport->ops->unclaim(a->transport, &a->parts[i].span);
    a->parts[i] = a->parts[--a->nparts];
}

static void free_list(struct arena_block *b)
{
    while (b) {
        struct arena_block *next = b->next;

        free(b);
        b = next;
    }
}

void arena_fini(struct arena *a)
{
    while (a->nparts) {
        part_drop(a, a->nparts - 1);
    }
    free_list(a->used);
    free_list(a->put_off);
    a->used = NULL;
    a->put_off = NULL;
    pthread_mutex_destroy(&a->lock);
}

static int part_alloc(struct arena_part *p, uint64_t bytes, uint64_t *ret_offset)
{
    uint64_t offset;
    int r = ranges_alloc(&p->ranges, bytes, &offset);

    if (r == 0) {
        *ret_offset = p->span.offset + offset;
    }
    return r;
}

/* One more part, large enough for @bytes. Prefers a whole ARENA_PART_BYTES to the bare need. */
static int part_add(struct arena *a, uint64_t bytes)
{
    struct arena_part *p = &a->parts[a->nparts];
    uint64_t roomy = bytes < ARENA_PART_BYTES ? ARENA_PART_BYTES : bytes;
    int r;

    if (a->nparts == ARENA_PARTS_MAX) {
        return -ENOMEM;
    }
    r = a->transport->ops->claim(a->transport, roomy, &p->span);
    if (r && roomy != bytes) {
        r = a->transport->ops->claim(a->transport, bytes, &p->span);
    }
    if (r) {
        return -ENOMEM;
    }
    r = ranges_init(&p->ranges, p->span.length, VGPU_ARENA_ALIGN);
    if (r) {
        a->transport->ops->unclaim(a->transport, &p->span);
        return r;
    }
    a->nparts++;
    return 0;
}

static int alloc_locked(struct arena *a, uint64_t bytes, uint64_t *ret_offset)
{
    int r;

    for (unsigned i = 0; i < a->nparts; i++) {
        if (part_alloc(&a->parts[i], bytes, ret_offset) == 0) {
            return 0;
        }
    }
    r = part_add(a, bytes);
    if (r) {
        return r;
    }
    return part_alloc(&a->parts[a->nparts - 1], bytes, ret_offset) == 0 ? 0 : -ENOMEM;
}

int arena_alloc(struct arena *a, uint64_t bytes, uint64_t *ret_offset)
{
    const struct transport_limits *l = &a->transport->limits;
    struct arena_block *b;
    int r;

    if (!l->arena) {
        return -ENOTSUP;
    }
    if (bytes == 0) {
        return -EINVAL;
    }
    if (bytes > l->arena_bytes) {
        return -ENOMEM;
    }
    b = malloc(sizeof(*b));
    if (!b) {
        return -ENOMEM;
    }
    b->length = (bytes + VGPU_ARENA_ALIGN - 1) & ~(uint64_t)(VGPU_ARENA_ALIGN - 1);
    pthread_mutex_lock(&a->lock);
    r = alloc_locked(a, b->length, &b->offset);
    if (r == 0) {
        b->next = a->used;
        a->used = b;
        *ret_offset = b->offset;
        b = NULL;
    }
    pthread_mutex_unlock(&a->lock);
    free(b);
    return r;
}

static void give_back(struct arena *a, const struct arena_block *b)
{
    for (unsigned i = 0; i < a->nparts; i++) {
        struct arena_part *p = &a->parts[i];

        if (b->offset < p->span.offset || b->offset - p->span.offset >= p->span.length) {
            continue;
        }
        ranges_free(&p->ranges, b->offset - p->span.offset, b->length);
        if (p->ranges.n_alloc == 0 && (i > 0 || p->span.length > ARENA_PART_BYTES)) {
            part_drop(a, i);
        }
        return;
    }
}

static struct arena_block *take_used(struct arena *a, uint64_t offset)
{
    for (struct arena_block **at = &a->used; *at; at = &(*at)->next) {
        if ((*at)->offset == offset) {
            struct arena_block *b = *at;

            *at = b->next;
            return b;
        }
    }
    return NULL;
}

int arena_free(struct arena *a, uint64_t offset)
{
    struct arena_block *b;

    pthread_mutex_lock(&a->lock);
    b = take_used(a, offset);
    if (b && a->holds) {
        b->next = a->put_off;
        a->put_off = b;
    } else if (b) {
        give_back(a, b);
        free(b);
    }
    pthread_mutex_unlock(&a->lock);
    return b ? 0 : -EINVAL;
}

void arena_hold(struct arena *a)
{
    pthread_mutex_lock(&a->lock);
    a->holds++;
    pthread_mutex_unlock(&a->lock);
}

void arena_unhold(struct arena *a)
{
    pthread_mutex_lock(&a->lock);
    if (--a->holds == 0) {
        for (struct arena_block *b = a->put_off; b; b = b->next) {
            give_back(a, b);
        }
        free_list(a->put_off);
        a->put_off = NULL;
    }
    pthread_mutex_unlock(&a->lock);
}

uint64_t arena_largest(struct arena *a)
{
    uint64_t largest = 0;
    uint64_t want = a->transport->limits.arena_bytes;
    struct ranges_span span;

    if (!a->transport->limits.arena) {
        return 0;
    }
    pthread_mutex_lock(&a->lock);
    for (unsigned i = 0; i < a->nparts; i++) {
        uint64_t n = ranges_largest(&a->parts[i].ranges);

        largest = n > largest ? n : largest;
    }
    /* Ask for less and less until there is an answer, to within a sixteenth of the arena. */
    for (uint64_t less = want / 16; want > largest && want >= less && less; want -= less) {
        if (a->transport->ops->claim(a->transport, want, &span) == 0) {
            a->transport->ops->unclaim(a->transport, &span);
            largest = span.length;
            break;
        }
    }
    pthread_mutex_unlock(&a->lock);
    return largest;
}

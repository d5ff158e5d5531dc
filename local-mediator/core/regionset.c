/* SPDX-License-Identifier: MIT */
#include "local-mediator/core/regionset.h"

#include <errno.h>
#include <stdlib.h>

#define NONE UINT32_MAX
#define CAPACITY_MIN 16u

struct regionset_entry {
    uint32_t number; /* 0: unused */
    uint32_t next;   /* in its bucket, or unused */
    uint32_t older, newer;
    uint32_t users;
    uint32_t leaving; /* times that it was told to go and is not gone yet */
    bool attached;
};

/* Numbers are given one by one: their low bits are as good as a hash. */
static uint32_t *bucket_of(const struct regionset *s, uint32_t number)
{
    return &s->buckets[number & (s->capacity - 1)];
}

static struct regionset_entry *find(const struct regionset *s, uint32_t number)
{
    uint32_t at = s->capacity ? *bucket_of(s, number) : NONE;

    while (at != NONE && s->entries[at].number != number) {
        at = s->entries[at].next;
    }
    return at == NONE ? NULL : &s->entries[at];
}

static uint32_t index_of(const struct regionset *s, const struct regionset_entry *e)
{
    return (uint32_t)(e - s->entries);
}

/* ---- the idle ones, oldest first ---- */

static void idle_push(struct regionset *s, struct regionset_entry *e)
{
    uint32_t at = index_of(s, e);

    e->older = s->newest;
    e->newer = NONE;
    *(s->newest == NONE ? &s->oldest : &s->entries[s->newest].newer) = at;
    s->newest = at;
}

static void idle_remove(struct regionset *s, struct regionset_entry *e)
{
    *(e->older == NONE ? &s->oldest : &s->entries[e->older].newer) = e->newer;
    *(e->newer == NONE ? &s->newest : &s->entries[e->newer].older) = e->older;
}

/* ---- entries ---- */

static int grow(struct regionset *s)
{
    uint32_t capacity = s->capacity ? 2 * s->capacity : CAPACITY_MIN;
    struct regionset_entry *entries = realloc(s->entries, capacity * sizeof(*entries));
    uint32_t *buckets;

    if (!entries) {
        return -ENOMEM;
    }
    s->entries = entries;
    buckets = realloc(s->buckets, capacity * sizeof(*buckets));
    if (!buckets) {
        return -ENOMEM;
    }
    s->buckets = buckets;
    for (uint32_t i = 0; i < capacity; i++) {
        buckets[i] = NONE;
    }
    if (!s->capacity) {
        s->oldest = s->newest = NONE;
    }
    s->free = NONE;
    for (uint32_t i = s->capacity; i < capacity; i++) {
        entries[i] = (struct regionset_entry){.next = s->free};
        s->free = i;
    }
    for (uint32_t i = 0; i < s->capacity; i++) {
        uint32_t *bucket = &buckets[entries[i].number & (capacity - 1)];

        entries[i].next = *bucket;
        *bucket = i;
    }
    s->capacity = capacity;
    return 0;
}

/* Grows only when every entry is used: grow() relies on it. */
static struct regionset_entry *make(struct regionset *s, uint32_t number)
{
    struct regionset_entry *e;
    uint32_t at;

    if ((!s->capacity || s->free == NONE) && grow(s) < 0) {
        return NULL;
    }
    at = s->free;
    e = &s->entries[at];
    s->free = e->next;
    *e = (struct regionset_entry){.number = number, .next = *bucket_of(s, number)};
    *bucket_of(s, number) = at;
    return e;
}

static void drop_if_unused(struct regionset *s, struct regionset_entry *e)
{
    uint32_t at = index_of(s, e);
    uint32_t *link = bucket_of(s, e->number);

    if (e->attached || e->leaving) {
        return;
    }
    while (*link != at) {
        link = &s->entries[*link].next;
    }
    *link = e->next;
    *e = (struct regionset_entry){.next = s->free};
    s->free = at;
}

static void detach(struct regionset *s, struct regionset_entry *e)
{
    if (!e->users) {
        idle_remove(s, e);
    }
    e->attached = false;
    e->users = 0;
    s->count--;
}

/* ---- the interface ---- */

void regionset_fini(struct regionset *s)
{
    free(s->entries);
    free(s->buckets);
    *s = (struct regionset){0};
}

bool regionset_has(const struct regionset *s, uint32_t number)
{
    const struct regionset_entry *e = find(s, number);

    return e && e->attached;
}

int regionset_add(struct regionset *s, uint32_t number)
{
    struct regionset_entry *e = find(s, number);

    e = e ? e : make(s, number);
    if (!e) {
        return -ENOMEM;
    }
    e->attached = true;
    e->users = 0;
    s->count++;
    idle_push(s, e);
    return 0;
}

void regionset_hold(struct regionset *s, uint32_t number)
{
    struct regionset_entry *e = find(s, number);

    if (e && e->attached && e->users++ == 0) {
        idle_remove(s, e);
    }
}

void regionset_release(struct regionset *s, uint32_t number)
{
    struct regionset_entry *e = find(s, number);

    if (e && e->attached && e->users && --e->users == 0) {
        idle_push(s, e);
    }
}

uint32_t regionset_idle(const struct regionset *s)
{
    return s->capacity && s->oldest != NONE ? s->entries[s->oldest].number : 0;
}

bool regionset_leave(struct regionset *s, uint32_t number)
{
    struct regionset_entry *e = find(s, number);

    if (!e || !e->attached) {
        return false;
    }
    detach(s, e);
    e->leaving++;
    s->leaving++;
    return true;
}

bool regionset_gone(struct regionset *s, uint32_t number)
{
    struct regionset_entry *e = find(s, number);
    bool refused;

    if (!e) {
        return false;
    }
    refused = !e->leaving;
    if (refused) {
        detach(s, e);
    } else {
        e->leaving--;
        s->leaving--;
    }
    drop_if_unused(s, e);
    return refused;
}

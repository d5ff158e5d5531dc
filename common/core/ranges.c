/* SPDX-License-Identifier: MIT */
/* ranges.c - first-fit range allocator over a sorted array of free ranges; see ranges.h */
#include "common/core/ranges.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool is_aligned(const struct ranges *r, uint64_t value)
{
    return (value & (r->align - 1)) == 0;
}

/* Every handed-out range can add one free range when it comes back, so that many must fit. */
static int reserve(struct ranges *r)
{
    size_t want = r->n_alloc + r->n_free + 2;
    struct ranges_span *spans;
    size_t cap;

    if (want <= r->cap) {
        return 0;
    }
    cap = want < 16 ? 16 : want * 2;
    spans = realloc(r->spans, cap * sizeof(*spans));
    if (!spans) {
        return -ENOMEM;
    }
    r->spans = spans;
    r->cap = cap;
    return 0;
}

static void insert_at(struct ranges *r, size_t i, uint64_t offset, uint64_t length)
{
    assert(r->spans); /* reserve() made room */
    memmove(&r->spans[i + 1], &r->spans[i], (r->n_free - i) * sizeof(*r->spans));
    r->spans[i] = (struct ranges_span){offset, length};
    r->n_free++;
}

static void remove_at(struct ranges *r, size_t i)
{
    r->n_free--;
    memmove(&r->spans[i], &r->spans[i + 1], (r->n_free - i) * sizeof(*r->spans));
}

int ranges_init(struct ranges *r, uint64_t size, uint64_t align)
{
    struct ranges n = {.align = align};
    int err;

    if (align == 0 || (align & (align - 1)) != 0 || (size & (align - 1)) != 0) {
        return -EINVAL;
    }
    err = reserve(&n);
    if (err) {
        return err;
    }
    if (size > 0) {
        insert_at(&n, 0, 0, size);
    }
    n.size = size;
    n.free_bytes = size;
    *r = n;
    return 0;
}

void ranges_fini(struct ranges *r)
{
    free(r->spans);
    memset(r, 0, sizeof(*r));
}

static uint64_t round_up(const struct ranges *r, uint64_t length)
{
    return (length + r->align - 1) & ~(r->align - 1);
}

int ranges_alloc(struct ranges *r, uint64_t length, uint64_t *ret_offset)
{
    int err;

    if (length == 0) {
        return -EINVAL;
    }
    if (length > r->size) {
        return RANGES_E_NEVER;
    }
    length = round_up(r, length);
    err = reserve(r);
    if (err) {
        return err;
    }
    for (size_t i = 0; i < r->n_free; i++) {
        struct ranges_span *s = &r->spans[i];

        if (s->length < length) {
            continue;
        }
        *ret_offset = s->offset;
        s->offset += length;
        s->length -= length;
        if (s->length == 0) {
            remove_at(r, i);
        }
        r->n_alloc++;
        r->free_bytes -= length;
        return 0;
    }
    return RANGES_E_FULL;
}

/* Index of the first free range that starts after @offset. */
static size_t upper(const struct ranges *r, uint64_t offset)
{
    size_t lo = 0;
    size_t hi = r->n_free;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (r->spans[mid].offset > offset) {
            hi = mid;
        } else {
            lo = mid + 1;
        }
    }
    return lo;
}

static void join(struct ranges *r, size_t next, uint64_t offset, uint64_t length)
{
    struct ranges_span *before = next > 0 ? &r->spans[next - 1] : NULL;
    struct ranges_span *after = next < r->n_free ? &r->spans[next] : NULL;
    bool joins_before = before && before->offset + before->length == offset;
    bool joins_after = after && offset + length == after->offset;

    if (joins_before && joins_after) {
        before->length += length + after->length;
        remove_at(r, next);
    } else if (joins_before) {
        before->length += length;
    } else if (joins_after) {
        after->offset = offset;
        after->length += length;
    } else {
        insert_at(r, next, offset, length);
    }
}

int ranges_free(struct ranges *r, uint64_t offset, uint64_t length)
{
    size_t next;

    if (length == 0 || length > r->size || !is_aligned(r, offset)) {
        return -EINVAL;
    }
    length = round_up(r, length);
    if (offset > r->size || length > r->size - offset || r->n_alloc == 0) {
        return -EINVAL;
    }
    next = upper(r, offset);
    if (next < r->n_free && r->spans[next].offset < offset + length) {
        return -EINVAL;
    }
    if (next > 0 && r->spans[next - 1].offset + r->spans[next - 1].length > offset) {
        return -EINVAL;
    }
    join(r, next, offset, length);
    r->n_alloc--;
    r->free_bytes += length;
    return 0;
}

uint64_t ranges_largest(const struct ranges *r)
{
    uint64_t best = 0;

    for (size_t i = 0; i < r->n_free; i++) {
        best = r->spans[i].length > best ? r->spans[i].length : best;
    }
    return best;
}

int ranges_check(const struct ranges *r)
{
    uint64_t sum = 0;
    uint64_t end = 0;

    for (size_t i = 0; i < r->n_free; i++) {
        const struct ranges_span *s = &r->spans[i];

        if (s->length == 0 || !is_aligned(r, s->offset) || !is_aligned(r, s->length)) {
            return -1;
        }
        if (i > 0 && s->offset <= end) {
            return -2; /* unsorted, overlapping, or two that should have been joined */
        }
        end = s->offset + s->length;
        if (end > r->size) {
            return -3;
        }
        sum += s->length;
    }
    if (sum != r->free_bytes) {
        return -4;
    }
    return r->n_free + r->n_alloc <= r->cap ? 0 : -5;
}

/* SPDX-License-Identifier: MIT */
/* heap.c - binary min-heap; see heap.h */
#include "common/core/heap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void put(struct heap *h, size_t i, void *item)
{
    h->items[i] = item;
    h->set_index(item, (uint32_t)i);
}

static void sift_up(struct heap *h, size_t i)
{
    void *item = h->items[i];

    while (i > 0) {
        size_t parent = (i - 1) / 2;

        if (!h->less(item, h->items[parent])) {
            break;
        }
        put(h, i, h->items[parent]);
        i = parent;
    }
    put(h, i, item);
}

static void sift_down(struct heap *h, size_t i)
{
    void *item = h->items[i];

    for (;;) {
        size_t child = 2 * i + 1;

        if (child >= h->count) {
            break;
        }
        if (child + 1 < h->count && h->less(h->items[child + 1], h->items[child])) {
            child++;
        }
        if (!h->less(h->items[child], item)) {
            break;
        }
        put(h, i, h->items[child]);
        i = child;
    }
    put(h, i, item);
}

int heap_reserve(struct heap *h, size_t count)
{
    size_t cap = h->cap ? h->cap : 64;
    void **items;

    if (count <= h->cap) {
        return 0;
    }
    while (cap < count) {
        cap *= 2;
    }
    items = realloc(h->items, cap * sizeof(*items));
    if (!items) {
        return -ENOMEM;
    }
    h->items = items;
    h->cap = cap;
    return 0;
}

int heap_insert(struct heap *h, void *item)
{
    int err = heap_reserve(h, h->count + 1);

    if (err) {
        return err;
    }
    h->items[h->count++] = item;
    sift_up(h, h->count - 1);
    return 0;
}

void *heap_remove(struct heap *h, size_t index)
{
    void *item;
    void *last;

    if (index >= h->count) {
        return NULL;
    }
    item = h->items[index];
    last = h->items[--h->count];
    if (index < h->count) {
        h->items[index] = last;
        sift_down(h, index);
        sift_up(h, index);
    }
    return item;
}

void *heap_first(const struct heap *h)
{
    return h->count ? h->items[0] : NULL;
}

void heap_fini(struct heap *h)
{
    free(h->items);
    h->items = NULL;
    h->count = 0;
    h->cap = 0;
}

int heap_check(const struct heap *h)
{
    for (size_t i = 1; i < h->count; i++) {
        if (h->less(h->items[i], h->items[(i - 1) / 2])) {
            return -1;
        }
    }
    return 0;
}

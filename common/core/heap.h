/* SPDX-License-Identifier: MIT */
/*
 * heap - binary min-heap of the caller's items
 *
 * Pure. The heap stores pointers and tells each item where it stands, so that one can be taken out
 * of the middle in O(log n). Invariants: heap_check().
 */
#ifndef VGPU_CORE_HEAP_H
#define VGPU_CORE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct heap {
    /* true when @a must come before @b */
    bool (*less)(const void *a, const void *b);
    /* remember @index in @item */
    void (*set_index)(void *item, uint32_t index);
    void **items;
    size_t count;
    size_t cap;
};

/** heap_reserve() - make room for @count items in all, so that inserts up to there cannot fail:
 *  0; -ENOMEM */
int heap_reserve(struct heap *h, size_t count);

/** heap_insert() - add @item: 0; -ENOMEM */
int heap_insert(struct heap *h, void *item);

/** heap_remove() - take out and return the item at @index; NULL when there is none */
void *heap_remove(struct heap *h, size_t index);

/** heap_first() - the least item, which stays; NULL when empty */
void *heap_first(const struct heap *h);

/** heap_fini() - free the heap's array; the items stay the caller's */
void heap_fini(struct heap *h);

/** heap_check() - 0 when every item is not less than its parent, -1 otherwise */
int heap_check(const struct heap *h);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * regionset - which regions an executor has mapped
 *
 * Pure. Regions are numbers other than 0. One that no attempt uses is idle; the one that is idle for
 * longest is the first to go when there are too many. A region that was told to go is remembered until
 * the executor says that it is gone, since it may be attached again meanwhile.
 */
#ifndef VGPU_MEDIATOR_REGIONSET_H
#define VGPU_MEDIATOR_REGIONSET_H

#include <stdbool.h>
#include <stdint.h>

struct regionset_entry;

/* Zero it before the first use. */
struct regionset {
    struct regionset_entry *entries;
    uint32_t *buckets;       /* indices of entries, as many as `capacity` */
    uint32_t capacity, free; /* a power of two; first unused entry */
    uint32_t oldest, newest; /* idle ones */
    uint32_t count;          /* attached ones */
    uint32_t leaving;        /* times that one was told to go and is not gone yet */
};

/** regionset_fini() - free what it holds; may be called twice */
void regionset_fini(struct regionset *s);

/** regionset_has() - whether @number is attached */
bool regionset_has(const struct regionset *s, uint32_t number);

/** regionset_add() - @number, which is not attached, is from now on. Return: 0; -ENOMEM. */
int regionset_add(struct regionset *s, uint32_t number);

/** regionset_hold() - one more attempt uses @number, which is attached */
void regionset_hold(struct regionset *s, uint32_t number);

/** regionset_release() - one less; nothing happens when it is not attached any more */
void regionset_release(struct regionset *s, uint32_t number);

/** regionset_idle() - the attached region that nobody used for longest; 0: all are in use */
uint32_t regionset_idle(const struct regionset *s);

/** regionset_leave() - the executor is told to unmap @number. Return: whether it was attached. */
bool regionset_leave(struct regionset *s, uint32_t number);

/**
 * regionset_gone() - the executor says that @number is unmapped
 *
 * Return: whether it was attached and not told to go: it could not be mapped.
 */
bool regionset_gone(struct regionset *s, uint32_t number);

#endif

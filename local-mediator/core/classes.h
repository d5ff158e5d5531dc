/* SPDX-License-Identifier: MIT */
/*
 * classes - eligibility classes of a pool: what a job needs of a worker
 *
 * Pure. A class is (op, dtype); jobs hold a reference to theirs, and a class without references is
 * given to the next kind of job. There are SCHED_CLASSES of them, more than known combinations.
 */
#ifndef VGPU_MEDIATOR_CLASSES_H
#define VGPU_MEDIATOR_CLASSES_H

#include <stdbool.h>
#include <stdint.h>

#include "common/core/sched.h"

#define CLASSES_ANY_DTYPE 0u

enum {
    CLASSES_E_FULL = 1, /* every class is in use by another kind of job */
};

/* What a job needs. */
struct need {
    uint8_t op;
    uint8_t dtype; /* CLASSES_ANY_DTYPE: the op has none, or it could not be read */
};

/* What a worker offers. */
struct offer {
    uint64_t ops;
    uint64_t dtypes;
};

/* Caller's storage, zeroed. */
struct classes {
    struct {
        struct need need;
        uint32_t references;
    } rows[SCHED_CLASSES];
};

/** classes_need() - what a request needs: its op, and the dtype if the op's body starts with one */
struct need classes_need(uint16_t op, const uint8_t *body, uint32_t body_len);

/** classes_offers() - whether a worker that offers @offer can run what needs @need */
bool classes_offers(const struct offer *offer, struct need need);

/**
 * classes_get() - the class of @need, with a new reference
 *
 * Return: 0; CLASSES_E_FULL.
 */
int classes_get(struct classes *c, struct need need, uint8_t *ret_class);

/** classes_put() - drop a reference */
void classes_put(struct classes *c, uint8_t class_index);

/** classes_mask() - bit n: a worker that offers @offer can run class n */
uint64_t classes_mask(const struct classes *c, const struct offer *offer);

#endif

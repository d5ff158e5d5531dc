/* SPDX-License-Identifier: MIT */
/*
 * claims - parts of a shared space that this process holds against other processes
 *
 * A part is held by a record lock (F_OFD_SETLK) on the same bytes of a file, here the sysfs file of
 * BAR 2. The kernel is the allocator's only book, so parts of a process that dies are free at once.
 * Not thread safe.
 */
#ifndef GUEST_CLAIMS_H
#define GUEST_CLAIMS_H

#include <stdint.h>

#include "common/core/ranges.h"

#define CLAIMS_MAX 256u
#define CLAIMS_ALIGN 4096u

struct claims {
    int fd; /* borrowed; -1: there are no other processes */
    uint64_t start;
    uint64_t size;
    unsigned n;
    struct ranges_span spans[CLAIMS_MAX]; /* sorted by offset */
};

/**
 * claims_take() - hold a part of the space
 * @c:          fd, start (where the space begins in the file) and size are set
 * @want_bytes: at least this many; rounded up to CLAIMS_ALIGN, but not beyond the end of the space
 * @ret:        the part, as an offset in the space
 *
 * Return: 0; RANGES_E_FULL.
 */
int claims_take(struct claims *c, uint64_t want_bytes, struct ranges_span *ret);

/** claims_give() - let go of a part that claims_take() gave */
void claims_give(struct claims *c, const struct ranges_span *span);

#endif

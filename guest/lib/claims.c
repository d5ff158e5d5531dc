/* SPDX-License-Identifier: MIT */
/* claims.c - see claims.h */
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "guest/lib/claims.h"

/* Lock a part. On failure *ret_past is the end of what is in the way. */
static bool lock_part(const struct claims *c, uint64_t offset, uint64_t length, uint64_t *ret_past)
{
    struct flock part = {
        .l_type = F_WRLCK,
        .l_whence = SEEK_SET,
        .l_start = (off_t)(c->start + offset),
        .l_len = (off_t)length,
    };

    if (c->fd < 0 || fcntl(c->fd, F_OFD_SETLK, &part) == 0) {
        return true;
    }
    *ret_past = offset + CLAIMS_ALIGN;
    if (fcntl(c->fd, F_OFD_GETLK, &part) == 0 && part.l_type != F_UNLCK) {
        uint64_t end = (uint64_t)part.l_start + (uint64_t)part.l_len;

        *ret_past = part.l_len == 0 ? c->size : end > c->start ? end - c->start : *ret_past;
    }
    return false;
}

/* Own locks are not in each other's way, so own parts are passed over here. */
static bool own_part_in_the_way(const struct claims *c, uint64_t offset, uint64_t length,
                                uint64_t *ret_past)
{
    for (unsigned i = 0; i < c->n; i++) {
        const struct ranges_span *s = &c->spans[i];

        if (s->offset < offset + length && offset < s->offset + s->length) {
            *ret_past = s->offset + s->length;
            return true;
        }
    }
    return false;
}

static void insert(struct claims *c, const struct ranges_span *span)
{
    unsigned at = 0;

    while (at < c->n && c->spans[at].offset < span->offset) {
        at++;
    }
    memmove(&c->spans[at + 1], &c->spans[at], (c->n - at) * sizeof(c->spans[0]));
    c->spans[at] = *span;
    c->n++;
}

int claims_take(struct claims *c, uint64_t want_bytes, struct ranges_span *ret)
{
    uint64_t length = (want_bytes + CLAIMS_ALIGN - 1) & ~(uint64_t)(CLAIMS_ALIGN - 1);
    uint64_t offset = 0;

    if (want_bytes == 0 || want_bytes > c->size || c->n == CLAIMS_MAX) {
        return RANGES_E_FULL;
    }
    length = length > c->size ? c->size : length;
    while (offset <= c->size - length) {
        uint64_t past = offset;

        if (!own_part_in_the_way(c, offset, length, &past) && lock_part(c, offset, length, &past)) {
            *ret = (struct ranges_span){.offset = offset, .length = length};
            insert(c, ret);
            return 0;
        }
        offset = past > offset ? past : offset + CLAIMS_ALIGN;
        offset = (offset + CLAIMS_ALIGN - 1) & ~(uint64_t)(CLAIMS_ALIGN - 1);
    }
    return RANGES_E_FULL;
}

void claims_give(struct claims *c, const struct ranges_span *span)
{
    struct flock part = {
        .l_type = F_UNLCK,
        .l_whence = SEEK_SET,
        .l_start = (off_t)(c->start + span->offset),
        .l_len = (off_t)span->length,
    };

    for (unsigned i = 0; i < c->n; i++) {
        if (c->spans[i].offset == span->offset) {
            memmove(&c->spans[i], &c->spans[i + 1], (c->n - i - 1) * sizeof(c->spans[0]));
            c->n--;
            if (c->fd >= 0) {
                fcntl(c->fd, F_OFD_SETLK, &part);
            }
            return;
        }
    }
}

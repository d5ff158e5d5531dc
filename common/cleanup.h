/* SPDX-License-Identifier: MIT */
/*
 * cleanup - free a variable when it goes out of scope
 *
 * `CLEANUP(fn) type x = NULL;` calls fn(&x) at every exit of the block. To hand the thing on, set the
 * variable to its empty value (NULL, -1) first: TAKE_FD() and TAKE_PTR() do that.
 */
#ifndef VGPU_CLEANUP_H
#define VGPU_CLEANUP_H

#include <stdlib.h>
#include <unistd.h>

#define CLEANUP(fn) __attribute__((cleanup(fn)))

#define TAKE_PTR(pointer)                       \
    ({                                          \
        __typeof__(pointer) taken_ = (pointer); \
        (pointer) = NULL;                       \
        taken_;                                 \
    })

#define TAKE_FD(fd)        \
    ({                     \
        int taken_ = (fd); \
        (fd) = -1;         \
        taken_;            \
    })

/** cleanup_fd() - close *@fd unless it is negative */
static inline void cleanup_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
    }
}

/** cleanup_free() - free() what the pointer at @pointer points to */
static inline void cleanup_free(void *pointer)
{
    free(*(void **)pointer);
}

#endif

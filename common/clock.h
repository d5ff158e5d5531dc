/* SPDX-License-Identifier: MIT */
/*
 * clock - time for the shells (the pure cores get it as an argument)
 */
#ifndef VGPU_CLOCK_H
#define VGPU_CLOCK_H

#include <stdint.h>

#define CLOCK_NS_PER_MS UINT64_C(1000000)
#define CLOCK_NS_PER_S UINT64_C(1000000000)

/** clock_now_ns() - monotonic time since an arbitrary start, nanoseconds; never goes back */
uint64_t clock_now_ns(void);

/** clock_wall_ns() - time since 1970 (UTC), nanoseconds; only for people to read */
uint64_t clock_wall_ns(void);

#endif

/* SPDX-License-Identifier: MIT */
/* mem - the memory functions that a compiler takes for granted; they are in cpu.c */
#ifndef GUEST_MEM_H
#define GUEST_MEM_H

#include <stddef.h>

void *memcpy(void *dst, const void *src, size_t n);
void *memset(void *dst, int c, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);

/* -ffreestanding makes them ordinary functions; a few bytes are better moved in place. */
#define memcpy(dst, src, n) \
    (__builtin_constant_p(n) && (n) <= 16 ? __builtin_memcpy(dst, src, n) : (memcpy)(dst, src, n))

#endif

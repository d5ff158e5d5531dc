/* SPDX-License-Identifier: MIT */
/*
 * layout - whether the memory that a HELLO describes can be: rings and arena inside, not overlapping
 *
 * Pure. The numbers come from another process: every sum is checked before it is made.
 */
#ifndef VGPU_MEDIATOR_LAYOUT_H
#define VGPU_MEDIATOR_LAYOUT_H

#include <stdint.h>

#include "proto/vgpu_local.h"

/**
 * layout_check() - the fields of a HELLO that offers shared memory (or does not: all must be 0)
 *
 * Return: NULL; a sentence that says what cannot be.
 */
const char *layout_check(const struct vgpu_hello *hello);

/** layout_fds() - descriptors that this HELLO must carry */
unsigned layout_fds(const struct vgpu_hello *hello);

#endif

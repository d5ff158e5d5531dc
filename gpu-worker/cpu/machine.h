/* SPDX-License-Identifier: MIT */
/*
 * machine - the processor that the CPU backend runs on
 */
#ifndef VGPU_WORKER_CPU_MACHINE_H
#define VGPU_WORKER_CPU_MACHINE_H

#include <stddef.h>

/** machine_name() - what the processor calls itself, and how many of it we may use; always ends
 *  with a 0 */
void machine_name(char *name, size_t size);

/** machine_prepare() - make the libraries compute on the calling thread only: the pool is ours */
void machine_prepare(void);

#endif

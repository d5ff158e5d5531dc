/* SPDX-License-Identifier: MIT */
/*
 * bell - ring and read eventfds that a peer has too
 *
 * O_NONBLOCK belongs to the open file, which the peer shares: it may have cleared it, and filled or
 * emptied the counter. Neither function waits all the same.
 */
#ifndef VGPU_MEDIATOR_BELL_H
#define VGPU_MEDIATOR_BELL_H

#include <stdbool.h>

/** bell_ring() - add one; a full counter is a signal too */
void bell_ring(int fd);

/** bell_read() - set it to zero. Return: whether it was rung. */
bool bell_read(int fd);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vgpu_bells - the event notifiers of the rings: doorbells out, completions in
 *
 * Per ring a `kick`, which the guest's write to RING_DOORBELL signals, and a `call`, which becomes the
 * ring's MSI-X vector. The other ends are the mediator's.
 *
 * With KVM neither passes through this process: the kick is an ioeventfd, the call an irqfd on a route
 * to the vector's message. While the vector is masked the call just counts; who unmasks it or reads
 * the pending bits gets to know. Where KVM has no irqchip, or no room for another route, the main loop
 * waits for the call and sends the message. Without KVM QEMU signals the kick itself.
 */
#ifndef VGPU_BELLS_H
#define VGPU_BELLS_H

#include "vgpu_compat.h"

struct vgpu_bells;

/**
 * vgpu_bells_new() - notifiers for @rings rings
 * @pdev: the device, whose vectors 1..@rings are theirs; outlives them
 * @regs: BAR 0, which gets the doorbells; outlives them
 *
 * Return: NULL when there are no file descriptors left, with @errp set.
 */
struct vgpu_bells *vgpu_bells_new(PCIDevice *pdev, MemoryRegion *regs, uint32_t rings,
                                  Error **errp);

/** vgpu_bells_free() - undo it; NULL is fine */
void vgpu_bells_free(struct vgpu_bells *bells);

/** vgpu_bells_kick() - a doorbell write that did not reach the notifier by itself */
void vgpu_bells_kick(struct vgpu_bells *bells, uint32_t ring);

/** vgpu_bells_drain() - forget the kicks that nobody has read */
void vgpu_bells_drain(struct vgpu_bells *bells);

/** vgpu_bells_fds() - write the descriptors of all kicks, then of all calls, to @ret */
void vgpu_bells_fds(const struct vgpu_bells *bells, int *ret);

/* For the notifiers of msix_set_vector_notifiers(). Vectors that are none of theirs are fine. */

/** vgpu_bells_route() - @vector was unmasked, perhaps with another message */
void vgpu_bells_route(struct vgpu_bells *bells, unsigned vector);

/** vgpu_bells_hold() - @vector was masked */
void vgpu_bells_hold(struct vgpu_bells *bells, unsigned vector);

/** vgpu_bells_route_all() - as vgpu_bells_route() for all vectors that changed: QEMU tells nobody when
 *  MSI-X as a whole goes off, nor, after a reset, when it goes on. NULL is fine. */
void vgpu_bells_route_all(struct vgpu_bells *bells);

/** vgpu_bells_poll() - bring the pending bits of the masked vectors from @first to before @end up to
 *  date */
void vgpu_bells_poll(struct vgpu_bells *bells, unsigned first, unsigned end);

#endif

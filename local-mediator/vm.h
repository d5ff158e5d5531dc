/* SPDX-License-Identifier: MIT */
/*
 * vm - the VMs of the pool file and their sockets
 */
#ifndef VGPU_MEDIATOR_VM_H
#define VGPU_MEDIATOR_VM_H

#include "local-mediator/mediator.h"

/** vm_find() - a VM that is not removed, by name; NULL when there is none */
struct vm *vm_find(struct mediator *m, const char *name);

/**
 * vm_add() - a VM of the pool file: make its socket
 * @c:      its configuration
 * @tenant, @pool, @pools: what its references mean here
 *
 * A socket that cannot be made is logged; the VM is there all the same and is tried again at the
 * next reload.
 *
 * Return: 0; -EADDRINUSE and other -errno from the socket; -ENOMEM: then there is no VM.
 */
int vm_add(struct mediator *m, const struct conf_vm *c, struct tenant *tenant, struct pool *pool,
           uint64_t pools);

/** vm_keeps() - whether its socket can stay as it is with a new configuration */
bool vm_keeps(const struct vm *vm, const struct conf_vm *c);

/** vm_configure() - new configuration of a VM that keeps its socket */
int vm_configure(struct vm *vm, const struct conf_vm *c, struct tenant *tenant, struct pool *pool,
                 uint64_t pools);

/** vm_first_present() - some VM that is not removed; NULL when there is none */
struct vm *vm_first_present(struct mediator *m);

/** vm_remove() - close its socket and connection, cancel its jobs; freed when nothing is left.
 *  @why: for the log; NULL: the mediator stops, nothing to say */
void vm_remove(struct vm *vm, const char *why);

/** vm_put() - free a removed VM if nothing points to it any more; called when something ends */
void vm_put(struct vm *vm);

/** vm_max_bytes() - most ARENA bytes of one request */
uint64_t vm_max_bytes(const struct vm *vm);

/**
 * vm_prepare_staging() - memory for a device with an arena of this size, if there is none that fits
 *
 * Return: 0; -errno.
 */
int vm_prepare_staging(struct vm *vm, uint64_t arena_size);

/** vm_drop_staging() - it needs none, or no more: gone when no job and no attempt uses it */
void vm_drop_staging(struct vm *vm);

/** vm_release_idle() - give the staging memory back if it is idle for long enough */
void vm_release_idle(struct vm *vm, uint64_t now_ns);

/** vm_clamp_band() - the band that counts when a guest wishes for @wish */
uint8_t vm_clamp_band(const struct vm *vm, uint8_t wish);

#endif

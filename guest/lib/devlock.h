/* SPDX-License-Identifier: MIT */
/*
 * devlock - one process of the VM at a time uses the windows of a device
 *
 * Two locks on the sysfs file resource0: flock() on the file is the right to use the windows; a
 * record lock on its first byte is the right to be next. Whoever wants the first must hold the
 * second until it has it, so a process with many requests cannot shut another one out. Both vanish
 * with the process. Programs that do not use libvgpu share the device by the same flock().
 */
#ifndef GUEST_DEVLOCK_H
#define GUEST_DEVLOCK_H

#include <stdbool.h>

enum {
    DEVLOCK_E_WAIT = 1, /* another process has it */
};

struct devlock {
    int fd; /* of resource0, borrowed; -1: there is nobody to lock out */
    bool next;
    bool held;
};

/** devlock_try() - take the lock if it is free. Return: 0 held (maybe already), DEVLOCK_E_WAIT. */
int devlock_try(struct devlock *l);

/** devlock_release() - give the lock back, if it is held */
void devlock_release(struct devlock *l);

/** devlock_pause() - no longer wait for the lock; a lock that is held stays held */
void devlock_pause(struct devlock *l);

#endif

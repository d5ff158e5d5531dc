/* SPDX-License-Identifier: MIT */
/* devlock.c - see devlock.h */
#include <fcntl.h>
#include <stddef.h>
#include <sys/file.h>

#include "guest/lib/devlock.h"

static int lock_next(struct devlock *l, short type)
{
    struct flock byte = {.l_type = type, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};

    return fcntl(l->fd, F_OFD_SETLK, &byte);
}

int devlock_try(struct devlock *l)
{
    if (l->held || l->fd < 0) {
        l->held = true;
        return 0;
    }
    if (!l->next && lock_next(l, F_WRLCK) != 0) {
        return DEVLOCK_E_WAIT;
    }
    l->next = true;
    if (flock(l->fd, LOCK_EX | LOCK_NB) != 0) {
        return DEVLOCK_E_WAIT;
    }
    l->held = true;
    devlock_pause(l);
    return 0;
}

void devlock_release(struct devlock *l)
{
    if (l->held && l->fd >= 0) {
        flock(l->fd, LOCK_UN);
    }
    l->held = false;
}

void devlock_pause(struct devlock *l)
{
    if (l->next) {
        lock_next(l, F_UNLCK);
        l->next = false;
    }
}

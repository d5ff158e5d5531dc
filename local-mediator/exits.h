/* SPDX-License-Identifier: MIT */
/*
 * exits - exit statuses of vgpu-mediator, as docs/mediator.md lists them
 */
#ifndef VGPU_MEDIATOR_EXITS_H
#define VGPU_MEDIATOR_EXITS_H

enum {
    EXIT_OK = 0,
    EXIT_START = 1,  /* a socket, directory or other resource could not be had */
    EXIT_USAGE = 2,  /* a flag is wrong */
    EXIT_CONFIG = 3, /* the pool file is wrong */
    EXIT_IN_USE = 4, /* another mediator serves a socket */
};

#endif

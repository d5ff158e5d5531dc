/* SPDX-License-Identifier: MIT */
/*
 * options - the command line of vgpu-worker
 */
#ifndef VGPU_WORKER_OPTIONS_H
#define VGPU_WORKER_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/log.h"
#include "proto/vgpu_local.h"

#define OPTIONS_THREADS_MAX 1024u
#define OPTIONS_DEPTH_MAX 4095u /* with the express credit as many as a job ring has entries */

enum {
    OPTIONS_E_DONE = 1, /* --help or --version was printed: exit 0 */
    OPTIONS_E_USAGE,    /* a sentence was printed: exit 2 */
};

struct options {
    char mediator[108]; /* path of the worker socket */
    char name[VGPU_NAME_MAX];
    char pool[VGPU_NAME_MAX]; /* empty: the first of the pool file */
    char backend[16];
    uint32_t threads;
    uint32_t depth;
    enum log_level log_level;
    enum log_format log_format;
    bool executor;         /* the private mode */
    uint32_t heartbeat_ms; /* private: of the mediator */
    uint32_t parent;       /* private: process id of the supervisor */
};

/**
 * options_parse() - read the command line
 * @ret: complete, with defaults; written only on 0
 *
 * Return: 0; OPTIONS_E_DONE; OPTIONS_E_USAGE.
 */
int options_parse(int argc, char **argv, struct options *ret);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * backends.c - the list of backends, the best one first; see gpu.h
 */
#include <string.h>

#include "gpu-worker/gpu.h"

static const struct gpu_backend *const backends[] = {&gpu_cpu};

const struct gpu_backend *gpu_backend_find(const char *name)
{
    const struct gpu_config config = {.threads = 1, .depth = 1};
    char why[GPU_WHY_MAX];
    struct gpu_caps caps;

    for (size_t i = 0; i < sizeof(backends) / sizeof(backends[0]); i++) {
        if (strcmp(name, backends[i]->name) == 0) {
            return backends[i];
        }
        if (strcmp(name, "auto") == 0 && backends[i]->probe(&config, &caps, why) == 0) {
            return backends[i];
        }
    }
    return NULL;
}

const char *gpu_backend_names(void)
{
    return "auto, cpu";
}

/* SPDX-License-Identifier: MIT */
/*
 * machine.c - see machine.h
 */
#include "gpu-worker/cpu/machine.h"

#include <cblas.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"

static void close_file(FILE **file)
{
    if (*file) {
        fclose(*file);
    }
}

/* "model name	: Some Processor" of the first processor. */
static void model_name(char *name, size_t size)
{
    CLEANUP(close_file) FILE *file = fopen("/proc/cpuinfo", "re");
    char line[256];

    snprintf(name, size, "CPU");
    while (file && fgets(line, sizeof(line), file)) {
        char *colon = strchr(line, ':');
        if (colon && strncmp(line, "model name", 10) == 0) {
            snprintf(name, size, "%s", colon + 1 + strspn(colon + 1, " \t"));
            name[strcspn(name, "\n")] = 0;
            return;
        }
    }
}

static int processors(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
}

void machine_name(char *name, size_t size)
{
    char model[40];

    model_name(model, sizeof(model));
    snprintf(name, size, "%s x %d", model, processors());
}

void machine_prepare(void)
{
    openblas_set_num_threads(1);
}

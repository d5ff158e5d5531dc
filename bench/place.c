/* SPDX-License-Identifier: MIT */
/* See place.h. */
#include "bench/place.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>

#include "bench/stats.h"

static int cpus[CPU_SETSIZE];
static int n_cpus;

/* Whether a lower thread of the same core is among @all. */
static bool shares_core(int cpu, const cpu_set_t *all)
{
    char path[96];
    int first = cpu;
    FILE *f;

    snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
             cpu);
    f = fopen(path, "re");
    if (f) {
        if (fscanf(f, "%d", &first) != 1) {
            first = cpu;
        }
        fclose(f);
    }
    return first < cpu && CPU_ISSET(first, all);
}

static void look(void)
{
    cpu_set_t all;

    if (sched_getaffinity(0, sizeof(all), &all)) {
        die("sched_getaffinity");
    }
    for (int shared = 0; shared < 2; shared++) {
        for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
            if (CPU_ISSET(cpu, &all) && shares_core(cpu, &all) == shared) {
                cpus[n_cpus++] = cpu;
            }
        }
    }
}

int place_cpu(int index)
{
    if (n_cpus == 0) {
        look();
    }
    return index < n_cpus ? cpus[index] : -1;
}

void place_here(int cpu)
{
    cpu_set_t one;

    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof(one), &one)) {
        die("sched_setaffinity");
    }
}

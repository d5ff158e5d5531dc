/* SPDX-License-Identifier: MIT */
/*
 * many - one busy VM beside many idle ones, all on the shared-memory path of one mediator
 *
 * usage: bench-many FOLDER VMS N SECONDS MEDIATOR
 *
 * VM i's socket is FOLDER/vm-i/vgpu.sock. First VM 0 is alone and makes N null round trips; then the
 * others connect, and the mediator's memory and, over SECONDS in which nobody does anything, its time
 * are read; then VM 0 makes N round trips again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bench/procinfo.h"
#include "bench/shmclient.h"
#include "bench/stats.h"
#include "bench/typical.h"
#include "common/clock.h"

static uint8_t request[VGPU_REQ_MAX];

static void open_vm(struct shmclient *c, const char *folder, unsigned vm)
{
    const struct shmclient_shape shape = SHMCLIENT_SHAPE(UINT64_C(64) << 20);
    char path[128];

    snprintf(path, sizeof(path), "%s/vm-%u/vgpu.sock", folder, vm);
    shmclient_open(c, path, &shape);
}

static void measure(struct shmclient *c, const char *name, size_t n)
{
    uint32_t len = typical_echo(16, request);
    struct stats s;

    stats_init(&s, n);
    for (size_t i = 0; i < n + n / 10 + 1; i++) {
        uint64_t begin = clock_now_ns();

        shmclient_run(c, 0, request, len);
        if (i > n / 10) {
            stats_add(&s, clock_now_ns() - begin);
        }
    }
    stats_report(&s, name);
    stats_fini(&s);
}

static void more_files(unsigned vms)
{
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    if (files.rlim_cur < vms * 16u + 64u) {
        fprintf(stderr, "bench-many: %u VMs need more open files than the limit of %llu\n", vms,
                (unsigned long long)files.rlim_cur);
        exit(1);
    }
}

/* What the mediator spends, per cent of a CPU, while all are idle. */
static double idle_percent(pid_t mediator, unsigned seconds)
{
    struct procinfo before, after;
    uint64_t begin = clock_now_ns();

    procinfo_read(mediator, &before);
    sleep(seconds);
    procinfo_read(mediator, &after);
    return 100.0 * (double)(after.cpu_ns - before.cpu_ns) / (double)(clock_now_ns() - begin);
}

int main(int argc, char **argv)
{
    unsigned vms = argc == 6 ? (unsigned)atoi(argv[2]) : 0;
    size_t n = argc == 6 ? strtoul(argv[3], NULL, 10) : 0;
    struct procinfo before, after;
    struct shmclient *all;
    pid_t mediator;

    if (vms < 2 || n == 0) {
        fprintf(stderr, "usage: bench-many FOLDER VMS N SECONDS MEDIATOR\n");
        return 2;
    }
    mediator = (pid_t)atoi(argv[5]);
    more_files(vms);
    all = calloc(vms, sizeof(*all));
    if (!all) {
        die("memory");
    }
    open_vm(&all[0], argv[1], 0);
    measure(&all[0], "alone", n);
    procinfo_read(mediator, &before);
    for (unsigned i = 1; i < vms; i++) {
        open_vm(&all[i], argv[1], i);
    }
    procinfo_read(mediator, &after);
    printf("VALUE kib_per_vm %.1f\n",
           ((double)after.rss_anon - (double)before.rss_anon) / 1024 / (vms - 1));
    printf("VALUE idle_percent %.3f\n", idle_percent(mediator, (unsigned)atoi(argv[4])));
    measure(&all[0], "beside", n);
    for (unsigned i = 0; i < vms; i++) {
        shmclient_close(&all[i]);
    }
    free(all);
    return 0;
}

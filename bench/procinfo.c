/* SPDX-License-Identifier: MIT */
/* See procinfo.h. */
#include "bench/procinfo.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/stats.h"

/* The number after @key at the start of a line of /proc/PID/FILE; dies when there is none. */
static uint64_t field(pid_t pid, const char *file, const char *key)
{
    char path[64];
    char line[256];
    uint64_t value = 0;
    int found = 0;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
    f = fopen(path, "re");
    if (!f) {
        die(path);
    }
    while (!found && fgets(line, sizeof(line), f)) {
        if (strncmp(line, key, strlen(key)) == 0) {
            value = strtoull(line + strlen(key), NULL, 10);
            found = 1;
        }
    }
    fclose(f);
    if (!found) {
        fprintf(stderr, "%s has no %s\n", path, key);
        exit(1);
    }
    return value;
}

void procinfo_read(pid_t pid, struct procinfo *ret)
{
    struct timespec t;
    clockid_t clock;

    if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &t)) {
        die("the process's clock");
    }
    ret->cpu_ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    ret->rss_anon = field(pid, "status", "RssAnon:") * 1024;
    ret->io_bytes = field(pid, "io", "rchar:") + field(pid, "io", "wchar:");
    ret->write_calls = field(pid, "io", "syscw:");
}

pid_t procinfo_child(pid_t pid)
{
    DIR *proc = opendir("/proc");
    struct dirent *e;
    pid_t found = 0;

    if (!proc) {
        die("/proc");
    }
    while (!found && (e = readdir(proc))) {
        pid_t child = (pid_t)strtol(e->d_name, NULL, 10);
        char path[64];
        char line[512] = "";
        const char *end;
        FILE *f;

        snprintf(path, sizeof(path), "/proc/%d/stat", (int)child);
        f = child > 0 ? fopen(path, "re") : NULL;
        if (!f) {
            continue; /* no process, or one that just ended */
        }
        /* "PID (name) state PPID": the name may hold anything, the last ')' ends it */
        end = fgets(line, sizeof(line), f) ? strrchr(line, ')') : NULL;
        if (end && strtol(end + 4, NULL, 10) == pid) {
            found = child;
        }
        fclose(f);
    }
    closedir(proc);
    return found;
}

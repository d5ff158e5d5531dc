/* SPDX-License-Identifier: MIT */
/*
 * filepoll - the transport that the device replaces: a request file in a directory that the other
 * side polls, answered by a response file
 *
 * usage: bench-filepoll DIR N INTERVAL_US
 *
 * Both sides are as quick as this way allows: one file each way, written under another name and
 * renamed into place, so that no side reads a part; the poll is one open() that fails while there
 * is no file; the reader unlinks what it read. Between two polls a side sleeps INTERVAL_US (timer
 * slack 1 ns); 0: it spins, and burns a core. 112 bytes go there and 80 come back, as in an inline
 * echo through the device.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench/stats.h"
#include "common/clock.h"

#define REQUEST_BYTES 112
#define RESPONSE_BYTES 80

static int dir;
static struct timespec interval;

static void put(const char *name, const void *data, size_t bytes)
{
    int fd = openat(dir, "part", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0 || write(fd, data, bytes) != (ssize_t)bytes || close(fd) ||
        renameat(dir, "part", dir, name)) {
        die(name);
    }
}

static void take(const char *name, void *data, size_t bytes)
{
    int fd;

    while ((fd = openat(dir, name, O_RDONLY | O_CLOEXEC)) < 0) {
        if (errno != ENOENT) {
            die(name);
        }
        if (interval.tv_nsec) {
            nanosleep(&interval, NULL);
        }
    }
    if (read(fd, data, bytes) != (ssize_t)bytes || close(fd) || unlinkat(dir, name, 0)) {
        die(name);
    }
}

static pid_t answerer(void)
{
    char bytes[REQUEST_BYTES];
    pid_t pid = fork();

    if (pid < 0) {
        die("fork");
    }
    if (pid > 0) {
        return pid;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_TIMERSLACK, 1);
    for (;;) {
        take("request", bytes, sizeof(bytes));
        put("response", bytes, RESPONSE_BYTES);
    }
}

int main(int argc, char **argv)
{
    size_t n = argc == 4 ? strtoul(argv[2], NULL, 10) : 0;
    char bytes[REQUEST_BYTES] = "Hello from guest";
    struct stats s;
    pid_t pid;

    if (n == 0) {
        fprintf(stderr, "usage: bench-filepoll DIR N INTERVAL_US\n");
        return 2;
    }
    dir = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) {
        die(argv[1]);
    }
    interval.tv_nsec = strtol(argv[3], NULL, 10) * 1000;
    prctl(PR_SET_TIMERSLACK, 1);
    pid = answerer();
    stats_init(&s, n);
    for (size_t i = 0; i < n + n / 10; i++) {
        uint64_t begin = clock_now_ns();

        put("request", bytes, sizeof(bytes));
        take("response", bytes, RESPONSE_BYTES);
        if (i >= n / 10) {
            stats_add(&s, clock_now_ns() - begin);
        }
    }
    stats_report(&s, "file-poll");
    stats_fini(&s);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return 0;
}

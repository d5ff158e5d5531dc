/* SPDX-License-Identifier: MIT */
/*
 * pulse.c - see pulse.h
 */
#include "gpu-worker/pulse.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"

static int map(int fd, struct pulse **ret)
{
    void *page = mmap(NULL, sizeof(struct pulse), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (page == MAP_FAILED) {
        return -errno;
    }
    *ret = page;
    return 0;
}

int pulse_new(struct pulse **ret, int *ret_fd)
{
    CLEANUP(cleanup_fd) int fd = memfd_create("vgpu-pulse", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0 || ftruncate(fd, sizeof(struct pulse)) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        return -errno;
    }
    int r = map(fd, ret);
    if (r == 0) {
        *ret_fd = TAKE_FD(fd);
    }
    return r;
}

int pulse_map(int fd, struct pulse **ret)
{
    CLEANUP(cleanup_fd) int owned = fd;
    struct stat status;

    if (fstat(owned, &status) < 0) {
        return -errno;
    }
    if (status.st_size < (off_t)sizeof(struct pulse)) {
        return -EINVAL;
    }
    return map(owned, ret);
}

void pulse_free(struct pulse *pulse)
{
    if (pulse) {
        munmap(pulse, sizeof(*pulse));
    }
}

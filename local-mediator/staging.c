/* SPDX-License-Identifier: MIT */
#include "local-mediator/staging.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "proto/vgpu_regs.h"

static int make_memory(const char *name, uint64_t size)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int r;

    if (fd < 0) {
        return -errno;
    }
    if (ftruncate(fd, (off_t)size) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        r = -errno;
        close(fd);
        return r;
    }
    return fd;
}

static void free_staging(struct region *r)
{
    struct staging *s = (struct staging *)r;

    munmap(s->bytes, r->size);
    close(r->fd);
    ranges_fini(&s->ranges);
    free(s);
}

int staging_new(const char *name, uint32_t number, uint64_t size, struct staging **ret_staging)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    CLEANUP(cleanup_free) struct staging *s = calloc(1, sizeof(*s));
    CLEANUP(cleanup_fd) int fd = -1;
    void *bytes;
    int r;

    if (!s) {
        return -ENOMEM;
    }
    size = (size + page - 1) / page * page;
    fd = make_memory(name, size);
    if (fd < 0) {
        return fd;
    }
    bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (bytes == MAP_FAILED) {
        return -errno;
    }
    r = ranges_init(&s->ranges, size, VGPU_ARENA_ALIGN);
    if (r < 0) {
        munmap(bytes, size);
        return r;
    }
    s->region = (struct region){
        .references = 1,
        .number = number,
        .fd = TAKE_FD(fd),
        .writers = -1,
        .size = size,
        .free = free_staging,
    };
    s->bytes = bytes;
    *ret_staging = TAKE_PTR(s);
    return 0;
}

int staging_release(struct staging *s)
{
    if (s->ranges.n_alloc || !s->dirty) {
        return 0;
    }
    s->dirty = false;
    if (fallocate(s->region.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                  (off_t)s->region.size) < 0) {
        return -errno;
    }
    return 0;
}

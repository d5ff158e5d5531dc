/* SPDX-License-Identifier: MIT */
/*
 * region.c - see region.h
 */
#include "gpu-worker/region.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "common/cleanup.h"

#define REGION_PAGE 4096u /* offsets are multiples of it */

static struct region **bucket_of(struct region_table *table, uint32_t id)
{
    return &table->buckets[id % REGION_BUCKETS];
}

/* With any state, detaching or not. */
static bool id_used(struct region_table *table, uint32_t id)
{
    for (struct region *r = *bucket_of(table, id); r; r = r->next) {
        if (r->id == id) {
            return true;
        }
    }
    return false;
}

/* A mapping beyond the end of its file, or of one that can shrink, would end us with SIGBUS. */
int region_check_file(int fd, uint64_t offset, uint64_t bytes, char *why)
{
    struct stat status;
    int seals = fcntl(fd, F_GET_SEALS);

    if (seals < 0 || !(seals & F_SEAL_SHRINK)) {
        snprintf(why, GPU_WHY_MAX, "its file is not a memfd that is sealed against shrinking");
        return -EPERM;
    }
    if (fstat(fd, &status) < 0) {
        snprintf(why, GPU_WHY_MAX, "its size is unknown: %s", strerror(errno));
        return -errno;
    }
    if (bytes == 0 || offset % REGION_PAGE || offset > (uint64_t)status.st_size ||
        (uint64_t)status.st_size - offset < bytes) {
        snprintf(why, GPU_WHY_MAX,
                 "its file has %" PRIu64 " bytes, %" PRIu64 " from %" PRIu64 " on were announced",
                 (uint64_t)status.st_size, bytes, offset);
        return -EINVAL;
    }
    return 0;
}

static int check_id(struct region_table *table, uint32_t id, char *why)
{
    if (id == 0 || id_used(table, id)) {
        snprintf(why, GPU_WHY_MAX, "its number is 0 or in use");
        return -EINVAL;
    }
    if (table->count >= table->most) {
        snprintf(why, GPU_WHY_MAX, "there are %u regions, which is the most (see LimitNOFILE)",
                 table->most);
        return -ENOSPC;
    }
    return 0;
}

static void unmap(struct region *region)
{
    if (region->base) {
        munmap(region->base, region->bytes);
    }
    cleanup_fd(&region->writers); /* only now: it says that nobody here can write any more */
    free(region);
}

static int map(struct region_table *table, struct region *region, int fd, uint64_t offset,
               char *why)
{
    void *base = mmap(NULL, region->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
    int r;

    if (base == MAP_FAILED) {
        r = -errno;
        snprintf(why, GPU_WHY_MAX, "it cannot be mapped: %s", strerror(-r));
        return r;
    }
    region->base = base;
    r = table->backend->region_attach(table->gpu, base, region->bytes, &region->gpu);
    if (r != 0) {
        snprintf(why, GPU_WHY_MAX, "the backend refused it: %s", strerror(-r));
    }
    return r;
}

int region_attach(struct region_table *table, const struct vgpu_attach *attach, int fd, int writers,
                  char *why)
{
    CLEANUP(cleanup_fd) int pipe_end = writers;
    int r = check_id(table, attach->region, why);

    r = r < 0 ? r : region_check_file(fd, attach->offset, attach->size, why);
    if (r < 0) {
        return r;
    }
    struct region *region = calloc(1, sizeof(*region));
    if (!region) {
        snprintf(why, GPU_WHY_MAX, "out of memory");
        return -ENOMEM;
    }
    region->id = attach->region;
    region->bytes = attach->size;
    region->writers = TAKE_FD(pipe_end);
    r = map(table, region, fd, attach->offset, why);
    if (r != 0) {
        unmap(region);
        return r;
    }
    region->next = *bucket_of(table, region->id);
    *bucket_of(table, region->id) = region;
    table->count++;
    return 0;
}

struct region *region_find(const struct region_table *table, uint32_t id)
{
    for (struct region *r = table->buckets[id % REGION_BUCKETS]; r; r = r->next) {
        if (r->id == id && !r->detaching) {
            return r;
        }
    }
    return NULL;
}

void region_hold(struct region *region)
{
    if (region) {
        region->jobs++;
    }
}

bool region_release(struct region_table *table, struct region *region)
{
    if (!region) {
        return false;
    }
    region->jobs--;
    return region->detaching && region_detach(table, region);
}

bool region_detach(struct region_table *table, struct region *region)
{
    struct region **at = bucket_of(table, region->id);

    region->detaching = true;
    if (region->jobs || table->backend->region_detach(table->gpu, region->gpu) != 0) {
        return false;
    }
    while (*at != region) {
        at = &(*at)->next;
    }
    *at = region->next;
    table->count--;
    unmap(region);
    return true;
}

void region_detach_all(struct region_table *table)
{
    for (unsigned i = 0; i < REGION_BUCKETS; i++) {
        struct region *next;
        for (struct region *r = table->buckets[i]; r; r = next) {
            next = r->next;
            region_detach(table, r);
        }
    }
}

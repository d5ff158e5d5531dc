/* SPDX-License-Identifier: MIT */
/*
 * shmopen.c - the descriptors of a HELLO: what they are, and their mapping (declared in shm.h)
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include "local-mediator/core/layout.h"
#include "local-mediator/shm.h"

/* ---- checks ---- */

/* What is said of a memfd that is none, is not as it has to be, or has another size. */
struct complaint {
    const char *kind, *unsealed, *read_only, *size;
};

static const struct complaint of_memory = {
    "the first descriptor of HELLO is not a memfd of ordinary pages",
    "the memory of BAR 2 is not sealed against shrinking and growing",
    "the memory of BAR 2 cannot be written to",
    "the memory of BAR 2 has another size than HELLO says",
};
static const struct complaint of_inflight = {
    "the second descriptor of HELLO is not a memfd of ordinary pages",
    "the in-flight area is not sealed against shrinking and growing",
    "the in-flight area cannot be written to",
    "the in-flight area has another size than the rings of HELLO need",
};

/* One of huge pages is none of ours: when they run out, whoever touches it gets SIGBUS. */
static bool is_memfd(int fd)
{
    struct statfs fs;

    return fstatfs(fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

static const char *check_memory(int fd, uint64_t size, const struct complaint *c)
{
    int seals = fcntl(fd, F_GET_SEALS);
    int flags = fcntl(fd, F_GETFL);
    struct stat st;

    if (seals < 0 || !is_memfd(fd) || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        return c->kind;
    }
    if (!(seals & F_SEAL_SHRINK) || !(seals & F_SEAL_GROW)) {
        return c->unsealed;
    }
    if ((flags & O_ACCMODE) != O_RDWR || (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))) {
        return c->read_only;
    }
    return st.st_size >= 0 && (uint64_t)st.st_size == size ? NULL : c->size;
}

static bool is_write_end(int fd)
{
    struct stat st;
    int flags = fcntl(fd, F_GETFL);

    return fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode) && flags >= 0 &&
           (flags & O_ACCMODE) == O_WRONLY;
}

/* A read takes 8 bytes or finds nothing. What it took is put back. Whoever shares the descriptor can
 * make it block after it was looked at: the read does not rely on it. */
static bool reads_like_eventfd(int fd)
{
    uint64_t count;
    struct iovec iov = {.iov_base = &count, .iov_len = sizeof(count)};
    ssize_t n = preadv2(fd, &iov, 1, -1, RWF_NOWAIT);

    if (n < 0) {
        return errno == EAGAIN;
    }
    return n == sizeof(count) && write(fd, &count, sizeof(count)) == sizeof(count);
}

/* Of all files without a name only an eventfd can be written to and says when. */
static bool is_eventfd(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};
    struct stat st;
    int flags = fcntl(fd, F_GETFL);

    return fstat(fd, &st) == 0 && (st.st_mode & S_IFMT) == 0 && flags >= 0 &&
           (flags & O_ACCMODE) == O_RDWR && (flags & O_NONBLOCK) && poll(&p, 1, 0) >= 0 &&
           (p.revents & (POLLIN | POLLOUT)) && !(p.revents & POLLNVAL) && reads_like_eventfd(fd);
}

static const char *check_bells(const struct vgpu_hello *hello, const int *fds)
{
    for (unsigned i = 0; i < hello->rings; i++) {
        if (!is_eventfd(fds[VGPU_HELLO_FD_KICK(i)])) {
            return "a kick descriptor of HELLO is not a non-blocking eventfd";
        }
        if (!is_eventfd(fds[VGPU_HELLO_FD_CALL(hello->rings, i)])) {
            return "a call descriptor of HELLO is not a non-blocking eventfd";
        }
    }
    return NULL;
}

const char *shm_check_fds(const struct vgpu_hello *hello, const int *fds, unsigned n_fds)
{
    const char *wrong = NULL;

    if (n_fds != layout_fds(hello)) {
        return n_fds ? "HELLO carries another number of descriptors than its rings need"
                     : "HELLO offers shared memory without descriptors";
    }
    if (n_fds == 0) {
        return NULL;
    }
    wrong = check_memory(fds[VGPU_HELLO_FD_SHM], hello->shm_size, &of_memory);
    if (wrong) {
        return wrong;
    }
    wrong = check_memory(fds[VGPU_HELLO_FD_INFLIGHT],
                         VGPU_INFLIGHT_BYTES(hello->rings, hello->ring_entries), &of_inflight);
    if (wrong) {
        return wrong;
    }
    if (!is_write_end(fds[VGPU_HELLO_FD_WRITERS])) {
        return "the third descriptor of HELLO is not the write end of a pipe";
    }
    return check_bells(hello, fds);
}

/* ---- mapping ---- */

static void close_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

static void unmap(void *bytes, uint64_t size)
{
    if (bytes) {
        munmap(bytes, size);
    }
}

static void free_shm(struct region *r)
{
    struct shm *shm = (struct shm *)r;

    unmap(shm->bytes, shm->size);
    unmap(shm->inflight_bytes, VGPU_INFLIGHT_BYTES(shm->n_rings, shm->shape.entries));
    close_fd(&shm->region.fd);
    close_fd(&shm->inflight_fd);
    close_fd(&shm->region.writers);
    for (uint32_t i = 0; i < shm->n_rings; i++) {
        close_fd(&shm->rings[i].kick);
        close_fd(&shm->rings[i].call);
        free(shm->rings[i].by_slot);
    }
    free(shm);
}

static void *map(int fd, uint64_t size)
{
    void *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    return bytes == MAP_FAILED ? NULL : bytes;
}

static void take_fds(struct shm *shm, const int *fds)
{
    shm->region.fd = fds[VGPU_HELLO_FD_SHM];
    shm->region.writers = fds[VGPU_HELLO_FD_WRITERS];
    shm->inflight_fd = fds[VGPU_HELLO_FD_INFLIGHT];
    for (uint32_t i = 0; i < shm->n_rings; i++) {
        shm->rings[i].kick = fds[VGPU_HELLO_FD_KICK(i)];
        shm->rings[i].call = fds[VGPU_HELLO_FD_CALL(shm->n_rings, i)];
    }
}

static int make_rings(struct shm *shm)
{
    for (uint32_t i = 0; i < shm->n_rings; i++) {
        struct guest_ring *gr = &shm->rings[i];

        gr->shm = shm;
        gr->index = i;
        TAILQ_INIT(&gr->jobs);
        gr->by_slot = calloc(shm->shape.entries, sizeof(struct job *));
        if (!gr->by_slot) {
            return -ENOMEM;
        }
    }
    return 0;
}

static int map_all(struct shm *shm, uint32_t rings, uint32_t entries)
{
    shm->bytes = map(shm->region.fd, shm->size);
    if (!shm->bytes) {
        return -errno;
    }
    shm->inflight_bytes = map(shm->inflight_fd, VGPU_INFLIGHT_BYTES(rings, entries));
    if (!shm->inflight_bytes) {
        return -errno;
    }
    inflight_map(&shm->inflight, shm->inflight_bytes, rings, entries);
    return 0;
}

int shm_new(struct vm *vm, const struct vgpu_hello *hello, int *fds, struct shm **ret_shm)
{
    struct shm *shm = calloc(1, sizeof(*shm) + hello->rings * sizeof(struct guest_ring));
    int r;

    if (!shm) {
        for (unsigned i = 0; i < layout_fds(hello); i++) {
            close_fd(&fds[i]);
        }
        return -ENOMEM;
    }
    shm->m = vm->m;
    shm->vm = vm;
    shm->n_rings = hello->rings;
    shm->size = hello->shm_size;
    shm->ring_offset = hello->ring_offset;
    shm->ring_stride = hello->ring_stride;
    shm->shape =
        (struct ring_shape){.entries = hello->ring_entries, .slot_bytes = hello->slot_bytes};
    shm->region = (struct region){.references = 1,
                                  .number = (uint32_t)++vm->m->next_region,
                                  .offset = hello->arena_offset,
                                  .size = hello->arena_size,
                                  .free = free_shm};
    take_fds(shm, fds);
    r = make_rings(shm);
    r = r < 0 ? r : map_all(shm, hello->rings, hello->ring_entries);
    if (r < 0) {
        free_shm(&shm->region);
        return r;
    }
    *ret_shm = shm;
    return 0;
}

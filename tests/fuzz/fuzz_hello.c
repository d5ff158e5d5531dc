/* SPDX-License-Identifier: MIT */
/*
 * fuzz_hello.c - the handshake: any HELLO with any descriptors. What the mediator accepts can be mapped
 * and lies where it should; which descriptors are right is known here, since they were made here.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common/core/ring.h"
#include "common/msgcheck.h"
#include "local-mediator/core/layout.h"
#include "local-mediator/shm.h"
#include "tests/fuzz/fuzz.h"

#define FDS_MOST (VGPU_HELLO_FDS(VGPU_RINGS_MAX) + 2)
#define MEMORY_MOST (UINT64_C(1) << 40) /* of a sparse memfd */
#define ALL_SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

/* ---- the message ---- */

/* What a stub sends for @rings rings, so that the fuzzer starts from something that is accepted. */
static void good_hello(struct vgpu_hello *h, unsigned rings)
{
    const struct ring_shape shape = {16, 256};

    *h = (struct vgpu_hello){
        .msg = {.magic = VGPU_MSG_MAGIC, .type = VGPU_MSG_HELLO, .length = sizeof(*h), .epoch = 1},
        .version_min = VGPU_LOCAL_VERSION_MIN,
        .version_max = VGPU_LOCAL_VERSION_MAX,
        .features = VGPU_LOCAL_FEATURE_SHM,
        .rings = (uint16_t)rings,
        .ring_entries = shape.entries,
        .slot_bytes = shape.slot_bytes,
        .shm_size = UINT64_C(1) << 22,
        .ring_offset = VGPU_SHM_CONTROL_SIZE,
        .ring_stride = ring_bytes(&shape),
    };
    h->arena_offset = h->ring_offset + rings * h->ring_stride;
    h->arena_size = h->shm_size - h->arena_offset;
}

static void change_fields(struct vgpu_hello *h, struct fuzz_input *in)
{
    uint8_t *bytes = (uint8_t *)h;
    unsigned n = (unsigned)fuzz_take(in, 1) % 8;

    while (n-- > 0) {
        size_t at = sizeof(h->msg) + fuzz_take(in, 1) % (sizeof(*h) - sizeof(h->msg));
        size_t length = 1 + fuzz_take(in, 1) % 8;

        fuzz_copy(in, bytes + at, length < sizeof(*h) - at ? length : sizeof(*h) - at);
    }
}

/* ---- what is accepted ---- */

static bool inside(uint64_t offset, unsigned __int128 length, uint64_t size)
{
    return (unsigned __int128)offset + length <= size;
}

/* By other means than the mediator's: sums of 128 bits. */
static void check_layout(const struct vgpu_hello *h)
{
    const struct ring_shape shape = {h->ring_entries, h->slot_bytes};
    unsigned __int128 rings_end =
        (unsigned __int128)h->ring_offset + (unsigned __int128)h->ring_stride * h->rings;

    fuzz_check(h->arena_size <= VGPU_SHM_SIZE_MAX && h->shm_size <= VGPU_SHM_SIZE_MAX);
    if (!(h->features & VGPU_LOCAL_FEATURE_SHM)) {
        fuzz_check(layout_fds(h) == 0);
        return;
    }
    fuzz_check(layout_fds(h) == VGPU_HELLO_FDS((unsigned)h->rings) &&
               layout_fds(h) <= VGPU_HELLO_FDS(VGPU_RINGS_MAX));
    fuzz_check(!ring_shape_check(&shape) && h->rings >= 1 && h->rings <= VGPU_RINGS_MAX);
    fuzz_check(h->ring_offset % VGPU_RING_PAGE == 0 && h->ring_stride % VGPU_RING_PAGE == 0);
    fuzz_check(h->ring_stride >= ring_bytes(&shape) && rings_end <= h->shm_size);
    fuzz_check(h->arena_size > 0 && inside(h->arena_offset, h->arena_size, h->shm_size));
    fuzz_check(h->arena_offset >= rings_end ||
               inside(h->arena_offset, h->arena_size, h->ring_offset));
}

/* ---- the descriptors ---- */

enum kind {
    MEMORY,
    MEMORY_UNSEALED,
    MEMORY_MAY_GROW,
    MEMORY_MAY_SHRINK,
    MEMORY_SMALL,
    MEMORY_LARGE,
    MEMORY_WRITE_SEALED,
    MEMORY_READ_ONLY,
    PIPE_WRITE,
    PIPE_READ,
    BELL,
    BELL_SEMAPHORE,
    BELL_FULL,
    BELL_BLOCKING,
    TIMER,
    EPOLL,
    SOCKET,
    DEV_NULL,
    FOLDER,
    KINDS
};

static int make_memory(uint64_t size, int seals)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd >= 0 && ftruncate(fd, (off_t)size) == 0) {
        (void)fcntl(fd, F_ADD_SEALS, seals);
    }
    return fd;
}

static int make_read_only(uint64_t size)
{
    int fd = make_memory(size, ALL_SEALS);
    char path[64];
    int again;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    again = open(path, O_RDONLY | O_CLOEXEC);
    close(fd);
    return again;
}

/* One end of a pair; the other end is closed. */
static int make_end(bool pipe_ends, unsigned keep)
{
    int fds[2] = {-1, -1};
    int r = pipe_ends ? pipe2(fds, O_CLOEXEC) : socketpair(AF_UNIX, SOCK_STREAM, 0, fds);

    if (r != 0) {
        return -1;
    }
    close(fds[1 - keep]);
    return fds[keep];
}

static int make_fd(enum kind kind, uint64_t size)
{
    switch (kind) {
    case MEMORY:
        return make_memory(size, ALL_SEALS);
    case MEMORY_UNSEALED:
        return make_memory(size, 0);
    case MEMORY_MAY_GROW:
        return make_memory(size, F_SEAL_SHRINK);
    case MEMORY_MAY_SHRINK:
        return make_memory(size, F_SEAL_GROW | F_SEAL_SEAL);
    case MEMORY_SMALL:
        return make_memory(size - 1, ALL_SEALS);
    case MEMORY_LARGE:
        return make_memory(size + 1, ALL_SEALS);
    case MEMORY_WRITE_SEALED:
        return make_memory(size, ALL_SEALS | F_SEAL_WRITE);
    case MEMORY_READ_ONLY:
        return make_read_only(size);
    case PIPE_WRITE:
        return make_end(true, 1);
    case PIPE_READ:
        return make_end(true, 0);
    case BELL:
        return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    case BELL_SEMAPHORE:
        return eventfd(3, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
    case BELL_FULL:
        return eventfd(UINT32_MAX, EFD_CLOEXEC | EFD_NONBLOCK);
    case BELL_BLOCKING:
        return eventfd(0, EFD_CLOEXEC);
    case TIMER:
        return timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    case EPOLL:
        return epoll_create1(EPOLL_CLOEXEC);
    case SOCKET:
        return make_end(false, 0);
    case DEV_NULL:
        return open("/dev/null", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    default:
        return open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
}

static enum kind right_kind(unsigned position)
{
    if (position == VGPU_HELLO_FD_WRITERS) {
        return PIPE_WRITE;
    }
    return position < VGPU_HELLO_FD_WRITERS ? MEMORY : BELL;
}

static bool is_right(unsigned position, enum kind kind)
{
    enum kind right = right_kind(position);

    return kind == right || (right == BELL && (kind == BELL_SEMAPHORE || kind == BELL_FULL));
}

/* Make @n descriptors: right ones, but for some that the input names. Return: whether all are right. */
static bool make_fds(const struct vgpu_hello *h, struct fuzz_input *in, int *fds, unsigned n)
{
    enum kind kinds[FDS_MOST];
    unsigned changes = (unsigned)fuzz_take(in, 1) % 4;
    bool right = true;

    for (unsigned i = 0; i < n; i++) {
        kinds[i] = right_kind(i);
    }
    while (changes-- > 0 && n > 0) {
        unsigned at = (unsigned)fuzz_take(in, 1) % n;

        kinds[at] = (enum kind)(fuzz_take(in, 1) % KINDS);
    }
    for (unsigned i = 0; i < n; i++) {
        uint64_t size = i == VGPU_HELLO_FD_SHM
                            ? h->shm_size
                            : VGPU_INFLIGHT_BYTES((uint64_t)h->rings, h->ring_entries);

        right = right && is_right(i, kinds[i]);
        fds[i] = make_fd(kinds[i], size);
        fuzz_check(fds[i] >= 0);
    }
    return right;
}

/* ---- mapping ---- */

/* All that the mediator writes at once: the pages of every ring, the arena's ends, the area. */
static void touch(const struct vgpu_hello *h, struct shm *shm)
{
    const struct ring_shape shape = {h->ring_entries, h->slot_bytes};

    for (uint32_t i = 0; i < h->rings; i++) {
        struct ring_device d;

        ring_device_init(&d, shm->bytes + h->ring_offset + i * h->ring_stride, &shape, 0, 0);
        ring_response(&d.map, shape.entries - 1)[shape.slot_bytes - 1] = 1;
    }
    shm->bytes[h->arena_offset] = shm->bytes[h->arena_offset + h->arena_size - 1] = 1;
    inflight_reset(&shm->inflight, h->msg.epoch, 1);
}

static void open_and_close(const struct vgpu_hello *h, int *fds)
{
    static struct mediator m;
    static struct vm vm;
    struct shm *shm;

    vm.m = &m;
    if (shm_new(&vm, h, fds, &shm) == 0) {
        touch(h, shm);
        shm->region.free(&shm->region);
    }
}

/* The lowest free descriptor is as low as it was: none is left open, or was closed twice. */
static int lowest_free(void)
{
    int fd = dup(0);

    close(fd);
    return fd;
}

static void offer(const struct vgpu_hello *h, struct fuzz_input *in)
{
    unsigned want = layout_fds(h);
    unsigned n = want;
    int fds[FDS_MOST], before = lowest_free();
    const char *wrong;
    bool right;

    if (fuzz_take(in, 1) % 8 == 7) {
        n = (unsigned)fuzz_take(in, 1) % FDS_MOST;
    }
    right = make_fds(h, in, fds, n) && n == want;
    wrong = shm_check_fds(h, fds, n);
    fuzz_check(right == !wrong);
    if (!wrong && n > 0) {
        open_and_close(h, fds);
    } else {
        for (unsigned i = 0; i < n; i++) {
            close(fds[i]);
        }
    }
    fuzz_check(lowest_free() == before);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct vgpu_hello h;

    good_hello(&h, 1 + (unsigned)fuzz_take(&in, 1) % 8);
    change_fields(&h, &in);
    if (msgcheck_message(MSGCHECK_STUB, &h, sizeof(h), 0) || layout_check(&h)) {
        return 0;
    }
    check_layout(&h);
    if (h.shm_size < MEMORY_MOST && h.rings <= 16) {
        offer(&h, &in);
    }
    return 0;
}

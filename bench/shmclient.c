/* SPDX-License-Identifier: MIT */
/* See shmclient.h. */
#include "bench/shmclient.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench/stats.h"
#include "common/core/spin.h"

#define ARENA_ALIGN 0x10000u

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", program_invocation_short_name, what);
    exit(1);
}

/* ---- what QEMU makes ---- */

static int sealed_memfd(const char *name, uint64_t size)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0 || ftruncate(fd, (off_t)size) ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
        die(name);
    }
    return fd;
}

static int make_eventfd(int flags)
{
    int fd = eventfd(0, EFD_CLOEXEC | flags);

    if (fd < 0) {
        die("eventfd");
    }
    return fd;
}

static void make_memory(struct shmclient *c)
{
    const struct shmclient_shape *s = &c->shape;

    c->shm_fd = sealed_memfd("vgpu-bar2", s->shm_size);
    c->inflight_fd = sealed_memfd("vgpu-inflight", VGPU_INFLIGHT_BYTES(s->rings, s->entries));
    c->shm = mmap(NULL, s->shm_size, PROT_READ | PROT_WRITE, MAP_SHARED, c->shm_fd, 0);
    if (c->shm == MAP_FAILED) {
        die("memory of BAR 2");
    }
}

static void make_rings(struct shmclient *c, struct vgpu_hello *hello)
{
    const struct ring_shape shape = {c->shape.entries, c->shape.slot_bytes};
    const char *wrong = ring_shape_check(&shape);

    if (wrong) {
        fail(wrong);
    }
    hello->rings = (uint16_t)c->shape.rings;
    hello->ring_entries = shape.entries;
    hello->slot_bytes = shape.slot_bytes;
    hello->shm_size = c->shape.shm_size;
    hello->ring_offset = VGPU_SHM_CONTROL_SIZE;
    hello->ring_stride = ring_bytes(&shape);
    hello->arena_offset =
        (hello->ring_offset + hello->rings * hello->ring_stride + ARENA_ALIGN - 1) / ARENA_ALIGN *
        ARENA_ALIGN;
    if (hello->arena_offset >= c->shape.shm_size) {
        fail("the rings leave no room for an arena");
    }
    hello->arena_size = c->shape.shm_size - hello->arena_offset;
    c->arena = c->shm + hello->arena_offset;
    c->arena_size = hello->arena_size;
    for (uint32_t i = 0; i < c->shape.rings; i++) {
        uint8_t *base = c->shm + hello->ring_offset + i * hello->ring_stride;

        if (ring_driver_init(&c->ring[i], base, &shape, false)) {
            die("memory for the rings");
        }
        c->kick[i] = make_eventfd(EFD_NONBLOCK);
        c->call[i] = make_eventfd(EFD_NONBLOCK);
    }
}

/* The write end of the writers' pipe is the mediator's alone, once HELLO is sent. */
static void greet(struct shmclient *c, struct vgpu_hello *hello)
{
    int fds[VGPU_HELLO_FDS(VGPU_RINGS_MAX)];
    struct vgpu_hello_ack ack;
    uint32_t rings = c->shape.rings;
    int pipe_fds[2];

    if (pipe2(pipe_fds, O_CLOEXEC)) {
        die("pipe");
    }
    c->writers = pipe_fds[0];
    fds[VGPU_HELLO_FD_SHM] = c->shm_fd;
    fds[VGPU_HELLO_FD_INFLIGHT] = c->inflight_fd;
    fds[VGPU_HELLO_FD_WRITERS] = pipe_fds[1];
    memcpy(&fds[VGPU_HELLO_FD_KICK(0)], c->kick, rings * sizeof(int));
    memcpy(&fds[VGPU_HELLO_FD_CALL(rings, 0)], c->call, rings * sizeof(int));
    vmsock_hello(&c->sock, hello, fds, VGPU_HELLO_FDS(rings), &ack);
    close(pipe_fds[1]);
    if (!(ack.features & VGPU_LOCAL_FEATURE_SHM)) {
        vmsock_breach("does not take the offer of shared memory", VGPU_MSG_HELLO_ACK);
    }
}

void shmclient_open(struct shmclient *c, const char *path, const struct shmclient_shape *shape)
{
    struct vgpu_hello hello = {
        .features = VGPU_LOCAL_FEATURE_SHM,
        .conn_gen = 1,
        .band_wish = VGPU_BAND_DEFAULT,
    };

    memset(c, 0, sizeof(*c));
    c->shape = *shape;
    make_memory(c);
    make_rings(c, &hello);
    vmsock_connect(&c->sock, path);
    greet(c, &hello);
}

void shmclient_close(struct shmclient *c)
{
    struct pollfd writers = {.fd = c->writers};

    vmsock_close(&c->sock);
    if (poll(&writers, 1, VMSOCK_TIMEOUT_S * 1000) != 1) {
        fail("the mediator does not let go of the memory");
    }
    for (uint32_t i = 0; i < c->shape.rings; i++) {
        ring_driver_fini(&c->ring[i]);
        close(c->kick[i]);
        close(c->call[i]);
    }
    munmap(c->shm, c->shape.shm_size);
    close(c->shm_fd);
    close(c->inflight_fd);
    close(c->writers);
}

/* ---- what the guest does ---- */

void shmclient_submit(struct shmclient *c, uint32_t ring, const void *request, uint32_t len,
                      uint64_t tag)
{
    struct ring_driver *r = &c->ring[ring];
    uint32_t slot;

    if (ring_slot_take(r, &slot)) {
        fail("no free slot");
    }
    memcpy(ring_request(&r->map, slot), request, len);
    ring_submit(r, slot, len, tag);
}

void shmclient_publish(struct shmclient *c, uint32_t ring)
{
    const uint64_t one = 1;

    if (!ring_driver_publish(&c->ring[ring])) {
        return;
    }
    c->kicks++;
    if (write(c->kick[ring], &one, sizeof(one)) != sizeof(one) && errno != EAGAIN) {
        die("write to a kick");
    }
}

bool shmclient_collect(struct shmclient *c, uint32_t ring, struct vgpu_completion *ret)
{
    struct ring_driver *r = &c->ring[ring];

    switch (ring_collect(r, ret)) {
    case 0:
        return true;
    case RING_E_BROKEN:
        fail(r->wrong);
    default:
        if (ring_driver_flags(r) & VGPU_RING_BROKEN) {
            fail("the mediator says that the ring is broken");
        }
        return false;
    }
}

/*
 * Until somebody rings, as a vCPU that KVM wakes: by one read that blocks. The mediator makes the eventfd
 * non-blocking before it writes to it; if that falls between the two calls here they are repeated.
 */
static void sleep_until_called(struct shmclient *c, uint32_t ring)
{
    uint64_t n;

    do {
        fcntl(c->call[ring], F_SETFL, 0);
        if (read(c->call[ring], &n, sizeof(n)) == sizeof(n)) {
            c->calls++;
            return;
        }
    } while (errno == EAGAIN);
    die("read of a call");
}

void shmclient_wait(struct shmclient *c, uint32_t ring, struct vgpu_completion *ret)
{
    while (!shmclient_collect(c, ring, ret)) {
        if (c->spin) {
            spin_pause();
        } else if (!ring_driver_arm(&c->ring[ring])) {
            sleep_until_called(c, ring);
        }
    }
}

const struct vgpu_resp_hdr *shmclient_response(struct shmclient *c, uint32_t ring,
                                               const struct vgpu_completion *completion)
{
    return (const void *)ring_response(&c->ring[ring].map, completion->slot);
}

void shmclient_done(struct shmclient *c, uint32_t ring, const struct vgpu_completion *completion)
{
    ring_slot_give_back(&c->ring[ring], completion->slot);
}

uint64_t shmclient_run(struct shmclient *c, uint32_t ring, void *request, uint32_t len)
{
    struct vgpu_completion done;
    struct vgpu_resp_hdr h;

    c->tag++;
    memcpy((uint8_t *)request + offsetof(struct vgpu_req_hdr, tag), &c->tag, sizeof(c->tag));
    shmclient_submit(c, ring, request, len, c->tag);
    shmclient_publish(c, ring);
    shmclient_wait(c, ring, &done);
    memcpy(&h, shmclient_response(c, ring, &done), sizeof(h));
    if (done.error || done.tag != c->tag || h.tag != c->tag || h.error) {
        fprintf(stderr, "%s: request %llu ended with error %u: %.*s\n",
                program_invocation_short_name, (unsigned long long)c->tag, done.error,
                done.length > sizeof(h) ? (int)(done.length - sizeof(h)) : 0,
                (const char *)(shmclient_response(c, ring, &done) + 1));
        exit(1);
    }
    shmclient_done(c, ring, &done);
    return h.run_ns;
}

/* SPDX-License-Identifier: MIT */
/* place.c - see place.h */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "guest/lib/err.h"
#include "guest/lib/place.h"

#define SETTLE_TRIES 20 /* a millisecond each */
#define SETTLE_NS (3 * CLOCK_NS_PER_S)
#define IMPATIENT_NS (10 * CLOCK_NS_PER_S) /* after having waited in vain */
#define CANCEL_AGAIN_NS (1 * CLOCK_NS_PER_S)
#define DEADLINE_DEFAULT_MS 60000u
#define ASIDE_MAX 64u /* parts of the arena that are passed over in one claim */

/* ---- what the device says ---- */

static int check_identity(const struct place *p, struct vgpu_err *err)
{
    uint32_t magic = mmio_read(&p->mmio, VGPU_REG_MAGIC);
    uint32_t abi = mmio_read(&p->mmio, VGPU_REG_ABI_VERSION);

    if (magic == PLACE_GONE) {
        return err_set(err, -ENODEV,
                       "%s: the device does not answer (all bits read 1): it was unplugged, or its "
                       "memory decoding is off",
                       p->address);
    }
    if (magic != VGPU_MAGIC) {
        return err_set(err, -EPROTO,
                       "%s: BAR 0 begins with 0x%08" PRIx32 " instead of 0x%08x: the PCI ids are "
                       "those of a vGPU, but this is another device",
                       p->address, magic, VGPU_MAGIC);
    }
    if (abi >> 16 != VGPU_ABI_VERSION >> 16) {
        return err_set(err, -EPROTONOSUPPORT,
                       "%s: the device speaks version %u.%u, this program version %u.%u: use a "
                       "program that is as new as the device",
                       p->address, abi >> 16, abi & 0xffff, VGPU_ABI_VERSION >> 16,
                       VGPU_ABI_VERSION & 0xffff);
    }
    return 0;
}

/* Where the arena is. A place that lies outside the BAR is a device that lies. */
static int find_arena(struct place *p, struct vgpu_err *err)
{
    uint64_t offset = mmio_read64(&p->mmio, VGPU_REG_ARENA_OFFSET_LO);
    uint64_t size = mmio_read64(&p->mmio, VGPU_REG_ARENA_SIZE_LO);

    p->arena_base = NULL;
    if (!p->shm || !(mmio_read(&p->mmio, VGPU_REG_FEATURES) & VGPU_FEATURE_SHM) || size == 0) {
        return 0;
    }
    if (offset > p->shm_bytes || size > p->shm_bytes - offset || offset % VGPU_ARENA_ALIGN != 0) {
        return err_set(err, -EPROTO,
                       "%s: the device says that its arena is at 0x%" PRIx64 ", 0x%" PRIx64
                       " bytes, but BAR 2 has 0x%" PRIx64 " bytes",
                       p->address, offset, size, p->shm_bytes);
    }
    p->arena_base = p->shm + offset;
    p->claims =
        (struct claims){.fd = p->shm_fd, .start = offset, .size = size - size % VGPU_ARENA_ALIGN};
    return 0;
}

int place_check(struct place *p, struct vgpu_err *ret_err)
{
    const char *why;
    int r = check_identity(p, ret_err);

    r = r ? r : find_arena(p, ret_err);
    if (r) {
        return r;
    }
    why = rings_find(&p->rings, &p->mmio, p->shm, p->shm_bytes,
                     p->arena_base ? p->claims.start : UINT64_MAX);
    p->rings.fd = p->shm_fd;
    p->rings.life_fd = p->regs_fd;
    snprintf(p->no_ring, sizeof(p->no_ring), "%s", why ? why : "");
    return 0;
}

static void close_file(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
    }
    *fd = -1;
}

void place_fini(struct place *p)
{
    if (p->regs) {
        munmap(p->regs, VGPU_BAR_REGS_SIZE);
    }
    if (p->shm && p->shm_fd >= 0) {
        munmap(p->shm, p->shm_bytes);
    }
    p->regs = NULL;
    p->shm = NULL;
    close_file(&p->regs_fd);
    close_file(&p->settle_fd);
    close_file(&p->shm_fd);
}

void place_limits(const struct place *p, struct transport_limits *l)
{
    l->arena = p->arena_base;
    l->arena_bytes = p->arena_base ? p->claims.size : 0;
}

int place_describe(const struct place *p, struct vgpu_device *ret)
{
    const struct mmio *m = &p->mmio;

    if (mmio_read(m, VGPU_REG_MAGIC) != VGPU_MAGIC) {
        return -ENODEV;
    }
    *ret = (struct vgpu_device){
        .abi_version = mmio_read(m, VGPU_REG_ABI_VERSION),
        .features = mmio_read(m, VGPU_REG_FEATURES),
        .vm_id = mmio_read(m, VGPU_REG_VM_ID),
        .pool_id = mmio_read(m, VGPU_REG_POOL_ID),
        .priority = mmio_read(m, VGPU_REG_PRIORITY),
        .status = mmio_read(m, VGPU_REG_STATUS),
        .deadline_ms = mmio_read(m, VGPU_REG_DEADLINE_MS),
        .backend_gen = mmio_read(m, VGPU_REG_BACKEND_GEN),
        .reset_epoch = mmio_read(m, VGPU_REG_RESET_EPOCH),
        .rejects = mmio_read(m, VGPU_REG_REJECTS),
        .reject_error = mmio_read(m, VGPU_REG_REJECT_ERROR),
        .shm_bytes = mmio_read64(m, VGPU_REG_SHM_SIZE_LO),
        .arena_bytes = p->arena_base ? p->claims.size : 0,
        .rings = p->rings.count,
        .ring = p->rings.mine,
        .ring_entries = p->rings.count ? p->rings.shape.entries : 0,
        .slot_bytes = p->rings.count ? p->rings.shape.slot_bytes : 0,
    };
    memcpy(ret->address, p->address, sizeof(ret->address));
    memcpy(ret->arena, p->arena, sizeof(ret->arena));
    memcpy(ret->no_ring, p->no_ring, sizeof(ret->no_ring));
    return 0;
}

uint32_t place_deadline_ms(const struct place *p)
{
    uint32_t ms = mmio_read(&p->mmio, VGPU_REG_DEADLINE_MS);

    return ms && ms != PLACE_GONE ? ms : DEADLINE_DEFAULT_MS;
}

/* ---- parts of the arena ---- */

static void nap_1ms(void)
{
    struct timespec ts = {.tv_nsec = 1000000};

    nanosleep(&ts, NULL);
}

/* Whoever has the lock of the windows for longer has seen to what dead processes left in them. */
static bool lock_windows(const struct place *p, const atomic_bool *have_windows)
{
    for (int tries = SETTLE_TRIES; tries > 0 && !atomic_load(have_windows); tries--) {
        if (flock(p->settle_fd, LOCK_EX | LOCK_NB) == 0) {
            return true;
        }
        nap_1ms();
    }
    return false;
}

/* Whether a dead process's request is in the windows, which this process has locked. */
static bool is_left(const struct place *p, uint32_t status, uint64_t *cancel_ns)
{
    uint64_t now_ns = clock_now_ns();

    if ((status & VGPU_STATUS_STATE_MASK) != VGPU_STATUS_BUSY) {
        return false;
    }
    if (now_ns >= *cancel_ns) {
        mmio_write(&p->mmio, VGPU_REG_CONTROL, VGPU_CONTROL_CANCEL);
        *cancel_ns = now_ns + CANCEL_AGAIN_NS;
    }
    return true;
}

/*
 * Wait until no dead process's request is in the windows and no reset is under way: until then
 * somebody may write to the arena. The request is cancelled, which ends it when its writer has ended.
 * Return: whether that is so.
 */
static bool settle_windows(const struct place *p, const atomic_bool *have_windows)
{
    bool locked = lock_windows(p, have_windows);
    uint64_t now_ns = clock_now_ns(), cancel_ns = 0;
    uint64_t end_ns = now_ns + (now_ns >= p->patience_ns ? SETTLE_NS : 0);
    bool settled = false;

    for (;;) {
        uint32_t status = mmio_read(&p->mmio, VGPU_REG_STATUS);
        bool left = status != PLACE_GONE && locked && is_left(p, status, &cancel_ns);

        settled = status == PLACE_GONE || atomic_load(have_windows) ||
                  !(left || status & VGPU_STATUS_RESETTING);
        if (settled || clock_now_ns() >= end_ns) {
            break;
        }
        nap_1ms();
    }
    if (locked) {
        flock(p->settle_fd, LOCK_UN);
    }
    return settled;
}

/* Take parts until one comes to which no dead process's request in a ring may write. */
static int claim_unwritten(struct place *p, uint64_t want_bytes, struct ranges_span *ret,
                           bool *ret_passed_over)
{
    struct ranges_span aside[ASIDE_MAX];
    unsigned n = 0;
    int r;

    while ((r = claims_take(&p->claims, want_bytes, ret)) == 0 && rings_may_write(&p->rings, ret)) {
        if (n == ASIDE_MAX) {
            claims_give(&p->claims, ret);
            r = RANGES_E_FULL;
            break;
        }
        aside[n++] = *ret;
    }
    *ret_passed_over = n != 0;
    while (n) {
        claims_give(&p->claims, &aside[--n]);
    }
    return r;
}

int place_claim(struct place *p, const atomic_bool *have_windows, uint64_t want_bytes,
                struct ranges_span *ret)
{
    uint64_t start_ns = clock_now_ns();
    bool passed_over;
    int r = claim_unwritten(p, want_bytes, ret, &passed_over);

    /* Only the requests of a dead process are in the way: they end. Not waited for twice. */
    while (r && passed_over && clock_now_ns() >= p->patience_ns) {
        rings_kick_left(&p->rings, &p->mmio);
        nap_1ms();
        r = claim_unwritten(p, want_bytes, ret, &passed_over);
        if (r && clock_now_ns() - start_ns >= SETTLE_NS) {
            p->patience_ns = clock_now_ns() + IMPATIENT_NS;
        }
    }
    if (r == 0 && p->settle_fd >= 0 && !settle_windows(p, have_windows)) {
        claims_give(&p->claims, ret);
        p->patience_ns = clock_now_ns() + IMPATIENT_NS;
        r = RANGES_E_FULL;
    }
    return r;
}

void place_unclaim(struct place *p, const struct ranges_span *span)
{
    claims_give(&p->claims, span);
}

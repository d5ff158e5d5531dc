/* SPDX-License-Identifier: MIT */
/*
 * fuzz_rings_find.c - a device that says anything about its rings, and anything in their pages: what the
 * guest library then uses lies in BAR 2 and outside of the arena
 */
#include "guest/lib/rings.h"
#include "tests/fuzz/fuzz.h"

#define SHM_BYTES (UINT64_C(1) << 20)

static _Alignas(4096) uint8_t shm[SHM_BYTES];

static uint32_t read_register(void *registers, uint32_t offset)
{
    uint32_t value;

    fuzz_check(offset % 4 == 0 && offset < VGPU_WINDOW_REQUEST);
    memcpy(&value, (uint8_t *)registers + offset, sizeof(value));
    return value;
}

static void write_register(void *registers, uint32_t offset, uint32_t value)
{
    (void)registers, (void)offset, (void)value;
}

static void put(uint8_t *registers, uint32_t offset, uint32_t value)
{
    memcpy(registers + offset, &value, sizeof(value));
}

/* Good values, each changed by the input now and then, in a few bits or altogether. */
static void make_registers(uint8_t *registers, struct fuzz_input *in)
{
    const uint32_t good[][2] = {
        {VGPU_REG_FEATURES, VGPU_FEATURE_SHM | VGPU_FEATURE_RING | VGPU_FEATURE_EVENT_IDX},
        {VGPU_REG_RING_COUNT, 2},
        {VGPU_REG_RING_ENTRIES, 16},
        {VGPU_REG_RING_OFFSET, VGPU_SHM_CONTROL_SIZE},
        {VGPU_REG_RING_STRIDE, 24576},
        {VGPU_REG_SLOT_BYTES, 256},
    };

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        uint32_t how = (uint32_t)fuzz_take(in, 1) % 4;
        uint32_t value = good[i][1];

        value = how == 1 ? (uint32_t)fuzz_take(in, 4) : value;
        value = how == 2 ? value ^ 1u << fuzz_take(in, 1) % 32 : value;
        value = how == 3 ? value + (uint32_t)fuzz_take(in, 1) * 4096u : value;
        put(registers, good[i][0], value);
    }
}

static void check_ring(const struct rings *r, unsigned i, uint64_t arena)
{
    uint8_t *base = rings_base(r, i);
    uint64_t bytes = ring_bytes(&r->shape);
    struct ring_driver d;

    fuzz_check(base >= shm && bytes <= SHM_BYTES && (uint64_t)(base - shm) <= SHM_BYTES - bytes);
    fuzz_check((uint64_t)(base - shm) + bytes <= arena);
    fuzz_check(i == 0 || base >= rings_base(r, i - 1) + bytes);
    if (ring_driver_init(&d, base, &r->shape, false) == 0) {
        if (ring_driver_resume(&d) == 0) {
            fuzz_check(d.submit_tail == d.complete_head && d.published == d.submit_tail);
        }
        fuzz_check(!ring_driver_arm(&d) || d.map.device->complete_tail != d.complete_head);
        ring_driver_fini(&d);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t registers[VGPU_BAR_REGS_SIZE];
    struct fuzz_input in = {data, size};
    const struct mmio mmio = {read_register, write_register, registers};
    uint64_t arena = fuzz_take(&in, 1) % 4 ? UINT64_MAX : fuzz_take(&in, 3);
    struct ranges_span part = {.offset = fuzz_take(&in, 2), .length = 64};
    struct rings r;
    unsigned left;

    memset(registers, 0, sizeof(registers));
    make_registers(registers, &in);
    if (rings_find(&r, &mmio, shm, SHM_BYTES, arena)) {
        fuzz_check(r.count == 0);
        return 0;
    }
    fuzz_check(r.count >= 1 && r.count <= VGPU_RINGS_MAX && !ring_shape_check(&r.shape));
    for (unsigned i = 0; i < r.count; i++) {
        fuzz_copy(&in, rings_base(&r, i), 4);
        fuzz_copy(&in, rings_base(&r, i) + VGPU_RING_PAGE, 4);
        fuzz_copy(&in, rings_base(&r, i) + VGPU_RING_SLOTS(r.shape.entries), 128);
        check_ring(&r, i, arena);
    }
    (void)rings_take(&r, &left);
    (void)rings_kick_left(&r, &mmio);
    r.fd = 0; /* "there is a file": look, without being able to lock */
    (void)rings_may_write(&r, &part);
    return 0;
}

/* SPDX-License-Identifier: MIT */
/* test_layouts_agree.c - how the device divides BAR 2 is accepted by the mediator and by the guest library,
 * and both find the same rings */
#include "guest/lib/rings.h"
#include "local-mediator/core/layout.h"
#include "stub/vgpu_bar0.h"
#include "tests/unit/unit.h"

static uint32_t read_register(void *bar0, uint32_t offset)
{
    return (uint32_t)vgpu_bar0_read(bar0, offset, 4);
}

static void write_register(void *bar0, uint32_t offset, uint32_t value)
{
    (void)bar0, (void)offset, (void)value;
}

/* As vgpu_relay.c fills it in. */
static struct vgpu_hello hello_of(const struct vgpu_layout *l)
{
    return (struct vgpu_hello){
        .features = VGPU_LOCAL_FEATURE_SHM,
        .arena_size = l->arena_size,
        .rings = (uint16_t)l->rings,
        .ring_entries = l->entries,
        .slot_bytes = l->slot_bytes,
        .shm_size = l->shm_size,
        .ring_offset = l->ring_offset,
        .ring_stride = l->ring_stride,
        .arena_offset = l->arena_offset,
    };
}

static void check_guest(const struct vgpu_layout *l)
{
    static struct vgpu_bar0 bar0;
    const struct vgpu_bar0_config config = {
        .layout = *l, .deadline_ms = 1, .features = VGPU_FEATURE_SHM | VGPU_FEATURE_RING};
    const struct mmio mmio = {read_register, write_register, &bar0};
    uint8_t *shm = (uint8_t *)(uintptr_t)4096; /* only looked from: nothing is there */
    uint64_t arena_offset, arena_size;
    struct rings r;

    vgpu_bar0_init(&bar0, &config);
    arena_offset = mmio_read64(&mmio, VGPU_REG_ARENA_OFFSET_LO);
    arena_size = mmio_read64(&mmio, VGPU_REG_ARENA_SIZE_LO);
    ck_assert_uint_eq(arena_offset, l->arena_offset);
    ck_assert_uint_eq(arena_offset + arena_size, l->shm_size);
    ck_assert_ptr_null(rings_find(&r, &mmio, shm, l->shm_size, arena_offset));
    ck_assert_uint_eq(r.count, l->rings);
    for (unsigned i = 0; i < r.count; i++) {
        uint8_t *want = shm + l->ring_offset + (uint64_t)i * l->ring_stride;

        ck_assert_ptr_eq(rings_base(&r, i), want);
    }
    ck_assert_uint_eq(r.shape.entries, l->entries);
    ck_assert_uint_eq(r.shape.slot_bytes, l->slot_bytes);
}

START_TEST(every_layout)
{
    uint64_t shm_size = VGPU_SHM_SIZE_MIN << _i;

    for (uint32_t rings = 1; rings <= VGPU_RINGS_MAX; rings++) {
        for (uint32_t n = VGPU_RING_ENTRIES_MIN; n <= VGPU_RING_ENTRIES_MAX; n *= 2) {
            struct vgpu_layout l = vgpu_layout_make(shm_size, rings, n);
            struct vgpu_hello hello = hello_of(&l);
            const char *wrong = layout_check(&hello);

            ck_assert_msg(!wrong, "%u rings of %u: %s", rings, n, wrong ? wrong : "");
            ck_assert_uint_eq(layout_fds(&hello), VGPU_HELLO_FDS(l.rings));
            check_guest(&l);
        }
    }
}
END_TEST

/* Without rings neither has any. */
START_TEST(no_rings)
{
    struct vgpu_layout l = vgpu_layout_make(VGPU_SHM_SIZE_DEFAULT, 0, 0);
    struct vgpu_hello hello = {.arena_size = l.arena_size};

    ck_assert_ptr_null(layout_check(&hello));
    ck_assert_uint_eq(layout_fds(&hello), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("layouts_agree");
    TCase *tc = tcase_create("layouts_agree");

    tcase_add_loop_test(tc, every_layout, 0, 17); /* 1 MiB to 64 GiB */
    tcase_add_test(tc, no_rings);
    suite_add_tcase(s, tc);
    return unit_run(s);
}

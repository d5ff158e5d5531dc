/* SPDX-License-Identifier: MIT */
/* test_vgpu_layout.c - rings and arena share BAR 2 as vgpu_layout.h says */
#include <string.h>

#include "common/core/ring.h"
#include "stub/vgpu_layout.h"
#include "tests/unit/unit.h"

#define MIB (UINT64_C(1) << 20)

/* clang-format off */
static const struct layout_case {
    const char *name;
    uint64_t shm_size;
    uint32_t rings, entries;
    uint32_t want_rings, want_entries;
    uint64_t want_arena_offset;
} layout_cases[] = {
    { "no rings: the arena follows the control pages", MIB, 0, 0, 0, 0, 0x10000 },
    { "the default fits the default size", 64 * MIB, 4, 128, 4, 128, 0x430000 },
    { "the smallest BAR has one small ring", MIB, 4, 128, 1, 16, 0x40000 },
    { "entries go before rings", 4 * MIB, 4, 128, 4, 16, 0xa0000 },
    { "then rings are halved", 2 * MIB, 4, 128, 2, 16, 0x60000 },
    { "half of three is one", MIB, 3, 16, 1, 16, 0x40000 },
    { "as many as there can be, in much memory", VGPU_SHM_SIZE_MAX, 64, 4096, 64, 4096, 0 },
    { "as many as there can be, in little", MIB, 64, 4096, 1, 16, 0x40000 },
    { "one ring of the smallest size", 64 * MIB, 1, 16, 1, 16, 0x40000 },
};
/* clang-format on */

START_TEST(layouts)
{
    const struct layout_case *c = &layout_cases[_i];
    struct vgpu_layout l = vgpu_layout_make(c->shm_size, c->rings, c->entries);

    ck_assert_msg(vgpu_layout_check(&l) == 0, "%s: %d", c->name, vgpu_layout_check(&l));
    ck_assert_msg(l.rings == c->want_rings && l.entries == c->want_entries, "%s: %u rings of %u",
                  c->name, l.rings, l.entries);
    ck_assert_msg(c->want_arena_offset == 0 || l.arena_offset == c->want_arena_offset,
                  "%s: arena at 0x%llx", c->name, (unsigned long long)l.arena_offset);
}
END_TEST

START_TEST(every_layout_is_possible_and_agrees_with_the_ring_s_own_size)
{
    uint64_t shm_size;
    uint32_t rings, entries;

    for (shm_size = VGPU_SHM_SIZE_MIN; shm_size <= VGPU_SHM_SIZE_MAX; shm_size *= 2) {
        for (rings = 0; rings <= VGPU_RINGS_MAX; rings++) {
            for (entries = VGPU_RING_ENTRIES_MIN; entries <= VGPU_RING_ENTRIES_MAX; entries *= 2) {
                struct vgpu_layout l = vgpu_layout_make(shm_size, rings, entries);
                struct ring_shape shape = {l.entries, l.slot_bytes};

                ck_assert_int_eq(vgpu_layout_check(&l), 0);
                ck_assert_uint_ge(l.arena_size, shm_size / 2);
                ck_assert(rings == 0 || ring_shape_check(&shape) == NULL);
                ck_assert(rings == 0 || l.ring_stride == ring_bytes(&shape));
            }
        }
    }
}
END_TEST

START_TEST(a_reset_zeroes_the_pages_of_rings_and_nothing_else)
{
    struct vgpu_layout l = vgpu_layout_make(2 * MIB, 2, 16);
    uint8_t *shm = malloc(l.shm_size);
    uint64_t at, zeros = 0;
    uint32_t i;

    ck_assert_ptr_nonnull(shm);
    memset(shm, 0xee, l.shm_size);
    vgpu_layout_zero_rings(&l, shm);
    for (i = 0; i < l.rings; i++) {
        for (at = 0; at < 2 * VGPU_RING_PAGE; at++) {
            ck_assert_uint_eq(shm[l.ring_offset + (uint64_t)i * l.ring_stride + at], 0);
        }
    }
    for (at = 0; at < l.shm_size; at++) {
        zeros += shm[at] == 0;
    }
    ck_assert_uint_eq(zeros, 2 * 2 * VGPU_RING_PAGE);
    free(shm);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vgpu_layout");
    TCase *tc = tcase_create("vgpu_layout");

    tcase_add_loop_test(tc, layouts, 0, N_ELEMS(layout_cases));
    tcase_add_test(tc, every_layout_is_possible_and_agrees_with_the_ring_s_own_size);
    tcase_add_test(tc, a_reset_zeroes_the_pages_of_rings_and_nothing_else);
    suite_add_tcase(suite, tc);
    return unit_run(suite);
}

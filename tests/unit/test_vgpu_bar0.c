/* SPDX-License-Identifier: MIT */
/* test_vgpu_bar0.c - the register file answers as vgpu_regs.h says, whatever the guest does */
#include <string.h>

#include "stub/vgpu_bar0.h"
#include "tests/unit/unit.h"

#define SHM_SIZE (UINT64_C(1) << 20)

/* No rings; the layout is filled in by setup(). */
static struct vgpu_bar0_config config = {
    .deadline_ms = 5000,
    .features = VGPU_FEATURE_SHM | VGPU_FEATURE_MSIX,
    .band = VGPU_BAND_DEFAULT,
};

static const struct vgpu_backend backend = {
    .known = true,
    .up = true,
    .gen = 77,
    .features = VGPU_FEATURE_OBJECT,
    .vm_id = 3,
    .pool_id = 4,
    .deadline_ms = 2000,
    .band = VGPU_BAND_HIGH,
};

static struct vgpu_bar0 bar0;

static void setup(void)
{
    config.layout = vgpu_layout_make(SHM_SIZE, 0, 0);
    vgpu_bar0_init(&bar0, &config);
    ck_assert_int_eq(vgpu_bar0_check(&bar0), 0);
}

static uint32_t reg(uint32_t offset)
{
    return (uint32_t)vgpu_bar0_read(&bar0, offset, 4);
}

static uint32_t set(uint32_t offset, uint32_t value)
{
    uint32_t todo = vgpu_bar0_write(&bar0, offset, value, 4);

    ck_assert_int_eq(vgpu_bar0_check(&bar0), 0);
    return todo;
}

/* An ECHO of 8 inline bytes in the request window; returns its length. */
static uint32_t put_request(uint32_t flags, uint32_t deadline_ms)
{
    uint8_t bytes[104] = {0};
    struct vgpu_req_hdr hdr = {
        .size = sizeof(bytes),
        .version = VGPU_REQ_VERSION,
        .op = VGPU_OP_ECHO,
        .flags = flags,
        .deadline_ms = deadline_ms,
        .tag = 0x1234,
        .band = VGPU_BAND_DEFAULT,
        .nbufs = 2,
    };
    struct vgpu_buf bufs[2] = {
        {.kind = VGPU_BUF_INLINE, .dir = VGPU_BUF_IN, .offset = 96, .length = 8},
        {.kind = VGPU_BUF_INLINE, .dir = VGPU_BUF_OUT, .offset = 0, .length = 8},
    };
    uint32_t i;

    memcpy(bytes, &hdr, sizeof(hdr));
    memcpy(bytes + sizeof(hdr), bufs, sizeof(bufs));
    for (i = 0; i < sizeof(bytes); i += 4) {
        uint32_t word;

        memcpy(&word, bytes + i, sizeof(word));
        ck_assert_uint_eq(set(VGPU_WINDOW_REQUEST + i, word), 0);
    }
    return sizeof(bytes);
}

static uint32_t ring(uint32_t flags, uint32_t deadline_ms)
{
    set(VGPU_REG_REQUEST_LEN, put_request(flags, deadline_ms));
    return set(VGPU_REG_DOORBELL, 1);
}

static void respond(uint32_t error, uint32_t payload)
{
    uint8_t bytes[VGPU_WINDOW_SIZE];
    struct vgpu_resp_hdr hdr = {
        .size = (uint32_t)sizeof(hdr) + payload,
        .version = VGPU_REQ_VERSION,
        .op = VGPU_OP_ECHO,
        .error = error,
        .tag = 0x1234,
    };

    memset(bytes, 0xee, sizeof(bytes));
    memcpy(bytes, &hdr, sizeof(hdr));
    vgpu_bar0_respond(&bar0, bytes, hdr.size);
    ck_assert_int_eq(vgpu_bar0_check(&bar0), 0);
}

/* clang-format off */
static const struct fresh_case {
    const char *name;
    uint32_t offset;
    uint32_t value;
} fresh_cases[] = {
    { "magic", VGPU_REG_MAGIC, VGPU_MAGIC },
    { "ABI version", VGPU_REG_ABI_VERSION, VGPU_ABI_VERSION },
    { "features of the device alone", VGPU_REG_FEATURES, VGPU_FEATURE_SHM | VGPU_FEATURE_MSIX },
    { "no VM number yet", VGPU_REG_VM_ID, 0 },
    { "the command line's band", VGPU_REG_PRIORITY, VGPU_BAND_DEFAULT },
    { "idle, nobody there", VGPU_REG_STATUS, VGPU_STATUS_IDLE },
    { "the command line's deadline", VGPU_REG_DEADLINE_MS, 5000 },
    { "no rings", VGPU_REG_RING_COUNT, 0 },
    { "size of BAR 2", VGPU_REG_SHM_SIZE_LO, 1 << 20 },
    { "size of BAR 2, high", VGPU_REG_SHM_SIZE_HI, 0 },
    { "the arena starts after the control pages", VGPU_REG_ARENA_OFFSET_LO, VGPU_SHM_CONTROL_SIZE },
    { "the arena takes the rest", VGPU_REG_ARENA_SIZE_LO, (1 << 20) - VGPU_SHM_CONTROL_SIZE },
    { "a doorbell cannot be read", VGPU_REG_DOORBELL, 0 },
    { "a hole reads 0", 0x3f0, 0 },
    { "past the windows is 0", 0xffc, 0 },
};
/* clang-format on */

START_TEST(fresh)
{
    const struct fresh_case *c = &fresh_cases[_i];

    ck_assert_msg(reg(c->offset) == c->value, "%s: 0x%x", c->name, reg(c->offset));
}
END_TEST

START_TEST(large_bar_2_uses_the_high_halves)
{
    struct vgpu_bar0_config large = config;

    large.layout = vgpu_layout_make(VGPU_SHM_SIZE_MAX, 0, 0);
    vgpu_bar0_init(&bar0, &large);
    ck_assert_uint_eq(reg(VGPU_REG_SHM_SIZE_LO), 0);
    ck_assert_uint_eq(reg(VGPU_REG_SHM_SIZE_HI), 16);
    ck_assert_uint_eq(reg(VGPU_REG_ARENA_SIZE_LO), UINT32_MAX - VGPU_SHM_CONTROL_SIZE + 1);
    ck_assert_uint_eq(reg(VGPU_REG_ARENA_SIZE_HI), 15);
}
END_TEST

START_TEST(rings_show_in_registers)
{
    struct vgpu_bar0_config with_rings = config;
    struct vgpu_layout l = vgpu_layout_make(VGPU_SHM_SIZE_DEFAULT, 4, 128);

    with_rings.layout = l;
    vgpu_bar0_init(&bar0, &with_rings);
    ck_assert_uint_eq(reg(VGPU_REG_RING_COUNT), 4);
    ck_assert_uint_eq(reg(VGPU_REG_RING_ENTRIES), 128);
    ck_assert_uint_eq(reg(VGPU_REG_RING_OFFSET), l.ring_offset);
    ck_assert_uint_eq(reg(VGPU_REG_RING_STRIDE), l.ring_stride);
    ck_assert_uint_eq(reg(VGPU_REG_SLOT_BYTES), VGPU_SLOT_BYTES);
    ck_assert_uint_eq(reg(VGPU_REG_ARENA_OFFSET_LO), l.arena_offset);
    ck_assert_uint_eq(reg(VGPU_REG_ARENA_SIZE_LO), VGPU_SHM_SIZE_DEFAULT - l.arena_offset);
}
END_TEST

START_TEST(any_width_rings_the_doorbell_of_a_ring)
{
    struct vgpu_bar0_config with_rings = config;
    uint32_t at = VGPU_REG_RING_DOORBELL + 4 * 2;
    unsigned size;

    with_rings.layout = vgpu_layout_make(VGPU_SHM_SIZE_DEFAULT, 3, 16);
    vgpu_bar0_init(&bar0, &with_rings);
    for (size = 1; size <= 8; size *= 2) {
        ck_assert_uint_eq(vgpu_bar0_write(&bar0, at, 0, size), VGPU_BAR0_KICK);
        ck_assert_uint_eq(bar0.kicked, 2);
    }
    ck_assert_uint_eq(vgpu_bar0_write(&bar0, at + 3, 0, 1), VGPU_BAR0_KICK);
    ck_assert_uint_eq(bar0.kicked, 2);
    ck_assert_str_eq(bar0.complaint, "");
    ck_assert_uint_eq(set(at + 4, 1), 0);
    ck_assert_str_ne(bar0.complaint, "");
    ck_assert_uint_eq(reg(at), 0);
}
END_TEST

START_TEST(a_broken_device_takes_no_doorbell_until_it_is_reset)
{
    vgpu_bar0_set_backend(&bar0, &backend);
    bar0.irq = false;
    vgpu_bar0_break(&bar0);
    ck_assert(bar0.irq);
    ck_assert_uint_eq(reg(VGPU_REG_STATUS), VGPU_STATUS_BACKEND_UP | VGPU_STATUS_BROKEN);
    bar0.irq = false;
    vgpu_bar0_break(&bar0);
    ck_assert(!bar0.irq);
    ck_assert_uint_eq(ring(0, 0), 0);
    ck_assert_uint_eq(reg(VGPU_REG_REJECT_ERROR), VGPU_E_BROKEN);
    ck_assert_uint_eq(reg(VGPU_REG_REQUEST_ID), 0);
    vgpu_bar0_reset(&bar0, false);
    ck_assert_uint_eq(reg(VGPU_REG_STATUS), VGPU_STATUS_BACKEND_UP);
    ck_assert_uint_eq(ring(0, 0), VGPU_BAR0_SUBMIT);
}
END_TEST

START_TEST(a_backend_adds_only_what_is_its_own)
{
    struct vgpu_backend b = backend;

    b.features = UINT32_MAX;
    vgpu_bar0_set_backend(&bar0, &b);
    ck_assert_uint_eq(reg(VGPU_REG_FEATURES), config.features | VGPU_FEATURE_OBJECT |
                                                  VGPU_FEATURE_PROGRAM | VGPU_FEATURE_LAUNCH);
}
END_TEST

START_TEST(a_request_is_done)
{
    ck_assert_uint_eq(ring(0, 0), VGPU_BAR0_SUBMIT);
    ck_assert_uint_eq(reg(VGPU_REG_STATUS), VGPU_STATUS_BUSY);
    ck_assert_uint_eq(reg(VGPU_REG_REQUEST_ID), 1);
    ck_assert_uint_eq(bar0.req.deadline_ms, 5000);
    respond(VGPU_E_OK, 8);
    ck_assert_uint_eq(reg(VGPU_REG_STATUS), VGPU_STATUS_DONE);
    ck_assert_uint_eq(reg(VGPU_REG_RESPONSE_LEN), sizeof(struct vgpu_resp_hdr) + 8);
    ck_assert_uint_eq(reg(VGPU_WINDOW_RESPONSE + 64), 0xeeeeeeee);
    ck_assert_uint_eq(reg(VGPU_WINDOW_RESPONSE + 72), 0);
    ck_assert(bar0.ended && !bar0.irq);
}
END_TEST

START_TEST(a_shorter_response_leaves_nothing_of_the_longer_one)
{
    ring(0, 0);
    respond(VGPU_E_OK, 900);
    ring(0, 0);
    ck_assert_uint_eq(reg(VGPU_WINDOW_RESPONSE + 100), 0);
    respond(VGPU_E_DENIED, 8);
    ck_assert_uint_eq(reg(VGPU_REG_STATUS), VGPU_STATUS_ERROR);
    ck_assert_uint_eq(reg(VGPU_REG_ERROR), VGPU_E_DENIED);
}
END_TEST

START_TEST(a_second_doorbell_is_refused)
{
    ring(0, 0);
    ck_assert_uint_eq(ring(VGPU_REQ_IRQ, 9), 0);
    ck_assert_uint_eq(reg(VGPU_REG_REJECTS), 1);
    ck_assert_uint_eq(reg(VGPU_REG_REJECT_ERROR), VGPU_E_BUSY);
    ck_assert_uint_eq(reg(VGPU_REG_REQUEST_ID), 1);
    ck_assert_uint_eq(bar0.req.parsed.hdr.flags, 0);
    ck_assert_str_ne(bar0.complaint, "");
}
END_TEST

START_TEST(a_malformed_request_ends_at_once)
{
    struct vgpu_resp_hdr hdr;

    put_request(VGPU_REQ_IRQ, 0);
    set(VGPU_WINDOW_REQUEST + 4, 9); /* version 9, op 0 */
    set(VGPU_REG_REQUEST_LEN, 104);
    ck_assert_uint_eq(set(VGPU_REG_DOORBELL, 1), 0);
    ck_assert_uint_eq(reg(VGPU_REG_STATUS), VGPU_STATUS_ERROR);
    ck_assert_uint_eq(reg(VGPU_REG_ERROR), VGPU_E_BAD_VERSION);
    ck_assert_uint_eq(reg(VGPU_REG_REQUEST_ID), 1);
    ck_assert(bar0.irq && bar0.ended);
    memcpy(&hdr, bar0.response_window, sizeof(hdr));
    ck_assert_uint_eq(hdr.error, VGPU_E_BAD_VERSION);
    ck_assert_uint_eq(hdr.tag, 0x1234);
    ck_assert_uint_eq(hdr.seq, 1);
    ck_assert_uint_eq(hdr.payload, VGPU_PAYLOAD_TEXT);
    ck_assert_uint_gt(reg(VGPU_REG_RESPONSE_LEN), sizeof(hdr));
}
END_TEST

/* clang-format off */
static const uint32_t wrong_lengths[] = { 0, 1, 47, 48, 103, 105, 1024, 1025, 4096, 0x80000000, UINT32_MAX };
/* clang-format on */

START_TEST(a_wrong_request_len)
{
    put_request(0, 0);
    set(VGPU_REG_REQUEST_LEN, wrong_lengths[_i]);
    ck_assert_uint_eq(set(VGPU_REG_DOORBELL, 1), 0);
    ck_assert_uint_eq(reg(VGPU_REG_ERROR), VGPU_E_BAD_LENGTH);
}
END_TEST

/* clang-format off */
static const struct deadline_case {
    const char *name;
    uint32_t wish_ms, most_ms, want_ms;
} deadline_cases[] = {
    { "none: the default", 0, 2000, 2000 },
    { "shorter than the longest", 1999, 2000, 1999 },
    { "longer than the longest", 2001, 2000, 2000 },
    { "as long as can be", UINT32_MAX, UINT32_MAX, UINT32_MAX },
};
/* clang-format on */

START_TEST(deadlines)
{
    const struct deadline_case *c = &deadline_cases[_i];
    struct vgpu_backend b = backend;

    b.deadline_ms = c->most_ms;
    vgpu_bar0_set_backend(&bar0, &b);
    ring(0, c->wish_ms);
    ck_assert_msg(bar0.req.deadline_ms == c->want_ms, "%s: %u", c->name, bar0.req.deadline_ms);
}
END_TEST

START_TEST(backend_shows_and_interrupts_on_change_only)
{
    struct vgpu_backend down = backend;

    vgpu_bar0_set_backend(&bar0, &backend);
    ck_assert(bar0.irq);
    ck_assert_uint_eq(reg(VGPU_REG_STATUS), VGPU_STATUS_BACKEND_UP);
    ck_assert_uint_eq(reg(VGPU_REG_VM_ID), 3);
    ck_assert_uint_eq(reg(VGPU_REG_POOL_ID), 4);
    ck_assert_uint_eq(reg(VGPU_REG_PRIORITY), VGPU_BAND_HIGH);
    ck_assert_uint_eq(reg(VGPU_REG_BACKEND_GEN), 77);
    ck_assert_uint_eq(reg(VGPU_REG_FEATURES), config.features | VGPU_FEATURE_OBJECT);
    bar0.irq = false;
    vgpu_bar0_set_backend(&bar0, &backend);
    ck_assert(!bar0.irq);
    down.up = false;
    vgpu_bar0_set_backend(&bar0, &down);
    ck_assert(bar0.irq);
    ck_assert_uint_eq(reg(VGPU_REG_STATUS), 0);
    ck_assert_uint_eq(reg(VGPU_REG_VM_ID), 3);
}
END_TEST

START_TEST(priority_is_a_wish)
{
    ck_assert_uint_eq(set(VGPU_REG_PRIORITY, VGPU_BAND_REALTIME), VGPU_BAR0_WISH);
    ck_assert_uint_eq(reg(VGPU_REG_PRIORITY), VGPU_BAND_REALTIME);
    vgpu_bar0_set_backend(&bar0, &backend);
    ck_assert_uint_eq(set(VGPU_REG_PRIORITY, VGPU_BAND_DEFAULT), VGPU_BAR0_WISH);
    ck_assert_uint_eq(reg(VGPU_REG_PRIORITY), VGPU_BAND_HIGH);
    ck_assert_uint_eq(set(VGPU_REG_PRIORITY, 4), 0);
    ck_assert_uint_eq(set(VGPU_REG_PRIORITY, 0x103), 0);
    ck_assert_uint_eq(bar0.wish, VGPU_BAND_DEFAULT);
}
END_TEST

START_TEST(control)
{
    ck_assert_uint_eq(set(VGPU_REG_CONTROL, VGPU_CONTROL_CANCEL), 0);
    ck_assert_uint_eq(set(VGPU_REG_CONTROL, VGPU_CONTROL_RESET), VGPU_BAR0_RESET);
    ck_assert_uint_eq(set(VGPU_REG_CONTROL, 3), 0);
    ck_assert_str_ne(bar0.complaint, "");
    ring(0, 0);
    ck_assert_uint_eq(set(VGPU_REG_CONTROL, VGPU_CONTROL_CANCEL), VGPU_BAR0_CANCEL);
    ck_assert_uint_eq(reg(VGPU_REG_STATUS), VGPU_STATUS_BUSY);
}
END_TEST

START_TEST(reset_is_a_new_life)
{
    vgpu_bar0_set_backend(&bar0, &backend);
    set(VGPU_REG_PRIORITY, VGPU_BAND_REALTIME);
    ring(0, 0);
    ring(0, 0);
    vgpu_bar0_reset(&bar0, true);
    ck_assert_int_eq(vgpu_bar0_check(&bar0), 0);
    ck_assert_uint_eq(reg(VGPU_REG_STATUS), VGPU_STATUS_RESETTING);
    ck_assert_uint_eq(reg(VGPU_REG_RESET_EPOCH), 1);
    ck_assert_uint_eq(reg(VGPU_REG_REQUEST_LEN) | reg(VGPU_REG_REQUEST_ID), 0);
    ck_assert_uint_eq(reg(VGPU_REG_REJECTS) | reg(VGPU_REG_REJECT_ERROR), 0);
    ck_assert_uint_eq(reg(VGPU_WINDOW_REQUEST), 0);
    ck_assert_uint_eq(bar0.wish, VGPU_BAND_REALTIME);
    ck_assert_uint_eq(ring(0, 0), 0);
    ck_assert_uint_eq(reg(VGPU_REG_REJECT_ERROR), VGPU_E_BUSY);
    bar0.irq = false;
    vgpu_bar0_reset_done(&bar0);
    ck_assert(bar0.irq);
    ck_assert_uint_eq(reg(VGPU_REG_STATUS), VGPU_STATUS_BACKEND_UP);
    ck_assert_uint_eq(ring(0, 0), VGPU_BAR0_SUBMIT);
    ck_assert_uint_eq(reg(VGPU_REG_REQUEST_ID), 1);
}
END_TEST

START_TEST(answers_without_a_request_are_ignored)
{
    respond(VGPU_E_OK, 8);
    vgpu_bar0_fail(&bar0, VGPU_E_DEADLINE, NULL);
    ck_assert_uint_eq(reg(VGPU_REG_STATUS), VGPU_STATUS_IDLE);
    ring(0, 0);
    respond(VGPU_E_OK, 8);
    vgpu_bar0_fail(&bar0, VGPU_E_DEADLINE, NULL);
    ck_assert_uint_eq(reg(VGPU_REG_STATUS), VGPU_STATUS_DONE);
}
END_TEST

START_TEST(widths)
{
    unsigned i;

    for (i = 0; i < 4; i++) {
        ck_assert_uint_eq(vgpu_bar0_read(&bar0, i, 1), VGPU_MAGIC >> (8 * i) & 0xff);
    }
    ck_assert_uint_eq(vgpu_bar0_read(&bar0, 2, 2), VGPU_MAGIC >> 16);
    ck_assert_uint_eq(vgpu_bar0_read(&bar0, 0, 8), VGPU_MAGIC | (uint64_t)VGPU_ABI_VERSION << 32);
    set(VGPU_REG_REQUEST_LEN, 0x01020304);
    vgpu_bar0_write(&bar0, VGPU_REG_REQUEST_LEN, 0xff, 1);
    vgpu_bar0_write(&bar0, VGPU_REG_REQUEST_LEN, 0xffff, 2);
    ck_assert_uint_eq(reg(VGPU_REG_REQUEST_LEN), 0x01020304);
    /* RESPONSE_LEN is read only, CONTROL after it is not. */
    ck_assert_uint_eq(
        vgpu_bar0_write(&bar0, VGPU_REG_RESPONSE_LEN, (uint64_t)VGPU_CONTROL_RESET << 32 | 5, 8),
        VGPU_BAR0_RESET);
    vgpu_bar0_write(&bar0, VGPU_WINDOW_REQUEST + 0x3f8, UINT64_MAX, 8);
    vgpu_bar0_write(&bar0, VGPU_WINDOW_REQUEST + 0x3ff, 0x11, 1);
    ck_assert_uint_eq(vgpu_bar0_read(&bar0, VGPU_WINDOW_REQUEST + 0x3f8, 8),
                      UINT64_C(0x11ffffffffffffff));
}
END_TEST

/* One step of a guest, a mediator or a clock that follow no plan. */
static void random_step(uint64_t *seed)
{
    static const uint32_t hot[] = {VGPU_REG_DOORBELL, VGPU_REG_CONTROL, VGPU_REG_REQUEST_LEN};
    unsigned size = 1u << unit_below(seed, 4);
    uint32_t offset = (uint32_t)(unit_below(seed, VGPU_BAR_REGS_SIZE) & ~(uint64_t)(size - 1));
    struct vgpu_backend b = backend;

    switch (unit_below(seed, 11)) {
    case 10:
        if (unit_below(seed, 100) == 0) {
            vgpu_bar0_break(&bar0);
        }
        break;
    case 0:
        vgpu_bar0_read(&bar0, offset, size);
        break;
    case 1:
        put_request((uint32_t)unit_below(seed, 8), (uint32_t)unit_random(seed));
        break;
    case 2:
        vgpu_bar0_write(&bar0, hot[unit_below(seed, 3)], unit_below(seed, 128), 4);
        break;
    case 3:
        respond((uint32_t)unit_below(seed, 34), (uint32_t)unit_below(seed, 961));
        break;
    case 4:
        vgpu_bar0_fail(&bar0, 1 + (uint32_t)unit_below(seed, 33), NULL);
        break;
    case 5:
        b.up = unit_below(seed, 2) != 0;
        vgpu_bar0_set_backend(&bar0, &b);
        break;
    case 6:
        vgpu_bar0_reset_done(&bar0);
        break;
    case 7:
        if (unit_below(seed, 20) == 0) {
            vgpu_bar0_reset(&bar0, unit_below(seed, 2) != 0);
        }
        break;
    case 8:
        ring((uint32_t)unit_below(seed, 16), (uint32_t)unit_below(seed, 100));
        break;
    default:
        vgpu_bar0_write(&bar0, offset, unit_random(seed), size);
        break;
    }
}

START_TEST(random_operations_keep_the_invariants)
{
    uint64_t seed = 1 + (uint64_t)_i;
    int step;

    for (step = 0; step < 20000; step++) {
        random_step(&seed);
        ck_assert_msg(vgpu_bar0_check(&bar0) == 0, "step %d: %d", step, vgpu_bar0_check(&bar0));
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vgpu_bar0");
    TCase *tc = tcase_create("vgpu_bar0");

    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_add_loop_test(tc, fresh, 0, N_ELEMS(fresh_cases));
    tcase_add_test(tc, large_bar_2_uses_the_high_halves);
    tcase_add_test(tc, rings_show_in_registers);
    tcase_add_test(tc, any_width_rings_the_doorbell_of_a_ring);
    tcase_add_test(tc, a_broken_device_takes_no_doorbell_until_it_is_reset);
    tcase_add_test(tc, a_backend_adds_only_what_is_its_own);
    tcase_add_test(tc, a_request_is_done);
    tcase_add_test(tc, a_shorter_response_leaves_nothing_of_the_longer_one);
    tcase_add_test(tc, a_second_doorbell_is_refused);
    tcase_add_test(tc, a_malformed_request_ends_at_once);
    tcase_add_loop_test(tc, a_wrong_request_len, 0, N_ELEMS(wrong_lengths));
    tcase_add_loop_test(tc, deadlines, 0, N_ELEMS(deadline_cases));
    tcase_add_test(tc, backend_shows_and_interrupts_on_change_only);
    tcase_add_test(tc, priority_is_a_wish);
    tcase_add_test(tc, control);
    tcase_add_test(tc, reset_is_a_new_life);
    tcase_add_test(tc, answers_without_a_request_are_ignored);
    tcase_add_test(tc, widths);
    tcase_add_loop_test(tc, random_operations_keep_the_invariants, 0, 5);
    suite_add_tcase(suite, tc);
    return unit_run(suite);
}

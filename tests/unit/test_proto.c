/* SPDX-License-Identifier: MIT */
/*
 * test_proto.c - local messages and shared memory keep their layout; the network headers survive the wire, and
 * hostile bytes do not crash the unpacker
 */
#include <stddef.h>
#include <string.h>

#include "proto/vgpu.pb-c.h"
#include "proto/vgpu_local.h"
#include "tests/unit/unit.h"

/* Every message of vgpu_local.h and all that lies in shared memory: its size, and where its last field
 * (of a ring's pages: its last word) is. */
#define LAYOUT(type, size, last, offset)                                          \
    {                                                                             \
#type, sizeof(struct type), (size), offsetof(struct type, last), (offset) \
    }

static const struct {
    const char *name;
    size_t size, want_size, last, want_last;
} layouts[] = {
    LAYOUT(vgpu_msg, 16, epoch, 12),
    LAYOUT(vgpu_hello, 112, arena_offset, 104),
    LAYOUT(vgpu_hello_ack, 64, reserved2, 60),
    LAYOUT(vgpu_refused, 24, reserved, 20),
    LAYOUT(vgpu_request, 32, deadline_left_ms, 28),
    LAYOUT(vgpu_data, 40, offset, 32),
    LAYOUT(vgpu_accept, 24, seq, 16),
    LAYOUT(vgpu_response, 24, seq, 16),
    LAYOUT(vgpu_cancel_msg, 32, reserved, 28),
    LAYOUT(vgpu_reset, 16, msg, 0),
    LAYOUT(vgpu_wish, 24, reserved, 17),
    LAYOUT(vgpu_state, 24, reserved, 23),
    LAYOUT(vgpu_register, 320, device, 256),
    LAYOUT(vgpu_register_ack, 32, max_job_ms, 28),
    LAYOUT(vgpu_executor, 24, pid, 20),
    LAYOUT(vgpu_executor_gone, 24, status, 20),
    LAYOUT(vgpu_kill_executor, 24, reason, 20),
    LAYOUT(vgpu_heartbeat, 24, progress, 16),
    LAYOUT(vgpu_drain, 16, msg, 0),
    LAYOUT(vgpu_exec_ring, 40, reserved, 36),
    LAYOUT(vgpu_attach, 40, size, 32),
    LAYOUT(vgpu_detach, 24, reserved, 20),
    LAYOUT(vgpu_detached, 24, reserved, 20),
    LAYOUT(vgpu_job_cancel, 32, reserved, 28),
    LAYOUT(vgpu_job, 32, reserved, 25),
    LAYOUT(vgpu_done, 16, reserved, 12),
    LAYOUT(vgpu_inflight, 64, reserved, 28),
    LAYOUT(vgpu_inflight_ring, 64, reserved, 16),
    LAYOUT(vgpu_inflight_slot, 64, reserved, 44),
    LAYOUT(vgpu_ring_driver, 4096, complete_event, 64),
    LAYOUT(vgpu_ring_device, 4096, flags, 128),
    LAYOUT(vgpu_desc, 64, reserved, 16),
    LAYOUT(vgpu_completion, 32, reserved, 28),
};

/* Where the parts of a ring lie, in bytes from its start; RING_ENTRIES and SLOT_BYTES given. */
static const struct {
    uint32_t entries, slot_bytes, completions, slots, stride;
} rings[] = {
    {16, 256, 8192 + 1024, 12288, 576},
    {128, 4096, 8192 + 8192, 20480, 8256},
    {4096, 65536, 8192 + 262144, 401408, 131136},
};

START_TEST(parts_of_a_ring)
{
    ck_assert_uint_eq(VGPU_RING_DESCS, 8192);
    ck_assert_uint_eq(VGPU_RING_COMPLETIONS(rings[_i].entries), rings[_i].completions);
    ck_assert_uint_eq(VGPU_RING_SLOTS(rings[_i].entries), rings[_i].slots);
    ck_assert_uint_eq(VGPU_SLOT_STRIDE(rings[_i].slot_bytes), rings[_i].stride);
}
END_TEST

START_TEST(descriptors_of_a_hello)
{
    ck_assert_uint_eq(VGPU_HELLO_FD_KICK(0), VGPU_HELLO_FD_WRITERS + 1);
    ck_assert_uint_eq(VGPU_HELLO_FD_CALL(4, 0), VGPU_HELLO_FD_KICK(3) + 1);
    ck_assert_uint_eq(VGPU_HELLO_FDS(4), VGPU_HELLO_FD_CALL(4, 3) + 1);
    ck_assert_uint_eq(VGPU_HELLO_FDS(VGPU_RINGS_MAX), 131);
}
END_TEST

/* Identities of ring requests: never 0, never those of another ring or of a doorbell. */
START_TEST(sequence_numbers_of_rings)
{
    ck_assert_uint_eq(VGPU_RING_SEQ(0, 1), (UINT64_C(1) << 48) + 1);
    ck_assert_uint_eq(VGPU_RING_SEQ(63, 1), (UINT64_C(64) << 48) + 1);
    ck_assert_uint_lt(VGPU_RING_SEQ(0, UINT64_MAX), VGPU_RING_SEQ(1, 0));
    ck_assert_uint_eq(VGPU_INFLIGHT_BYTES(64, 4096), 64 + 64 * 64 + UINT64_C(64) * 64 * 4096);
}
END_TEST

START_TEST(local_layouts)
{
    ck_assert_msg(layouts[_i].size == layouts[_i].want_size, "%s: size %zu", layouts[_i].name,
                  layouts[_i].size);
    ck_assert_msg(layouts[_i].last == layouts[_i].want_last, "%s: last field at %zu",
                  layouts[_i].name, layouts[_i].last);
}
END_TEST

static size_t pack_submit(uint8_t *out, size_t cap)
{
    Vgpu__Envelope e = VGPU__ENVELOPE__INIT;
    Vgpu__Submit s = VGPU__SUBMIT__INIT;
    Vgpu__RequestId id = VGPU__REQUEST_ID__INIT;
    uint8_t uuid[16] = {1, 2, 3};

    id.vm_uuid = (ProtobufCBinaryData){sizeof(uuid), uuid};
    id.boot_id = 0xfedcba9876543210u;
    id.seq = 42;
    s.id = &id;
    s.tenant = (char *)(uintptr_t) "acme";
    s.band = 2;
    e.epoch = 9;
    e.body_case = VGPU__ENVELOPE__BODY_SUBMIT;
    e.submit = &s;
    ck_assert_uint_le(vgpu__envelope__get_packed_size(&e), cap);
    return vgpu__envelope__pack(&e, out);
}

START_TEST(round_trip)
{
    uint8_t bytes[256];
    size_t n = pack_submit(bytes, sizeof(bytes));
    Vgpu__Envelope *e = vgpu__envelope__unpack(NULL, n, bytes);

    ck_assert_ptr_nonnull(e);
    ck_assert_uint_eq(e->epoch, 9);
    ck_assert_int_eq(e->body_case, VGPU__ENVELOPE__BODY_SUBMIT);
    ck_assert_str_eq(e->submit->tenant, "acme");
    ck_assert_uint_eq(e->submit->id->seq, 42);
    ck_assert_uint_eq(e->submit->id->boot_id, 0xfedcba9876543210u);
    ck_assert_uint_eq(e->submit->id->vm_uuid.len, 16);
    vgpu__envelope__free_unpacked(e, NULL);
}
END_TEST

START_TEST(damaged_bytes)
{
    uint64_t seed = 3;

    for (int i = 0; i < 20000; i++) {
        uint8_t bytes[256];
        size_t n = pack_submit(bytes, sizeof(bytes));
        Vgpu__Envelope *e;

        bytes[unit_below(&seed, n)] = (uint8_t)unit_random(&seed);
        e = vgpu__envelope__unpack(NULL, unit_below(&seed, n + 1), bytes);
        if (e) {
            vgpu__envelope__free_unpacked(e, NULL);
        }
    }
}
END_TEST

/* Walks every message type reachable from the envelope and follows its message fields. */
static unsigned depth_of(const ProtobufCMessageDescriptor *d, unsigned depth)
{
    unsigned deepest = depth;

    ck_assert_msg(depth < 8, "%s contains itself", d->name);
    for (unsigned i = 0; i < d->n_fields; i++) {
        if (d->fields[i].type == PROTOBUF_C_TYPE_MESSAGE) {
            unsigned sub = depth_of(d->fields[i].descriptor, depth + 1);

            deepest = sub > deepest ? sub : deepest;
        }
    }
    return deepest;
}

START_TEST(no_recursion)
{
    ck_assert_uint_le(depth_of(&vgpu__envelope__descriptor, 1), 4);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("proto");
    TCase *tc = tcase_create("proto");

    tcase_add_loop_test(tc, local_layouts, 0, N_ELEMS(layouts));
    tcase_add_loop_test(tc, parts_of_a_ring, 0, N_ELEMS(rings));
    tcase_add_test(tc, descriptors_of_a_hello);
    tcase_add_test(tc, sequence_numbers_of_rings);
    tcase_add_test(tc, round_trip);
    tcase_add_test(tc, damaged_bytes);
    tcase_add_test(tc, no_recursion);
    suite_add_tcase(s, tc);
    return unit_run(s);
}

# SPDX-License-Identifier: MIT
"""The device relays requests: handshake, inline and ARENA round trips, order, interrupts, life."""

import os
import time

from stub_rig import *  # noqa: F403
from stub_rig import rig  # noqa: F401  (a fixture)


def test_hello_describes_the_device_and_its_answer_shows_in_registers(rig):
    m = rig.mediator()
    assert rig.dev.reg("VM_ID") == 0 and not rig.dev.up()
    hello = m.hello(vm_id=41, pool_id=5, band=2, deadline_ms=1234, device_features=P.FEATURE_OBJECT)
    assert hello.uuid.hex() == UUID.replace("-", "")
    assert (hello.version_min, hello.version_max) == (P.LOCAL_VERSION_MIN, P.LOCAL_VERSION_MAX)
    assert hello.arena_size == rig.dev.arena_size
    assert hello.boot_id != 0 and hello.conn_gen == 1
    assert hello.msg.epoch == rig.dev.reg("RESET_EPOCH")
    wait_for("BACKEND_UP", rig.dev.up)
    assert rig.dev.reg("VM_ID") == 41 and rig.dev.reg("POOL_ID") == 5
    assert rig.dev.reg("PRIORITY") == 2 and rig.dev.reg("DEADLINE_MS") == 1234
    assert rig.dev.reg("BACKEND_GEN") == m.gen & 0xFFFFFFFF
    own = P.FEATURE_SHM | P.FEATURE_MSIX
    own |= P.FEATURE_RING | P.FEATURE_EVENT_IDX if rig.shm else 0
    assert rig.dev.reg("FEATURES") == own | P.FEATURE_OBJECT


@on("socket")
def test_hello_of_a_device_without_rings_offers_nothing(rig):
    hello = rig.mediator().hello()
    assert hello.features == 0 and hello.arena_size == P.SHM_SIZE_DEFAULT - P.SHM_CONTROL_SIZE
    assert (hello.rings, hello.ring_entries, hello.slot_bytes, hello.shm_size) == (0, 0, 0, 0)
    assert (hello.ring_offset, hello.ring_stride, hello.arena_offset) == (0, 0, 0)


def test_inline_round_trip(rig):
    m = rig.connected()
    rig.dev.submit(echo_inline(b"round trip 0123456789", tag=0xABCDEF0123456789))
    request = m.serve_echo()
    error, response = rig.dev.wait_end()
    header = P.unpack("vgpu_resp_hdr", response)
    assert error == 0 and rig.dev.state() == P.STATUS_DONE
    assert header.tag == 0xABCDEF0123456789 and header.seq == request.seq == 1
    assert response[P.size("vgpu_resp_hdr") :] == b"round trip 0123456789"
    assert rig.dev.reg("REQUEST_ID") == 1
    assert 1 <= request.deadline_left_ms <= 60000 and request.flags == 0


def test_many_requests_one_after_the_other(rig):
    m = rig.connected()
    for i in range(1, 51):
        data = os.urandom(1 + i * 7)
        rig.dev.submit(echo_inline(data, tag=i))
        assert m.serve_echo().seq == i
        error, response = rig.dev.wait_end()
        assert error == 0 and response[P.size("vgpu_resp_hdr") :] == data


def test_arena_round_trip_far_bigger_than_the_socket_buffer(rig):
    m = rig.connected()
    data = os.urandom(3 * (1 << 20) + 17)
    rig.vm.write(rig.dev.arena + 64, data)
    rig.dev.submit(echo_arena(len(data), source=64))
    assert m.serve_echo().inputs[0] == data
    error, _ = rig.dev.wait_end()
    assert error == 0
    sink = (64 + len(data) + 63) // 64 * 64
    assert rig.vm.read(rig.dev.arena + sink, len(data)) == data


def test_several_arena_buffers_in_list_order(rig):
    m = rig.connected()
    parts = [os.urandom(n) for n in (100, P.DATA_CHUNK, P.DATA_CHUNK + 1)]
    places = [0, 1 << 17, 1 << 18]
    for place, part in zip(places, parts):
        rig.vm.write(rig.dev.arena + place, part)
    outs = [(1 << 19, 64), (1 << 20, 70000)]
    bufs = [(ARENA, IN, places[0], 100), (ARENA, OUT, *outs[0]), (ARENA, IN, places[1], len(parts[1])),
            (ARENA, OUT, *outs[1]), (ARENA, IN, places[2], len(parts[2]))]
    rig.dev.submit(P.request("SORT", bufs))
    request = m.request()
    assert [request.inputs[i] for i in (0, 2, 4)] == parts
    m.answer(request, outputs={1: b"\x11" * 64, 3: b"\x22" * 70000})
    assert rig.dev.wait_end()[0] == 0
    assert rig.vm.read(rig.dev.arena + outs[0][0], 65) == b"\x11" * 64 + b"\0"
    assert rig.vm.read(rig.dev.arena + outs[1][0], 70001) == b"\x22" * 70000 + b"\0"


def test_what_the_guest_writes_after_the_doorbell_changes_nothing(rig):
    rig.dev.submit(echo_inline(b"the original bytes"))  # no mediator yet: it waits
    rig.vm.write(rig.dev.BAR0 + P.WINDOW_REQUEST, b"\xff" * P.WINDOW_SIZE)
    rig.dev.write_reg("REQUEST_LEN", 7)
    m = rig.mediator()
    m.hello()
    m.serve_echo()
    error, response = rig.dev.wait_end()
    assert error == 0 and response.endswith(b"the original bytes")


def test_an_error_response_reaches_the_guest_with_its_reason(rig):
    m = rig.connected()
    rig.dev.submit(echo_inline(b"x" * 8))
    m.answer(m.request(), error=P.E["DENIED"], payload=b"this VM may not use pool 9")
    error, response = rig.dev.wait_end()
    assert error == P.E["DENIED"] and rig.dev.state() == P.STATUS_ERROR
    assert response.endswith(b"this VM may not use pool 9")


@on("socket")
def test_an_answer_while_inputs_still_flow_ends_the_request(rig):
    m = rig.connected()
    rig.dev.submit(echo_arena(16 << 20))
    fields, data = m.expect("REQUEST")
    m.send("RESPONSE", seq=fields.seq,
           tail=P.response(data, fields.seq, error=P.E["TOO_LARGE"], payload=b"too large"))
    drained = 0
    while not m.silent(0.5):
        name, _, tail = m.receive()
        assert name == "DATA"
        drained += len(tail)
    assert drained < 16 << 20
    assert rig.dev.wait_end()[0] == P.E["TOO_LARGE"]
    rig.dev.submit(echo_inline(b"next"))
    m.serve_echo()
    assert rig.dev.wait_end()[0] == 0


def test_interrupts_only_when_asked_for(rig):
    m = rig.connected()
    rig.dev.enable_msix(data=0x4321)
    rig.dev.take_message()
    rig.dev.submit(echo_inline(b"quiet"))
    m.serve_echo()
    rig.dev.wait_end()
    assert rig.dev.take_message() == 0
    rig.dev.submit(echo_inline(b"loud", flags=P.REQ_IRQ))
    m.serve_echo()
    rig.dev.wait_end()
    assert rig.dev.take_message() == 0x4321


def test_backend_changes_interrupt_and_a_masked_vector_becomes_pending(rig):
    m = rig.connected()
    rig.dev.enable_msix(masked=True)
    m.send("STATE", pool_id=3, band=P.BAND_HIGH, up=1)
    wait_for("the new band", lambda: rig.dev.reg("PRIORITY") == P.BAND_HIGH)
    assert rig.dev.msix_pending() == 1 and rig.dev.take_message() == 0
    rig.dev.enable_msix(masked=False, data=0x77)
    wait_for("the pending message", lambda: rig.dev.take_message() == 0x77)
    assert rig.dev.msix_pending() == 0
    m.drop()
    wait_for("BACKEND_UP gone", lambda: not rig.dev.up())
    assert rig.dev.take_message() == 0x77


def test_a_priority_wish_goes_to_the_mediator_and_only_its_answer_shows(rig):
    m = rig.connected(band=1)
    rig.dev.write_reg("PRIORITY", P.BAND_REALTIME)
    assert m.expect("WISH")[0].band == P.BAND_REALTIME
    assert rig.dev.reg("PRIORITY") == 1
    m.send("STATE", pool_id=3, band=2, up=1)
    wait_for("the clamped band", lambda: rig.dev.reg("PRIORITY") == 2)
    rig.dev.write_reg("PRIORITY", 4)
    assert m.silent(0.2) and "PRIORITY takes" in rig.vm.output()
    m.drop()
    assert m.hello().band_wish == P.BAND_REALTIME


def test_a_draining_mediator_gets_nothing_new(rig):
    m = rig.connected(up=0)
    rig.dev.submit(echo_inline(b"later"))
    assert m.silent(0.3) and rig.dev.state() == P.STATUS_BUSY
    m.send("STATE", pool_id=3, band=1, up=1)
    m.serve_echo()
    assert rig.dev.wait_end()[0] == 0 and rig.dev.up()


@on("socket")
def test_a_paused_mediator_costs_the_guest_nothing_but_its_deadline(rig):
    """It is connected, says nothing and reads nothing, while the guest sends 48 MiB."""
    m = rig.connected()
    started = time.monotonic()
    rig.dev.submit(echo_arena(24 << 20, deadline_ms=700))
    longest = 0.0
    while rig.dev.state() == P.STATUS_BUSY:
        asked = time.monotonic()
        rig.vm.command("query-status")
        longest = max(longest, time.monotonic() - asked)
        time.sleep(0.01)
    took = time.monotonic() - started
    error, _ = rig.dev.wait_end()
    assert error == P.E["DEADLINE"] and took >= 0.6
    assert longest < took, "QEMU's main loop stood still"
    m.expect("REQUEST")
    name = "DATA"
    while name == "DATA":
        name, fields, _ = m.receive()
    assert name == "CANCEL" and fields.seq == 1 and fields.reason == P.E["DEADLINE"]

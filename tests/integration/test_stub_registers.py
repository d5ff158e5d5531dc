# SPDX-License-Identifier: MIT
"""BAR 0 as a guest may use and abuse it: accesses of any width, refused doorbells, bad requests."""

import random
import struct

import pytest

from stub_rig import *  # noqa: F403
from stub_rig import Rig, rig  # noqa: F401
from qtest import run_qemu

HDR = "vgpu_req_hdr"


def test_identity_and_layout(rig):
    dev, vm = rig.dev, rig.vm
    assert dev.reg("MAGIC") == P.MAGIC and dev.reg("ABI_VERSION") == P.ABI_VERSION
    assert vm.config_read(dev.slot, 8) >> 16 == P.PCI_CLASS
    assert vm.config_read(dev.slot, 8) & 0xFF == P.PCI_REVISION
    assert vm.config_read(dev.slot, 0x18) & 0xF == 0xC, "BAR 2 is not 64-bit prefetchable"
    size = dev.reg("SHM_SIZE_HI") << 32 | dev.reg("SHM_SIZE_LO")
    assert size == P.SHM_SIZE_DEFAULT
    rings = dev.reg("RING_COUNT")
    assert rings == (4 if rig.shm else 0) and dev.reg("DEADLINE_MS") > 0
    start = dev.reg("RING_OFFSET") + rings * dev.reg("RING_STRIDE") if rings else P.SHM_CONTROL_SIZE
    assert dev.arena - dev.BAR2 == (start + 65535) // 65536 * 65536
    assert dev.arena - dev.BAR2 + dev.arena_size == size
    assert bool(dev.reg("FEATURES") & P.FEATURE_RING) == bool(rings)
    vm.store(dev.BAR2 + size - 8, 0x1122334455667788, 8)
    assert vm.load(dev.BAR2 + size - 8, 8) == 0x1122334455667788


@pytest.mark.parametrize("size", ["1M", "2M", "64G"])
def test_sizes_of_bar_2(tmp_path, size):
    rig = Rig(tmp_path, options=f",shm-size={size}")
    want = int(size[:-1]) << {"M": 20, "G": 30}[size[-1]]
    assert rig.dev.reg("SHM_SIZE_HI") << 32 | rig.dev.reg("SHM_SIZE_LO") == want
    rig.close()


@pytest.mark.parametrize("options, sentence", [
    ("shm-size=3M", "power of two from 1M to 64G"),
    ("shm-size=512K", "power of two from 1M to 64G"),
    ("shm-size=128G", "power of two from 1M to 64G"),
    ("priority=4", "priority is 4"),
    ("datapath=carrier-pigeon", "this device has: shm, socket"),
    ("deadline-ms=0", "deadline-ms is 0"),
    ("uuid=not-a-uuid", "uuid not-a-uuid is not a UUID"),
    ("socket=" + "x" * 200, "too long for a Unix socket"),
    ("socket=", "property socket is missing"),
])
def test_bad_properties_are_refused_in_a_sentence(tmp_path, options, sentence):
    given = f"vgpu-stub,socket={tmp_path}/vgpu.sock,{options}"
    code, said = run_qemu(["-machine", "q35", "-accel", "tcg", "-S", "-device", given])
    assert code == 1 and sentence in said
    assert said.count("\n") == 1, "more than a sentence"


def test_unknown_registers_read_zero_and_ignore_writes(rig):
    known = set(P.REG.values()) | {P.REG["RING_DOORBELL"] + 4 * i for i in range(64)}
    before = {name: rig.dev.reg(name) for name in P.REG}
    for offset in [o for o in range(0, 0x400, 4) if o not in known] + list(range(0xC00, 0x1000, 64)):
        rig.vm.store(rig.dev.BAR0 + offset, 0xFFFFFFFF)
        assert rig.vm.load(rig.dev.BAR0 + offset) == 0, hex(offset)
    assert {name: rig.dev.reg(name) for name in P.REG} == before


def test_read_only_registers_ignore_writes(rig):
    writable = {"PRIORITY", "REQUEST_LEN", "CONTROL", "DOORBELL", "RING_DOORBELL"}
    before = {name: rig.dev.reg(name) for name in P.REG}
    for name in set(P.REG) - writable:
        rig.dev.write_reg(name, 0xA5A5A5A5)
    assert {name: rig.dev.reg(name) for name in P.REG} == before


def test_narrow_and_wide_accesses(rig):
    base, vm = rig.dev.BAR0, rig.vm
    magic = struct.pack("<I", P.MAGIC)
    assert bytes(vm.load(base + i, 1) for i in range(4)) == magic
    assert vm.load(base + 2, 2) == P.MAGIC >> 16
    assert vm.load(base, 8) == P.MAGIC | P.ABI_VERSION << 32
    rig.dev.write_reg("REQUEST_LEN", 0x11223344)
    vm.store(base + P.REG["REQUEST_LEN"], 0xFF, 1)
    vm.store(base + P.REG["REQUEST_LEN"] + 2, 0xFFFF, 2)
    assert rig.dev.reg("REQUEST_LEN") == 0x11223344
    vm.store(base + P.REG["REQUEST_LEN"], 0x99999999_00000040, 8)
    assert rig.dev.reg("REQUEST_LEN") == 0x40
    window = base + P.WINDOW_REQUEST
    vm.store(window, 0x0807060504030201, 8)
    vm.store(window + 3, 0xAA, 1)
    vm.store(window + 6, 0xBBCC, 2)
    assert vm.load(window, 8) == 0xBBCC0605AA030201
    vm.store(base + P.WINDOW_RESPONSE, 0xFFFFFFFF)
    assert vm.load(base + P.WINDOW_RESPONSE) == 0


def test_random_accesses_leave_a_working_device(rig):
    m = rig.connected()
    rng = random.Random(4711)
    control = P.REG["CONTROL"]
    for _ in range(4000):
        size = rng.choice((1, 2, 4, 8))
        offset = rng.randrange(0, P.BAR_REGS_SIZE, size)
        if rng.random() < 0.5:
            rig.vm.load(rig.dev.BAR0 + offset, size)
        else:
            rig.vm.store(rig.dev.BAR0 + offset, rng.getrandbits(8 * size), size)
    assert rig.vm.alive()
    rig.vm.store(rig.dev.BAR0 + control, P.CONTROL_RESET)
    name = ""
    while name != "RESET":
        name, fields, _ = m.receive()
        m.epoch = fields.msg.epoch
    m.send("RESET_ACK")
    wait_for("the reset ends", rig.dev.up)
    rig.dev.submit(echo_inline(b"still here"))
    m.serve_echo()
    assert rig.dev.wait_end()[0] == 0


def test_doorbell_while_busy_is_refused_and_the_request_is_not_disturbed(rig):
    m = rig.connected()
    first = echo_inline(b"the first request", tag=1)
    rig.dev.submit(first)
    for i in range(1, 4):
        rig.dev.submit(echo_inline(b"an intruder", tag=2))
        assert rig.dev.reg("REJECTS") == i and rig.dev.reg("REJECT_ERROR") == P.E["BUSY"]
        assert rig.dev.state() == P.STATUS_BUSY and rig.dev.reg("ERROR") == 0
    request = m.serve_echo()
    error, response = rig.dev.wait_end()
    assert request.bytes == first and error == 0 and response.endswith(b"the first request")
    assert rig.dev.reg("REQUEST_ID") == 1 and m.silent(0.2)
    assert "doorbell while a request is in flight" in rig.vm.output()


def test_doorbell_with_no_mediator_ends_at_the_deadline(rig):
    rig.dev.submit(echo_inline(b"anyone?", tag=77, deadline_ms=300, flags=P.REQ_IRQ))
    assert rig.dev.state() == P.STATUS_BUSY
    error, response = rig.dev.wait_end()
    header = P.unpack("vgpu_resp_hdr", response)
    assert error == header.error == P.E["NO_BACKEND"] and header.tag == 77 and header.seq == 1
    assert header.payload == P.PAYLOAD_TEXT and len(response) > P.size("vgpu_resp_hdr")
    m = rig.connected()
    assert m.silent(0.2), "a request that ended is not sent"
    rig.dev.submit(echo_inline(b"now?"))
    assert m.serve_echo().seq == 2
    assert rig.dev.wait_end()[0] == 0


def test_a_ring_doorbell_without_rings_does_nothing(rig):
    m = rig.connected()
    for i in (0, 1, 63):
        rig.vm.store(rig.dev.BAR0 + P.REG["RING_DOORBELL"] + 4 * i, 1)
    assert m.silent(0.2) and rig.dev.state() == P.STATUS_IDLE and rig.dev.reg("REJECTS") == 0


def patched(request, field, value, struct_name=HDR, base=0):
    data = bytearray(request)
    fmt = {1: "<B", 2: "<H", 4: "<I", 8: "<Q"}
    offset, ctype, _ = P.layouts[struct_name].fields[field]
    size = {"uint8_t": 1, "uint16_t": 2, "uint32_t": 4, "uint64_t": 8}[ctype]
    struct.pack_into(fmt[size], data, base + offset, value)
    return bytes(data)


GOOD = echo_inline(b"12345678")
ARENA_SIZE = P.SHM_SIZE_DEFAULT - P.SHM_CONTROL_SIZE


def buf(index, **changes):
    data = GOOD
    for field, value in changes.items():
        data = patched(data, field, value, "vgpu_buf", P.size(HDR) + index * P.size("vgpu_buf"))
    return data


def arena(offset, length, sink=0, sink_length=None):
    return P.request("ECHO", [(ARENA, IN, offset, length), (ARENA, OUT, sink, sink_length or length)])


BAD_REQUESTS = [
    ("an unknown version", patched(GOOD, "version", 2), "BAD_VERSION"),
    ("an unknown flag", patched(GOOD, "flags", 1 << 31), "RESERVED_SET"),
    ("a reserved header field", patched(GOOD, "reserved", 1), "RESERVED_SET"),
    ("a size that is too big", patched(GOOD, "size", 4096), "BAD_LENGTH"),
    ("a size that is too small", patched(GOOD, "size", 8), "BAD_LENGTH"),
    ("an unaligned body length", patched(GOOD, "body_len", 3), "BAD_LENGTH"),
    ("a body beyond the request", patched(GOOD, "body_len", 65528), "BAD_LENGTH"),
    ("too many buffers", patched(GOOD, "nbufs", 17), "TOO_MANY_BUFFERS"),
    ("buffers beyond the request", patched(GOOD, "nbufs", 16), "BAD_LENGTH"),
    ("an unknown band", patched(GOOD, "band", 4), "BAD_PARAM"),
    ("an unknown kind of buffer", buf(0, kind=9), "BAD_BUFFER"),
    ("a reserved kind of buffer", buf(0, kind=P.BUF_GPA), "BAD_BUFFER"),
    ("an unknown direction", buf(0, dir=3), "BAD_BUFFER"),
    ("a reserved buffer field", buf(0, reserved=1), "RESERVED_SET"),
    ("an empty buffer", buf(0, length=0), "BAD_LENGTH"),
    ("an inline input beyond the request", buf(0, length=1 << 40), "BAD_BUFFER"),
    ("an inline output beyond the window", buf(1, length=P.WINDOW_SIZE), "BAD_BUFFER"),
    ("a misaligned inline offset", buf(1, offset=4), "MISALIGNED"),
    ("an arena buffer beyond the arena", arena(0, ARENA_SIZE + 64, sink=0), "BAD_BUFFER"),
    ("an arena offset beyond the arena", arena(ARENA_SIZE + 64, 64), "BAD_BUFFER"),
    ("an offset that wraps around", arena((1 << 64) - 64, 128), "BAD_BUFFER"),
    ("a length that wraps around", arena(64, (1 << 64) - 64), "BAD_BUFFER"),
    ("a misaligned arena offset", arena(8, 64, sink=128), "MISALIGNED"),
    ("an output over its input", arena(0, 128, sink=64), "OVERLAP"),
]


def test_bad_requests_are_answered_with_their_code_and_never_sent(rig):
    m = rig.connected()
    for number, (what, request, code) in enumerate(BAD_REQUESTS, start=1):
        rig.dev.submit(request)
        error, response = rig.dev.wait_end()
        assert error == P.E[code], f"{what}: error {error} instead of {code}"
        header = P.unpack("vgpu_resp_hdr", response)
        assert header.error == error and header.payload == P.PAYLOAD_TEXT, what
        assert len(response) > P.size("vgpu_resp_hdr"), f"{what}: no sentence"
        assert rig.dev.reg("REQUEST_ID") == number == header.seq
    assert m.silent(0.2)
    rig.dev.submit(GOOD)
    m.serve_echo()
    assert rig.dev.wait_end()[0] == 0


@pytest.mark.parametrize("length", [0, 1, 47, 48, 1023, 1024, 1025, 4096, 0xFFFFFFFF])
def test_a_request_len_that_is_not_the_request_s(rig, length):
    rig.dev.submit(GOOD, length=length)
    error, response = rig.dev.wait_end()
    assert error == P.E["BAD_LENGTH"] and len(response) > P.size("vgpu_resp_hdr")

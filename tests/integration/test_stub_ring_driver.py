# SPDX-License-Identifier: MIT
"""A ring driver written from docs/device.md alone: no header, no constant of the other tests.

Every number below is one of that document. The driver sees what a guest sees: configuration space and
memory of a real QEMU, with the real mediator and worker behind it. A number or rule that the document
does not give, or gives wrongly, ends in a request that fails here.
"""

import os
import struct

import pytest

from test_stub_stack import Stack, wait_for

VENDOR_DEVICE = 0x5647 << 16 | 0x1234
BAR0, BAR2, BAR4 = 0xE0000000, 0x8_0000_0000, 0xE0100000
MAGIC, ABI_VERSION, FEATURES, VM_ID, STATUS = 0x000, 0x004, 0x008, 0x00C, 0x018
REQUEST_LEN, REQUEST_ID, CONTROL, RESET_EPOCH, REJECT_ERROR = 0x020, 0x024, 0x02C, 0x034, 0x03C
RING_COUNT, RING_ENTRIES, RING_OFFSET, RING_STRIDE, SLOT_BYTES = 0x044, 0x048, 0x04C, 0x050, 0x054
ARENA_OFFSET, ARENA_SIZE = 0x068, 0x070
DOORBELL, RING_DOORBELL, WINDOW_REQUEST, WINDOW_RESPONSE = 0x080, 0x100, 0x400, 0x800
FEATURE_SHM, FEATURE_RING, FEATURE_MSIX = 0x1, 0x2, 0x40
RESETTING, IS_BROKEN, RESET = 0x200, 0x400, 2
PAGE, DESCS = 4096, 8192
INLINE, ARENA, IN, OUT = 0, 1, 1, 2
INFO, CANCEL, ECHO, REDUCE = 0, 1, 16, 18
ORDERED = 0x1
F32, U32 = 1, 7
SUM, MAX, ARGMAX = 0, 2, 3
DATA, TEXT, INFO_PAYLOAD = 0, 1, 2
OK, BAD_LENGTH, BAD_DTYPE, NO_WORKER, CANCELLED, NOT_FOUND, DEPENDENCY, BROKEN = 0, 4, 11, 19, 21, 22, 27, 32
RESPONSE = struct.Struct("<IHHIIQQQQIHHQ")  # size version op error retry_after_ms tag seq queued_ns ...


def request(op, bufs=(), body=b"", inline=b"", tag=0, flags=0, deadline_ms=20000):
    size = 48 + 24 * len(bufs) + len(body) + len(inline)
    out = struct.pack("<IHHIIQIBBH16x", size, 1, op, flags, deadline_ms, tag, 0, 0xFF, len(bufs), len(body))
    for kind, direction, offset, length in bufs:
        out += struct.pack("<BBHIQQ", kind, direction, 0, 0, offset, length)
    return out + body + inline


def echo(data, **header):
    return request(ECHO, [(INLINE, IN, 48 + 2 * 24, len(data)), (INLINE, OUT, 0, len(data))], inline=data, **header)


def reduce(dtype, kind, n, source, sink, size, sizeof, **header):
    body = struct.pack("<BB6xQQ", dtype, kind, n, 1)
    return request(REDUCE, [(ARENA, IN, source, size * n), (ARENA, OUT, sink, sizeof)], body, **header)


class Device:
    """What a driver does when it meets the function."""

    def __init__(self, vm):
        self.vm = vm
        slot = next(s for s in range(32) if vm.config_read(s, 0) == VENDOR_DEVICE)
        vm.config_write(slot, 0x04, 0)
        for offset, value in ((0x10, BAR0), (0x18, BAR2 & 0xFFFFFFFF), (0x1C, BAR2 >> 32), (0x20, BAR4)):
            vm.config_write(slot, offset, value)
        vm.config_write(slot, 0x04, 0x6)
        self.slot = slot
        assert self.reg(MAGIC) == 0x55504756 and self.reg(ABI_VERSION) >> 16 == 1
        assert self.reg(FEATURES) & (FEATURE_SHM | FEATURE_RING) == FEATURE_SHM | FEATURE_RING
        self.reset()
        self.arena = BAR2 + (self.reg(ARENA_OFFSET + 4) << 32 | self.reg(ARENA_OFFSET))
        self.arena_size = self.reg(ARENA_SIZE + 4) << 32 | self.reg(ARENA_SIZE)
        assert self.arena % 65536 == 0 and self.arena_size >= 512 << 10

    def reg(self, offset):
        return self.vm.load(BAR0 + offset)

    def set(self, offset, value):
        self.vm.store(BAR0 + offset, value)

    def reset(self):
        epoch = self.reg(RESET_EPOCH)
        self.set(CONTROL, RESET)
        wait_for("RESETTING is clear", lambda: not self.reg(STATUS) & RESETTING)
        assert self.reg(RESET_EPOCH) == (epoch + 1) & 0xFFFFFFFF


class Ring:
    """The driver's end of ring i, its two counters and its free slots."""

    def __init__(self, device, number):
        assert number < device.reg(RING_COUNT)
        self.device, self.vm, self.number = device, device.vm, number
        self.n, self.s = device.reg(RING_ENTRIES), device.reg(SLOT_BYTES)
        self.base = BAR2 + device.reg(RING_OFFSET) + number * device.reg(RING_STRIDE)
        self.completions = self.base + 8192 + 64 * self.n
        self.slots = self.base + (8192 + 96 * self.n + 4095) // 4096 * 4096
        self.start()

    def start(self):
        self.tail = self.told = self.head = 0
        self.free = list(range(self.n))
        assert not any(self.vm.read(self.base, 2 * PAGE)), "both pages are 0 after a reset"

    def slot(self, slot):
        return self.slots + slot * (2 * self.s + 64)

    def submit(self, what, tag):
        slot = self.free.pop()
        self.vm.write(self.slot(slot), what)
        self.vm.write(self.base + DESCS + 64 * (self.tail % self.n), struct.pack("<IIQ48x", slot, len(what), tag))
        self.tail = (self.tail + 1) & 0xFFFFFFFF
        return slot

    def tell(self):
        """Return: whether the device wanted the doorbell."""
        before, self.told = self.told, self.tail
        self.vm.store(self.base, self.tail)
        event = self.vm.load(self.base + PAGE + 64)
        wanted = (self.tail - event - 1) & 0xFFFFFFFF < (self.tail - before) & 0xFFFFFFFF
        if wanted:
            self.device.set(RING_DOORBELL + 4 * self.number, 1)
        return wanted

    def collect(self):
        """(tag, error, response header, payload) of all completions since the last time."""
        out = []
        tail = self.vm.load(self.base + PAGE)
        while self.head != tail:
            tag, seq, slot, length, error, _ = struct.unpack(
                "<QQIIII", self.vm.read(self.completions + 32 * (self.head % self.n), 32))
            assert slot not in self.free and 64 <= length <= self.s
            response = self.vm.read(self.slot(slot) + self.s, length)
            header = RESPONSE.unpack(response[:64])
            assert (header[0], header[1], header[3], header[6]) == (length, 1, error, seq)
            assert seq >> 48 == self.number + 1
            self.free.append(slot)
            self.head = (self.head + 1) & 0xFFFFFFFF
            out.append((tag, error, header, response[64:]))
        return out

    def wait(self, count):
        """{tag: (error, header, payload)} of `count` more requests."""
        got = {}

        def enough():
            for tag, *rest in self.collect():
                assert tag not in got, "each request has exactly one completion"
                got[tag] = rest
            return len(got) >= count

        wait_for(f"{count} completions", enough)
        assert len(got) == count
        return got

    def run(self, what, tag):
        self.submit(what, tag)
        self.tell()
        return self.wait(1)[tag]

    def arm(self):
        self.vm.store(self.base + 64, self.head)
        return self.vm.load(self.base + PAGE) != self.head


@pytest.fixture
def stack(tmp_path):
    s = Stack(tmp_path)
    yield s
    s.close()


def test_info_and_echoes_more_than_the_ring_has_entries(stack):
    stack.start_mediator()
    stack.start_worker()
    device = Device(stack.vm)
    ring = Ring(device, device.reg(RING_COUNT) - 1)
    error, header, payload = ring.run(request(INFO, tag=5), 77)
    assert error == OK, payload
    assert (header[2], header[5], header[11], header[0]) == (INFO, 5, INFO_PAYLOAD, 64 + 304)
    assert payload[48:112].rstrip(b"\0") == b"vm-a" and payload[112:176].rstrip(b"\0") == b"alpine"
    assert struct.unpack_from("<I", payload)[0] == device.reg(VM_ID) != 0
    assert [(j["op"], j["request"], j["band"]) for j in stack.ask("jobs")] == [("info", "3:1", "normal")]
    bells = 0
    for first in range(0, ring.n + 60, 20):  # past the end of the descriptors, in batches
        for i in range(first, first + 20):
            ring.submit(echo(b"%08d" % i + os.urandom(40), tag=i), i)
        bells += ring.tell()
        answers = ring.wait(20)
        assert sorted(answers) == list(range(first, first + 20))
        for i, (error, header, payload) in answers.items():
            assert (error, header[5], header[11]) == (OK, i, DATA), payload
            assert header[6] & (1 << 48) - 1 == i + 2 and payload[:8] == b"%08d" % i
    assert bells > 0
    big = os.urandom(3976)  # SLOT_BYTES - 48 - 2 * 24 and its response would not fit: 64 + 3976 does
    assert ring.run(echo(big), 1)[2] == big


def test_sums_over_the_arena(stack):
    stack.start_mediator()
    stack.start_worker()
    device = Device(stack.vm)
    ring = Ring(device, 0)
    numbers = [(i * 2654435761) & 0xFFFFFFFF for i in range(50000)]
    stack.vm.write(device.arena + 0x10000, struct.pack("<50000I", *numbers))
    stack.vm.write(device.arena + 0x80, b"\xaa" * 0x180)
    for tag, kind, sizeof in ((1, SUM, 8), (2, MAX, 4), (3, ARGMAX, 8)):
        ring.submit(reduce(U32, kind, 50000, 0x10000, 0x80 * tag, 4, sizeof, tag=tag), tag)
    ring.tell()
    for tag, (error, header, payload) in ring.wait(3).items():
        assert (error, header[0], header[10]) == (OK, 64, 1), (tag, payload)
    result = stack.vm.read(device.arena + 0x80, 0x180)
    biggest = max(numbers)
    assert struct.unpack_from("<Q", result)[0] == sum(numbers)
    assert struct.unpack_from("<I", result, 0x80)[0] == biggest
    assert struct.unpack_from("<Q", result, 0x100)[0] == numbers.index(biggest)
    assert result[8:0x80] == b"\xaa" * 0x78, "nothing beside the output is written"


def test_ordered_requests(stack):
    """They start when all before them are completed, and fail with the one before them, once."""
    stack.start_mediator()
    device = Device(stack.vm)
    ring = Ring(device, 1)
    stack.vm.write(device.arena, struct.pack("<4f", 1, 2, 3, 4))
    copy = [(ARENA, IN, 0x40, 8), (ARENA, OUT, 0x80, 8)]
    ring.submit(reduce(F32, SUM, 4, 0, 0x40, 4, 8, tag=1), 1)
    ring.submit(request(ECHO, copy, flags=ORDERED, tag=2), 2)  # reads what the first one wrote
    ring.tell()
    stack.start_worker()
    assert [r[0] for r in ring.wait(2).values()] == [OK, OK]
    assert struct.unpack("<d", stack.vm.read(device.arena + 0x80, 8))[0] == 10.0
    ring.submit(reduce(200, SUM, 4, 0, 0x40, 4, 8, tag=3), 3)
    ring.submit(request(ECHO, copy, flags=ORDERED, tag=4), 4)
    ring.submit(echo(b"not ordered", tag=5), 5)
    ring.tell()
    answers = ring.wait(3)
    assert {tag: r[0] for tag, r in answers.items()} == {3: BAD_DTYPE, 4: DEPENDENCY, 5: OK}
    assert answers[4][1][10] == 0 and answers[4][1][11] == TEXT and answers[4][2]
    error, _, text = ring.run(request(ECHO, copy, flags=ORDERED, tag=6), 6)
    assert error == OK, text  # the ring was empty: nothing to depend on


def test_cancel_deadline_and_reset(stack):
    stack.start_mediator()  # no worker: what needs one waits
    device = Device(stack.vm)
    ring, other = Ring(device, 0), Ring(device, 2)
    ring.submit(echo(b"cancelled", tag=0xABCDEF0123456789), 1)
    ring.tell()
    wait_for("it waits", lambda: stack.ask("vms")[0]["queued"] == 1)
    cancel = request(CANCEL, body=struct.pack("<Q", 0xABCDEF0123456789))
    error, header, _ = other.run(cancel, 2)  # through any ring
    assert (error, header[2], header[0]) == (OK, CANCEL, 64)
    assert ring.wait(1)[1][0] == CANCELLED
    assert other.run(cancel, 3)[0] == NOT_FOUND
    error, _, text = ring.run(echo(b"late", deadline_ms=50), 4)
    assert error == NO_WORKER and text, text
    bad = bytearray(echo(b"size and length differ", tag=5))
    bad[0] += 8
    error, header, text = ring.run(bytes(bad), 5)
    assert error == BAD_LENGTH and text, text
    ring.submit(echo(b"lost with the reset"), 6)
    ring.tell()
    device.reset()
    ring.start()
    stack.start_worker()
    error, header, payload = ring.run(echo(b"new life"), 7)
    assert (error, payload) == (OK, b"new life") and header[6] == 1 << 48 | 1


def test_a_broken_rule_and_its_cure(stack):
    stack.start_mediator()
    stack.start_worker()
    device = Device(stack.vm)
    ring, other = Ring(device, 0), Ring(device, 1)
    ring.submit(echo(b"and a reserved field"), 1)
    stack.vm.store(ring.base + DESCS + 60, 1)
    ring.tell()
    wait_for("BROKEN", lambda: device.reg(STATUS) & IS_BROKEN)
    for r in (ring, other):
        assert stack.vm.load(r.base + PAGE + 128) & 1
    device.set(DOORBELL, 1)
    assert device.reg(REJECT_ERROR) == BROKEN
    assert stack.ask("vms")[0]["state"] == "broken"
    device.reset()
    assert stack.ask("vms")[0]["state"] == "up"
    for r in (ring, other):
        r.start()
        assert r.run(echo(b"well again"), 2)[2] == b"well again"


def test_sleeping_until_the_vector_of_the_ring(stack):
    """MSI-X is the PCI specification's; which vector comes and when is the document's."""
    stack.start_mediator()
    stack.start_worker()
    device = Device(stack.vm)
    assert device.reg(FEATURES) & FEATURE_MSIX
    for vector in (1, 2):
        stack.dev.set_message(vector, 0x700 + vector)
    stack.dev.msix_on()
    ring = Ring(device, 1)
    for tag in range(5):
        stack.dev.take_message(2)
        assert not ring.arm()
        ring.submit(echo(b"wake me", tag=tag), tag)
        ring.tell()
        wait_for("vector 1 + i", lambda: stack.dev.take_message(2) == 0x702)
        (got,) = ring.collect()
        assert got[:2] == (tag, OK)
    assert stack.dev.take_message(1) == 0

# SPDX-License-Identifier: MIT
"""Both ends of a ring of proto/vgpu_regs.h, for tests that play a guest, a mediator or an executor.

    ring = RingDriver(memory, offset, entries, slot_bytes)      # memory: a writable buffer, e.g. an mmap
    slot = ring.take(); ring.write(slot, request); ring.submit(slot, len(request), tag)
    if ring.publish(): ...ring the bell...
    done = ring.collect()                                       # a completion, or None

    ring = RingDevice(memory, offset, entries, slot_bytes)
    desc = ring.take(); ring.respond(desc.slot, response); ring.complete(desc, seq, len(response), error)
    if ring.publish(): ...signal...

Indices are stored and loaded as aligned 4-byte words (a memoryview of format "I" does that).
"""

import struct
import threading
from types import SimpleNamespace

from local_proto import P

PAGE = P.RING_PAGE
WRAP = 1 << 32
DESC, COMPLETION = "<IIQ48s", "<QQIIII"
FENCE = threading.Lock()
assert struct.calcsize(DESC) == P.size("vgpu_desc")
assert struct.calcsize(COMPLETION) == P.size("vgpu_completion")


def round_up(value, unit):
    return (value + unit - 1) // unit * unit


def fence():
    """Taking a lock is an atomic read-modify-write: no later load passes an earlier store."""
    with FENCE:
        pass


def crossed(event, before, after):
    return (after - event - 1) % WRAP < (after - before) % WRAP


def ring_bytes(entries, slot_bytes):
    return round_up(slots_at(entries) + entries * slot_stride(slot_bytes), PAGE)


def slots_at(entries):
    return round_up(2 * PAGE + (64 + 32) * entries, PAGE)


def slot_stride(slot_bytes):
    return 2 * slot_bytes + 64


class RingMap:
    """Where the parts of a ring lie. The words are public: tests break them on purpose."""

    def __init__(self, memory, offset, entries, slot_bytes):
        self.entries, self.slot_bytes, self.offset = entries, slot_bytes, offset
        self.bytes = memoryview(memory).cast("B")[offset : offset + ring_bytes(entries, slot_bytes)]
        self.words = self.bytes.cast("I")
        driver, device = 0, PAGE
        self.SUBMIT_TAIL = self._word(driver, "vgpu_ring_driver", "submit_tail")
        self.COMPLETE_EVENT = self._word(driver, "vgpu_ring_driver", "complete_event")
        self.COMPLETE_TAIL = self._word(device, "vgpu_ring_device", "complete_tail")
        self.SUBMIT_EVENT = self._word(device, "vgpu_ring_device", "submit_event")
        self.FLAGS = self._word(device, "vgpu_ring_device", "flags")

    @staticmethod
    def _word(page, layout, field):
        return (page + P.offset(layout, field)) // 4

    def load(self, word):
        return self.words[word]

    def store(self, word, value):
        self.words[word] = value % WRAP

    def desc_at(self, index):
        return 2 * PAGE + 64 * (index % self.entries)

    def completion_at(self, index):
        return 2 * PAGE + 64 * self.entries + 32 * (index % self.entries)

    def request_at(self, slot):
        return slots_at(self.entries) + slot * slot_stride(self.slot_bytes)

    def response_at(self, slot):
        return self.request_at(slot) + self.slot_bytes

    def zero(self):
        """What a reset of the device does to the pages of the ring."""
        self.bytes[: 2 * PAGE] = bytes(2 * PAGE)
        fence()

    def device_page(self):
        return bytes(self.bytes[PAGE : 2 * PAGE])

    @property
    def broken(self):
        return bool(self.load(self.FLAGS) & P.RING_BROKEN)


class RingDriver(RingMap):
    """The end that submits."""

    def __init__(self, memory, offset, entries, slot_bytes):
        super().__init__(memory, offset, entries, slot_bytes)
        self.restart()

    def restart(self):
        """The ring's pages are zero: a new life."""
        self.submit_tail = self.published = self.complete_head = 0
        self.count = 0  # descriptors of this life
        self.free = list(range(self.entries - 1, -1, -1))
        self.busy = {}  # slot: (count, tag) of what was submitted and not completed

    def take(self):
        """A slot that is not in use, or None."""
        return self.free.pop() if self.free else None

    def give_back(self, slot):
        self.free.append(slot)

    def write(self, slot, data):
        at = self.request_at(slot)
        self.bytes[at : at + len(data)] = data

    def submit(self, slot, length, tag=0, reserved=b""):
        """A descriptor; returns the number of the request in this life, from 1."""
        struct.pack_into(DESC, self.bytes, self.desc_at(self.submit_tail), slot, length, tag, reserved)
        self.submit_tail = (self.submit_tail + 1) % WRAP
        self.count += 1
        self.busy[slot] = (self.count, tag)
        return self.count

    def publish(self):
        """Show what was submitted. Returns whether to ring the bell."""
        before, self.published = self.published, self.submit_tail
        self.store(self.SUBMIT_TAIL, self.submit_tail)
        fence()
        return crossed(self.load(self.SUBMIT_EVENT), before, self.submit_tail)

    def collect(self):
        """The next completion: tag, seq, slot, length, error, count and a copy of the response."""
        tail = self.load(self.COMPLETE_TAIL)
        if tail == self.complete_head:
            return None
        assert (tail - self.complete_head) % WRAP <= self.entries, "complete_tail jumped"
        at = self.completion_at(self.complete_head)
        tag, seq, slot, length, error, reserved = struct.unpack_from(COMPLETION, self.bytes, at)
        self.complete_head = (self.complete_head + 1) % WRAP
        assert slot in self.busy, f"a completion of slot {slot}, which is not in flight"
        count, submitted_tag = self.busy.pop(slot)
        assert tag == submitted_tag and reserved == 0 and length <= self.slot_bytes
        at = self.response_at(slot)
        return SimpleNamespace(tag=tag, seq=seq, slot=slot, length=length, error=error, count=count,
                               response=bytes(self.bytes[at : at + length]))

    def arm(self):
        """Ask for a signal at the next completion. Returns whether one is there already."""
        self.store(self.COMPLETE_EVENT, self.complete_head)
        fence()
        return self.load(self.COMPLETE_TAIL) != self.complete_head


class RingDevice(RingMap):
    """The end that serves."""

    def __init__(self, memory, offset, entries, slot_bytes):
        super().__init__(memory, offset, entries, slot_bytes)
        self.submit_head = self.complete_tail = self.published = 0

    def take(self):
        """The next descriptor: slot, length, tag and a copy of the request; or None."""
        tail = self.load(self.SUBMIT_TAIL)
        if tail == self.submit_head:
            return None
        assert (tail - self.submit_head) % WRAP <= self.entries, "submit_tail jumped"
        at = self.desc_at(self.submit_head)
        slot, length, tag, reserved = struct.unpack_from(DESC, self.bytes, at)
        assert slot < self.entries and 0 < length <= self.slot_bytes and not any(reserved)
        self.submit_head = (self.submit_head + 1) % WRAP
        at = self.request_at(slot)
        return SimpleNamespace(slot=slot, length=length, tag=tag,
                               request=bytes(self.bytes[at : at + length]))

    def respond(self, slot, data):
        at = self.response_at(slot)
        self.bytes[at : at + len(data)] = data

    def complete(self, desc, seq, length, error=0):
        struct.pack_into(COMPLETION, self.bytes, self.completion_at(self.complete_tail), desc.tag, seq,
                         desc.slot, length, error, 0)
        self.complete_tail = (self.complete_tail + 1) % WRAP

    def publish(self):
        """Show what was completed. Returns whether to signal."""
        before, self.published = self.published, self.complete_tail
        self.store(self.COMPLETE_TAIL, self.complete_tail)
        fence()
        return crossed(self.load(self.COMPLETE_EVENT), before, self.complete_tail)

    def arm(self):
        """Ask for the bell at the next descriptor. Returns whether one is there already."""
        self.store(self.SUBMIT_EVENT, self.submit_head)
        fence()
        return self.load(self.SUBMIT_TAIL) != self.submit_head

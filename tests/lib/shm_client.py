# SPDX-License-Identifier: MIT
"""One VM on the shared-memory path: QEMU's side of the VM socket, and the guest at its rings.

    with Vm(m.socket("a")) as vm:                        # memfds, eventfds, pipe, HELLO, HELLO_ACK
        answer = vm.call(*vm.echo(b"..."))               # through ring 0, waiting at its eventfd
        vm.submit(request, ring=1); vm.ring_bell(1); vm.collect(1)
        vm.reset()                                       # as QEMU does: pages, kicks, RESET, RESET_ACK

A Vm outlives its connections, as a QEMU process does: vm.disconnect() and vm.connect() with the same
memory. Every completion is held against what was submitted: its slot was in flight, tag and
sequence number are those of the request, the response's header says what the completion says. So an
answer that comes twice, or to nobody, fails the test that collects it.
"""

import contextlib
import fcntl
import mmap
import os
import select
import struct
import time
from types import SimpleNamespace

from local_proto import P
from mediator_rig import connect, wait_for
from ring import RingDriver, ring_bytes, round_up
from worker_rig import LIMIT_S, Gone, Link

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
ENTRIES, SLOT_BYTES = 64, 4096


def memfd(name, size, seals=SEALS, huge=False):
    flags = os.MFD_HUGETLB if huge else 0
    fd = os.memfd_create(name, os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC | flags)
    os.ftruncate(fd, size)
    if seals:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def inflight_bytes(rings, entries):
    return 64 + 64 * rings + 64 * rings * entries


def ring_seq(ring, count):
    return (ring + 1) << 48 | count


class Vm:
    def __init__(self, path, rings=1, entries=ENTRIES, slot_bytes=SLOT_BYTES, shm_size=16 << 20,
                 boot_id=None, start=True, **hello):
        self.path, self.rings, self.entries, self.slot_bytes = path, rings, entries, slot_bytes
        self.shm_size, self.hello_fields = shm_size, hello
        self.boot_id = boot_id or int.from_bytes(os.urandom(7), "little")
        self.epoch = self.conn_gen = self.seq = self.next_tag = 0
        self.stride = ring_bytes(entries, slot_bytes)
        self.ring_offset = P.SHM_CONTROL_SIZE
        self.arena_offset = round_up(self.ring_offset + rings * self.stride, 1 << 16)
        self.arena_size = shm_size - self.arena_offset
        self.shm_fd = memfd("vgpu-test-bar2", shm_size)
        self.inflight_fd = memfd("vgpu-test-inflight", inflight_bytes(rings, entries))
        self.kicks = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(rings)]
        self.calls = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(rings)]
        self.bar2 = mmap.mmap(self.shm_fd, shm_size)
        self.inflight = mmap.mmap(self.inflight_fd, inflight_bytes(rings, entries))
        self.arena = memoryview(self.bar2)[self.arena_offset :]
        self.driver = [RingDriver(self.bar2, self.ring_offset + i * self.stride, entries, slot_bytes)
                       for i in range(rings)]
        self.link = self.ack = self.pipe = None
        self.old_pipes = []
        self.sent = [{} for _ in range(rings)]  # tag: request, of what is in flight
        if start:
            self.connect()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self.disconnect()
        for fd in self.old_pipes + self.kicks + self.calls + [self.shm_fd, self.inflight_fd]:
            with contextlib.suppress(OSError):
                os.close(fd)
        self.old_pipes, self.kicks, self.calls = [], [], []

    # ---- QEMU ---------------------------------------------------------------------------------

    def hello_values(self):
        values = dict(version_min=P.LOCAL_VERSION_MIN, version_max=P.LOCAL_VERSION_MAX,
                      features=P.LOCAL_FEATURE_SHM, boot_id=self.boot_id, arena_size=self.arena_size,
                      conn_gen=self.conn_gen, band_wish=P.BAND_DEFAULT, rings=self.rings,
                      ring_entries=self.entries, slot_bytes=self.slot_bytes, shm_size=self.shm_size,
                      ring_offset=self.ring_offset, ring_stride=self.stride,
                      arena_offset=self.arena_offset)
        values.update(self.hello_fields)
        return values

    def hello_fds(self, writers):
        return [self.shm_fd, self.inflight_fd, writers, *self.kicks, *self.calls]

    def send_hello(self, fds=None, replace=None, **fields):
        """HELLO with the fds that belong to it, or with others. The write end of the new pipe is
        closed here afterwards."""
        self.conn_gen += 1
        if self.pipe is not None:
            self.old_pipes.append(self.pipe)
        self.pipe, writers = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            fds = self.hello_fds(writers) if fds is None else [writers if f is None else f for f in fds]
            for position, fd in (replace or {}).items():
                fds[position] = fd
            self.link = Link(connect(self.path))
            self.link.send("HELLO", epoch=self.epoch, fds=fds, **{**self.hello_values(), **fields})
        finally:
            os.close(writers)

    def connect(self, **fields):
        self.send_hello(**fields)
        self.ack = self.link.wait("HELLO_ACK").fields
        assert self.ack.features & P.LOCAL_FEATURE_SHM
        return self.ack

    def refused(self, **arguments):
        """Send a HELLO that must be refused. Returns (reason, sentence); the connection is closed."""
        self.send_hello(**arguments)
        message = self.link.wait("REFUSED")
        self.link.wait_closed()
        self.disconnect()
        return message.fields.reason, message.tail.decode()

    def disconnect(self):
        """Close the socket, as a QEMU that ends, or that must reconnect."""
        if self.link:
            self.link.close()
            self.link = None
        if self.pipe is not None:
            self.old_pipes.append(self.pipe)
            self.pipe = None

    def pipe_hung_up(self):
        """Whether nobody holds the write end of any pipe of ours any more."""
        for fd in self.old_pipes + ([self.pipe] if self.pipe is not None else []):
            poll = select.poll()
            poll.register(fd, 0)
            if not any(events & select.POLLHUP for _, events in poll.poll(0)):
                return False
        return True

    def wait_hung_up(self, limit_s=LIMIT_S):
        wait_for("the writers' pipe hangs up", self.pipe_hung_up, limit_s)
        for fd in self.old_pipes:
            os.close(fd)
        self.old_pipes = []

    def reconnect(self, limit_s=LIMIT_S):
        """As the stub: a new connection only when no writer of the old one is left."""
        self.disconnect()
        self.wait_hung_up(limit_s)
        return self.connect()

    def gone(self, limit_s=LIMIT_S):
        """Wait until the mediator ended the connection; messages before that are dropped."""
        end = time.monotonic() + limit_s
        with contextlib.suppress(Gone, OSError):
            while True:
                self.link.receive(end - time.monotonic())

    def start_reset(self):
        """What QEMU does when the guest asks: pages to zero, kicks drained, RESET."""
        self.epoch += 1
        self.seq = 0
        for i, ring in enumerate(self.driver):
            ring.zero()
            ring.restart()
            self.sent[i].clear()
            for fd in (self.kicks[i], self.calls[i]):
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(fd)
        self.link.send("RESET", epoch=self.epoch)

    def wait_reset(self, limit_s=LIMIT_S, clean=True):
        """RESET_ACK of the current life; what still belongs to the old one is skipped."""
        end = time.monotonic() + limit_s
        while True:
            message = self.link.receive(end - time.monotonic())
            if message.name == "RESET_ACK" and message.fields.msg.epoch == self.epoch:
                break
        if clean:
            assert not any(any(ring.device_page()) for ring in self.driver), "a device page is not zero"

    def reset(self, limit_s=LIMIT_S):
        self.start_reset()
        self.wait_reset(limit_s)

    def wait_message(self, name, condition=lambda fields: True, limit_s=LIMIT_S):
        """The next message of that name that meets the condition; others are skipped."""
        end = time.monotonic() + limit_s
        while True:
            message = self.link.receive(end - time.monotonic())
            if message.name == name and condition(message.fields):
                return message

    def wait_broken(self, limit_s=LIMIT_S):
        state = self.wait_message("STATE", lambda f: f.broken, limit_s)
        assert state.fields.msg.epoch == self.epoch
        assert all(ring.broken for ring in self.driver)

    # ---- the guest: rings -------------------------------------------------------------------

    def tag(self):
        self.next_tag += 1
        return self.next_tag

    def put(self, offset, data):
        self.arena[offset : offset + len(data)] = data

    def get(self, offset, length):
        return bytes(self.arena[offset : offset + length])

    def echo(self, data, at=None, **header):
        """An echo: inline, or with `at` through the arena: input there, output behind it."""
        if at is None:
            bufs = [(P.BUF_INLINE, P.IN, P.inline_at(2), len(data)), (P.BUF_INLINE, P.OUT, 0, len(data))]
            return P.request("ECHO", bufs, inline=data, **header)
        self.put(at, data)
        out = at + round_up(len(data), 64)
        bufs = [(P.BUF_ARENA, P.IN, at, len(data)), (P.BUF_ARENA, P.OUT, out, len(data))]
        return P.request("ECHO", bufs, **header)

    def tagged(self, request, tag=None):
        tag = self.tag() if tag is None else tag
        at = P.offset("vgpu_req_hdr", "tag")
        return tag, request[:at] + struct.pack("<Q", tag) + request[at + 8 :]

    def prepare(self, request, ring=0, tag=None):
        """Slot and descriptor, not published yet. Returns the tag; None: the ring is full."""
        driver = self.driver[ring]
        slot = driver.take()
        if slot is None:
            return None
        tag, request = self.tagged(request, tag)
        driver.write(slot, request)
        driver.submit(slot, len(request), tag)
        self.sent[ring][tag] = request
        return tag

    def kick(self, ring=0):
        os.eventfd_write(self.kicks[ring], 1)

    def publish(self, ring=0):
        if self.driver[ring].publish():
            self.kick(ring)

    def submit(self, request, ring=0, tag=None):
        tag = self.prepare(request, ring, tag)
        assert tag is not None, "the ring is full"
        self.publish(ring)
        return tag

    def poll(self, ring=0):
        """The next answer of a ring that is there, checked; or None."""
        driver = self.driver[ring]
        done = driver.collect()
        if done is None:
            return None
        driver.give_back(done.slot)
        request = P.unpack("vgpu_req_hdr", self.sent[ring].pop(done.tag))
        hdr = P.unpack("vgpu_resp_hdr", done.response)
        assert hdr.size == done.length == len(done.response)
        assert done.seq == hdr.seq == ring_seq(ring, done.count), "identity of the request"
        assert (hdr.tag, hdr.op, hdr.error) == (done.tag, request.op, done.error)
        payload = done.response[P.size("vgpu_resp_hdr") :]
        return SimpleNamespace(tag=done.tag, seq=done.seq, error=done.error, hdr=hdr, payload=payload,
                               text=payload.decode() if hdr.payload == P.PAYLOAD_TEXT else "")

    def wait_any(self, limit_s=LIMIT_S):
        """The next answer of any ring, as (ring, answer). Sleeps at the eventfds."""
        end = time.monotonic() + limit_s
        while True:
            for ring in range(self.rings):
                answer = self.poll(ring)
                if answer:
                    return ring, answer
            if any([driver.arm() for driver in self.driver]):
                continue
            ready, _, _ = select.select(self.calls, [], [], max(end - time.monotonic(), 0))
            for fd in ready:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(fd)
            if not ready:
                assert not any(driver.arm() for driver in self.driver), "a completion without its signal"
                raise TimeoutError(f"no completion within {limit_s} s; in flight: {self.in_flight()}")

    def collect(self, ring=0, limit_s=LIMIT_S):
        """The next answer of a ring; answers of others must not come meanwhile."""
        got, answer = self.wait_any(limit_s)
        assert got == ring, f"an answer on ring {got} instead of {ring}"
        return answer

    def collect_all(self, limit_s=LIMIT_S):
        """Every answer that is due, by tag."""
        answers = {}
        while self.in_flight():
            _, answer = self.wait_any(limit_s)
            answers[answer.tag] = answer
        return answers

    def in_flight(self):
        return sum(len(sent) for sent in self.sent)

    def call(self, request, ring=0, limit_s=LIMIT_S):
        tag = self.submit(request, ring)
        answer = self.collect(ring, limit_s)
        assert answer.tag == tag
        return answer

    def works(self, data=b"still here"):
        """A request goes through, inline and by the arena."""
        assert self.call(self.echo(data)).payload == data
        assert self.call(self.echo(data * 50, at=self.arena_size - (1 << 16))).error == 0
        out = self.arena_size - (1 << 16) + round_up(len(data) * 50, 64)
        assert self.get(out, len(data) * 50) == data * 50

    # ---- the guest: windows, as the stub relays them on this path -----------------------------

    def window(self, request, flags=0, deadline_ms=60000, seq=None):
        if seq is None:
            self.seq += 1
            seq = self.seq
        self.link.send("REQUEST", epoch=self.epoch, tail=request, seq=seq, flags=flags,
                       deadline_left_ms=deadline_ms)
        return seq

    def window_answer(self, seq, limit_s=LIMIT_S):
        """ACCEPT may come, DATA never does."""
        end = time.monotonic() + limit_s
        while True:
            message = self.link.receive(end - time.monotonic())
            assert message.name in ("ACCEPT", "RESPONSE", "STATE", "HEARTBEAT"), message.name
            if message.name == "RESPONSE":
                break
        assert message.fields.seq == seq
        hdr = P.unpack("vgpu_resp_hdr", message.tail)
        payload = message.tail[P.size("vgpu_resp_hdr") :]
        assert hdr.size == len(message.tail) and hdr.seq == seq
        return SimpleNamespace(error=hdr.error, hdr=hdr, payload=payload, seq=seq,
                               text=payload.decode() if hdr.payload == P.PAYLOAD_TEXT else "")


__all__ = ["ENTRIES", "SEALS", "SLOT_BYTES", "Vm", "inflight_bytes", "memfd", "ring_seq"]

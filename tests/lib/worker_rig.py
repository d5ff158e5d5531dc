# SPDX-License-Identifier: MIT
"""A mediator of the tests' own that drives a real vgpu-worker.

    with WorkerRig(tmp_path) as rig:            # listens, starts the worker, accepts, answers REGISTER
        z, = rig.run("AXPY", body, [x, y], [np.empty(n, "f4")])     # arrays through a region
        answer = rig.answer("AXPY", body, [x, y], [z])              # the response, errors too

Everything is on real sockets; waits have generous limits and end with what was received so far.
"""

import contextlib
import fcntl
import mmap
import os
import select
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from local_proto import P
from ring import RingDriver, ring_bytes

BIN = Path(os.environ.get("VGPU_BIN", "build/dev/bin"))
SANITIZED = bool(os.environ.get("VGPU_SANITIZE"))
LIMIT_S = 60 if SANITIZED else 30
F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SHRINK, F_SEAL_SEAL = 1033, 4, 2, 1
DTYPE = {"f4": "F32", "f8": "F64", "u1": "U8", "i1": "I8", "u4": "U32", "i4": "I32", "u8": "U64",
         "i8": "I64"}


def dtype_number(array_or_dtype):
    d = np.dtype(getattr(array_or_dtype, "dtype", array_or_dtype))
    return P.DTYPE[DTYPE[d.kind + str(d.itemsize)]]


class Gone(Exception):
    """The peer closed the connection."""


class Link:
    """One end of a SOCK_SEQPACKET connection that speaks vgpu_local.h."""

    def __init__(self, sock):
        self.sock, self.lock, self.seen, self.kept = sock, threading.Lock(), [], []

    def send_raw(self, data, fds=()):
        with self.lock:
            socket.send_fds(self.sock, [data], list(fds))

    def send(self, name, /, tail=b"", fds=(), **values):
        self.send_raw(P.message(name, tail=tail, **values), fds)

    def receive(self, limit_s=LIMIT_S):
        """The next message as a namespace: name, fields, tail, fds."""
        if self.kept:
            return self.kept.pop(0)
        if not select.select([self.sock], [], [], max(limit_s, 0))[0]:
            raise TimeoutError(f"no message within the limit; before: {self.seen[-8:]}")
        try:
            data, fds, _, _ = socket.recv_fds(self.sock, P.MSG_MAX, 4)
        except ConnectionResetError:
            data, fds = b"", []
        if not data:
            raise Gone(f"closed; before: {self.seen[-8:]}")
        name, fields, tail = P.parse(data)
        if name != "HEARTBEAT":
            self.seen.append(name)
        return SimpleNamespace(name=name, fields=fields, tail=tail, fds=list(fds))

    def keep(self):
        """Read one message for a later receive(); heartbeats are dropped."""
        before, self.kept = self.kept, []
        message = self.receive(0)
        self.kept = before + ([message] if message.name != "HEARTBEAT" else [])

    def wait(self, *names, limit_s=LIMIT_S):
        """The next message of one of these names; heartbeats between are skipped, nothing else is."""
        end = time.monotonic() + limit_s
        while True:
            message = self.receive(end - time.monotonic())
            if message.name in names:
                return message
            assert message.name == "HEARTBEAT", f"{message.name} instead of {names}"

    def wait_closed(self, limit_s=LIMIT_S):
        end = time.monotonic() + limit_s
        with contextlib.suppress(Gone):
            while True:
                self.receive(end - time.monotonic())

    def close(self):
        self.sock.close()


def make_ring(entries):
    """What RING carries: (fields, fds, RingDriver, memory); the caller closes the fds."""
    size = ring_bytes(entries, P.EXEC_SLOT_BYTES)
    fd = os.memfd_create("jobs", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
    memory = mmap.mmap(fd, size)
    fds = [fd, os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK),
           os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)]
    fields = dict(entries=entries, slot_bytes=P.EXEC_SLOT_BYTES, size=size, spin_us=0)
    return fields, fds, RingDriver(memory, 0, entries, P.EXEC_SLOT_BYTES)


class JobRing:
    """The mediator's end of a job ring."""

    def __init__(self, link, entries=16, **fields):
        values, fds, self.ring = make_ring(entries)
        values.update(fields)
        self.link, (memory, self.kick, self.call) = link, fds
        link.send("RING", fds=fds, **values)
        os.close(memory)

    def submit(self, head, request, ring=True, **changes):
        """A job: its struct vgpu_job and its request. Returns its slot."""
        slot = self.ring.take()
        assert slot is not None, "the ring is full"
        data = head + request
        self.ring.write(slot, data)
        values = dict(length=len(data), tag=P.unpack("vgpu_job", head).job)
        values.update(changes)
        self.ring.submit(slot, **values)
        if ring:
            self.publish()
        return slot

    def publish(self):
        if self.ring.publish():
            os.eventfd_write(self.kick, 1)

    def collect(self, limit_s=LIMIT_S):
        """The next completion. Messages that come meanwhile are kept."""
        end = time.monotonic() + limit_s
        while True:
            done = self.ring.collect()
            if done:
                self.ring.give_back(done.slot)
                return done
            if self.ring.arm():
                continue
            ready = select.select([self.call, self.link.sock], [], [], max(end - time.monotonic(), 0))[0]
            if not ready:
                raise TimeoutError("no completion within the limit")
            if self.call in ready:
                os.eventfd_read(self.call)
            elif self.link.sock in ready:
                try:
                    self.link.keep()
                except Gone:
                    done = self.ring.collect()  # completed before it ended
                    if not done:
                        raise
                    return done

    def close(self):
        for fd in (self.kick, self.call):
            os.close(fd)


class Region:
    """A sealed memfd and a bump allocator in it."""

    def __init__(self, number, size=16 << 20, seals=F_SEAL_SHRINK | F_SEAL_SEAL):
        self.number, self.size, self.used = number, size, 0
        self.fd = os.memfd_create("region", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        os.ftruncate(self.fd, size)
        fcntl.fcntl(self.fd, F_ADD_SEALS, seals)
        self.map = mmap.mmap(self.fd, size)
        self.bytes = np.frombuffer(self.map, np.uint8)

    def reset(self):
        self.used = 0

    def put(self, data):
        """Place bytes; returns (offset, length)."""
        raw = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else \
            np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        offset = (self.used + 63) // 64 * 64
        assert offset + raw.size <= self.size, "the region is too small for this test"
        self.bytes[offset : offset + raw.size] = raw
        self.used = offset + raw.size
        return offset, raw.size

    def get(self, offset, like):
        length = like.size * like.itemsize
        return self.bytes[offset : offset + length].copy().view(like.dtype).reshape(like.shape)

    def close(self):
        os.close(self.fd)


class WorkerRig:
    def __init__(self, directory, *arguments, heartbeat_ms=500, max_job_ms=60000, start=True,
                 name="w0", beat=True, ring=None, preexec_fn=None):
        self.path = str(Path(directory) / "worker.sock")
        self.arguments, self.name = arguments, name
        self.heartbeat_ms, self.max_job_ms, self.beat = heartbeat_ms, max_job_ms, beat
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.log_path = Path(directory) / "worker.log"
        self.process = self.link = self.executor = self.region = self.jobs = None
        self.next_job, self.next_region, self.stopping = 1, 1, threading.Event()
        self.autostart, self.ring_fields, self.preexec_fn = start, ring or {}, preexec_fn

    # ---- life ---------------------------------------------------------------------------------

    def __enter__(self):
        self.listener.bind(self.path)
        self.listener.listen(4)
        if self.autostart:
            self.start()
            self.accept()
        return self

    def __exit__(self, *exc):
        self.stopping.set()
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        if self.process:
            self.process.wait()
        for thing in (self.link, self.executor, self.listener, self.region, self.jobs):
            if thing:
                thing.close()
        if exc[0] and self.log_path.exists():
            print("worker's log:\n" + self.log_path.read_text()[-6000:])

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [str(BIN / "vgpu-worker"), "--mediator", self.path, "--name", self.name,
                 "--log-level", "debug", *self.arguments], stdin=subprocess.DEVNULL, stderr=log,
                preexec_fn=self.preexec_fn)

    def accept_link(self):
        self.listener.settimeout(LIMIT_S)
        sock, _ = self.listener.accept()
        return Link(sock)

    def accept(self):
        """Take a connection up to the announcement of its first executor."""
        self.link = self.accept_link()
        self.register = self.link.wait("REGISTER").fields
        self.acknowledge()
        self.take_executor()

    def acknowledge(self, **values):
        fields = dict(version=P.LOCAL_VERSION_MAX, worker_id=1, heartbeat_ms=self.heartbeat_ms,
                      max_job_ms=self.max_job_ms)
        fields.update(values)
        self.link.send("REGISTER_ACK", **fields)
        if self.beat:
            threading.Thread(target=self._beat, args=(self.link,), daemon=True).start()

    def _beat(self, link):
        with contextlib.suppress(OSError):
            while not self.stopping.wait(self.heartbeat_ms / 2000):
                link.send("HEARTBEAT", progress=1)

    def take_executor(self, ring=True):
        message = self.link.wait("EXECUTOR")
        self.executor_number, self.executor_pid = message.fields.executor, message.fields.pid
        assert len(message.fds) == 1
        if self.executor:
            self.executor.close()
        self.executor = Link(socket.socket(fileno=message.fds[0]))
        if self.jobs:
            self.jobs.close()
        self.jobs = JobRing(self.executor, **self.ring_fields) if ring else None
        return self.executor

    def log(self):
        return self.log_path.read_text()

    # ---- regions ------------------------------------------------------------------------------

    def attach(self, region):
        self.executor.send("ATTACH", region=region.number, size=region.size, fds=[region.fd])
        return region

    def new_region(self, size=16 << 20):
        self.region = self.attach(Region(self.next_region, size))
        self.next_region += 1
        return self.region

    # ---- jobs ---------------------------------------------------------------------------------

    def send_job(self, request, region=0, band=1, max_job_ms=None, attempt=1, tenant=1, ring=True,
                 reserved=b"", **changes):
        """Submit a job; `changes` to its descriptor. Without `ring` the executor is not told yet."""
        job, self.next_job = self.next_job, self.next_job + 1
        limit = self.max_job_ms if max_job_ms is None else max_job_ms
        head = P.pack("vgpu_job", job=job, attempt=attempt, region=region, tenant=tenant,
                      max_job_ms=limit, band=band, reserved=reserved)
        self.jobs.submit(head, request, ring, **changes)
        return job

    def wait_done(self, job=None, limit_s=LIMIT_S):
        completion = self.jobs.collect(limit_s)
        done = P.unpack("vgpu_done", completion.response)
        tail = completion.response[P.size("vgpu_done") :]
        if job is not None:
            assert done.job == job
        assert completion.tag == done.job and completion.error == done.reserved == 0
        response = P.unpack("vgpu_resp_hdr", tail)
        payload = tail[P.size("vgpu_resp_hdr") :]
        assert response.size == len(tail)
        return SimpleNamespace(job=done.job, attempt=done.attempt, error=response.error,
                               response=response, payload=payload,
                               text=payload.decode() if response.payload == P.PAYLOAD_TEXT else "")

    def place(self, op, body, inputs, outputs, tag=7, beside=False, **header):
        """Inputs and outputs in the region, beside what is there or from its start. Returns
        (request, offsets of the outputs)."""
        region = self.region or self.new_region()
        if not beside:
            region.reset()
        bufs = [(P.BUF_ARENA, P.IN, *region.put(a)) for a in inputs]
        offsets = []
        for like in outputs:
            garbage = np.full(like.size * like.itemsize, 0xa5, np.uint8)
            offset, length = region.put(garbage)
            offsets.append(offset)
            bufs.append((P.BUF_ARENA, P.OUT, offset, length))
        return P.request(op, bufs, body, tag=tag, **header), offsets

    def answer(self, op, body, inputs, outputs, band=1, max_job_ms=None, **header):
        request, offsets = self.place(op, body, inputs, outputs, **header)
        job = self.send_job(request, self.region.number, band, max_job_ms)
        result = self.wait_done(job)
        result.outputs = [self.region.get(o, like) for o, like in zip(offsets, outputs)]
        return result

    def run(self, op, body, inputs, outputs, **options):
        before = [np.array(a, copy=True) for a in inputs]
        result = self.answer(op, body, inputs, outputs, **options)
        assert result.error == 0, f"error {result.error}: {result.text}"
        assert result.response.run_ns > 0 and result.response.tag == options.get("tag", 7)
        at = 0
        for a in before:  # inputs must be as they were
            at = (at + 63) // 64 * 64
            raw = np.ascontiguousarray(a).reshape(-1).view(np.uint8)
            assert np.array_equal(self.region.bytes[at : at + raw.size], raw), "an input changed"
            at += raw.size
        return result.outputs

# SPDX-License-Identifier: MIT
"""A real vgpu-mediator between stubs and workers that the tests play.

    with MediatorRig(tmp_path, vms=["a"]) as m, m.worker("w0") as w, m.stub("a") as s:
        s.request(P.request("ECHO", ...), inputs={0: b"..."})    # REQUEST and its DATA
        job = w.job()                                            # what the executor got
        w.done(job, outputs={1: b"..."})                         # writes to the region, completes
        answer = s.answer()                                      # DATA collected, response parsed

Waits have generous limits and end as soon as what they wait for is there.
"""

import contextlib
import json
import mmap
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

from local_proto import P
from ring import RingDevice
from worker_rig import BIN, LIMIT_S, Gone, Link

ALL_OPS = sum(1 << n for n in P.OP.values() if n >= 16)
ALL_DTYPES = sum(1 << n for n in P.DTYPE.values())
ARENA = 1 << 24
VERSION = P.LOCAL_VERSION_MAX


def wait_for(what, condition, limit_s=LIMIT_S):
    end = time.monotonic() + limit_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"waited {limit_s} s in vain for: {what}"
        time.sleep(0.01)


def connect(path, kind=socket.SOCK_SEQPACKET):
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        sock.connect(str(path))
    except OSError:
        sock.close()
        raise
    return sock


def echo(data, flags=0, inline=True, **header):
    """(request, inputs): an echo of bytes, through the request itself or the arena."""
    if inline:
        at = P.inline_at(2)
        bufs = [(P.BUF_INLINE, P.IN, at, len(data)), (P.BUF_INLINE, P.OUT, 0, len(data))]
        return P.request("ECHO", bufs, inline=data, flags=flags, **header), {}
    bufs = [(P.BUF_ARENA, P.IN, 0, len(data)),
            (P.BUF_ARENA, P.OUT, (len(data) + 63) // 64 * 64, len(data))]
    return P.request("ECHO", bufs, flags=flags, **header), {0: data}


class FakeStub(Link):
    """The device's side of a VM socket."""

    def __init__(self, path, boot_id=1, epoch=0, hello=True, **fields):
        super().__init__(connect(path))
        self.boot_id, self.epoch, self.seq, self.fields = boot_id, epoch, 0, fields
        if hello:
            self.hello()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def say(self, name, tail=b"", **values):
        self.send(name, tail=tail, epoch=self.epoch, **values)

    def send_hello(self, **fields):
        values = dict(version_min=VERSION, version_max=VERSION, boot_id=self.boot_id, arena_size=ARENA,
                      conn_gen=1, band_wish=P.BAND_DEFAULT)
        values.update(self.fields)
        values.update(fields)
        self.say("HELLO", **values)

    def hello(self, **fields):
        self.send_hello(**fields)
        self.ack = self.wait("HELLO_ACK").fields
        return self.ack

    def request(self, request, inputs=None, seq=None, flags=0, deadline_ms=60000, chunk=None):
        """REQUEST and the DATA of its inputs. Returns its sequence number."""
        if seq is None:
            self.seq += 1
            seq = self.seq
        else:
            self.seq = max(self.seq, seq)
        self.say("REQUEST", tail=request, seq=seq, flags=flags, deadline_left_ms=deadline_ms)
        chunk = chunk or P.DATA_CHUNK
        for buffer, data in (inputs or {}).items():
            for offset in range(0, len(data), chunk):
                self.say("DATA", tail=data[offset : offset + chunk], seq=seq, buffer=buffer,
                         offset=offset)
        return seq

    def answer(self, seq=None, limit_s=LIMIT_S):
        """The next answer: response header, payload or text, outputs by buffer, whether ACCEPT came."""
        result = SimpleNamespace(accepted=False, outputs={})
        while True:
            message = self.wait("ACCEPT", "DATA", "RESPONSE", "STATE", limit_s=limit_s)
            if message.name == "STATE":
                continue
            if seq is not None:
                assert message.fields.seq == seq
            if message.name == "ACCEPT":
                result.accepted = True
            elif message.name == "DATA":
                have = result.outputs.setdefault(message.fields.buffer, bytearray())
                assert message.fields.offset == len(have), "DATA out of order"
                have += message.tail
            else:
                break
        result.seq = message.fields.seq
        result.hdr = P.unpack("vgpu_resp_hdr", message.tail)
        result.error = result.hdr.error
        result.payload = message.tail[P.size("vgpu_resp_hdr") :]
        result.text = result.payload.decode() if result.hdr.payload == P.PAYLOAD_TEXT else ""
        assert result.hdr.size == len(message.tail) and result.hdr.seq == result.seq
        return result


class ExecRing:
    """An executor's end of its job ring."""

    def __init__(self, message):
        f, (memory, self.kick, self.call) = message.fields, message.fds
        self.memory = mmap.mmap(memory, f.size)
        os.close(memory)
        self.ring = RingDevice(self.memory, 0, f.entries, f.slot_bytes)
        self.fields = f

    def complete(self, desc, data, ring=True, **changes):
        """Respond to a descriptor; `changes` to the completion."""
        values = dict(tag=desc.tag, slot=desc.slot, length=len(data), error=0)
        values.update(changes)
        self.ring.respond(desc.slot, data)
        self.ring.complete(SimpleNamespace(tag=values["tag"], slot=values["slot"]), 0,
                           values["length"], values["error"])
        if ring:
            self.publish()

    def publish(self):
        if self.ring.publish():
            os.eventfd_write(self.call, 1)

    def close(self):
        for fd in (self.kick, self.call):
            os.close(fd)


class FakeWorker:
    """A supervisor and its executor."""

    def __init__(self, path, name="w0", heartbeat_s=0.05, executor=True, **fields):
        self.link = Link(connect(path))
        self.heartbeat_s, self.executors, self.regions = heartbeat_s, 0, {}
        self.channel, self.ring, self.writers, self.rings, self.refused = None, None, {}, [], set()
        self.silent, self.ended = threading.Event(), threading.Event()
        self.register(name, **fields)
        threading.Thread(target=self._beat, daemon=True).start()
        if executor:
            self.new_executor()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self.ended.set()
        self.link.close()
        if self.channel:
            self.channel.close()
        for mapping in self.regions.values():
            mapping.close()
        for ring in self.rings:
            ring.close()
        for fd in self.writers.values():
            os.close(fd)
        self.writers, self.rings = {}, []

    def register(self, name, **fields):
        values = dict(version_min=VERSION, version_max=VERSION, depth=1, ops=ALL_OPS, dtypes=ALL_DTYPES,
                      boot_id=int.from_bytes(os.urandom(4), "little"), name=name, backend="fake",
                      device="a test")
        values.update(fields)
        self.link.send("REGISTER", **values)
        self.ack = self.link.wait("REGISTER_ACK").fields
        self.name = name

    def _beat(self):
        with contextlib.suppress(OSError):
            while not self.ended.wait(self.heartbeat_s):
                if not self.silent.is_set():
                    self.link.send("HEARTBEAT", progress=1)
                    if self.channel:
                        self.channel.send("HEARTBEAT", progress=1)

    def new_executor(self, pid=None):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.executors += 1
        self.link.send("EXECUTOR", executor=self.executors, pid=pid or os.getpid(),
                       fds=[theirs.fileno()])
        theirs.close()
        self.channel, self.ring = Link(ours), None
        with contextlib.suppress(Gone):  # when it is not accepted
            self.ring = ExecRing(self.channel.wait("RING"))
            self.rings.append(self.ring)
        return self.channel

    def gone(self, status=9, text=b"", executor=None):
        """The executor was reaped: its channel closes and EXECUTOR_GONE is sent."""
        self.channel.close()
        self.channel = None
        self.link.send("EXECUTOR_GONE", tail=text, executor=executor or self.executors,
                       status=status)

    def _take_region(self, message):
        f = message.fields
        self.regions[f.region] = mmap.mmap(message.fds[0], f.size, offset=f.offset)
        os.close(message.fds[0])
        if len(message.fds) > 1:
            self.writers[f.region] = message.fds[1]

    def _drop_region(self, region):
        self.regions.pop(region).close()
        if region in self.writers:
            os.close(self.writers.pop(region))
        self.channel.send("DETACHED", region=region)

    def serve_message(self, limit_s=LIMIT_S):
        """One message of the channel: regions come and go."""
        message = self.channel.wait("ATTACH", "DETACH", "JOB_CANCEL", limit_s=limit_s)
        if message.name == "ATTACH":
            self._take_region(message)
        elif message.name == "DETACH":
            self._drop_region(message.fields.region)

    def refuse_region(self):
        """Wait for ATTACH and say that it cannot be mapped."""
        message = self.channel.wait("ATTACH")
        for fd in message.fds:
            os.close(fd)
        self.refused.add(message.fields.region)
        self.channel.send("DETACHED", region=message.fields.region)

    def _next_desc(self, limit_s):
        end = time.monotonic() + limit_s
        ring = self.ring
        while True:
            desc = ring.ring.take()
            if desc:
                return desc
            if ring.ring.arm():
                continue
            ready = select.select([ring.kick, self.channel.sock], [], [],
                                  max(end - time.monotonic(), 0))[0]
            if not ready:
                raise TimeoutError("no job within the limit")
            if ring.kick in ready:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(ring.kick)
            else:
                message = self.channel.receive()
                if message.name == "ATTACH":
                    self._take_region(message)
                elif message.name == "DETACH":
                    self._drop_region(message.fields.region)

    def job(self, limit_s=LIMIT_S):
        """The next job: fields, the request, its buffers; regions are mapped on the way."""
        desc = self._next_desc(limit_s)
        f = P.unpack("vgpu_job", desc.request)
        request = desc.request[P.size("vgpu_job") :]
        assert desc.tag == f.job
        while f.region and f.region not in self.regions and f.region not in self.refused:
            self.serve_message(limit_s)
        return SimpleNamespace(id=f.job, attempt=f.attempt, region=f.region, fields=f, desc=desc,
                               ring=self.ring, request=request, bufs=P.buffers(request),
                               hdr=P.unpack("vgpu_req_hdr", request))

    def cancelled(self, job, limit_s=LIMIT_S):
        """Wait for JOB_CANCEL of this job."""
        message = self.channel.wait("JOB_CANCEL", limit_s=limit_s)
        assert (message.fields.job, message.fields.attempt) == (job.id, job.attempt)

    def input(self, job, index):
        b = job.bufs[index]
        if b.kind == P.BUF_INLINE:
            return job.request[b.offset : b.offset + b.length]
        return self.regions[job.region][b.offset : b.offset + b.length]

    def write(self, job, index, data):
        b = job.bufs[index]
        assert len(data) <= b.length
        self.regions[job.region][b.offset : b.offset + len(data)] = data

    def serve_echo(self):
        """Answer every echo from a thread until the connection ends."""
        def serve():
            with contextlib.suppress(OSError, Gone, TimeoutError, ValueError):
                while not self.ended.is_set():
                    job = self.job()
                    if job.hdr.op == P.OP["ECHO"] and [b.dir for b in job.bufs] == [P.IN, P.OUT]:
                        self.do_echo(job)
                    else:
                        self.done(job, error=P.E["BAD_REQUEST"])

        threading.Thread(target=serve, daemon=True).start()

    def done(self, job, error=0, payload=b"", outputs=None, run_ns=1000, **header):
        for index, data in (outputs or {}).items():
            self.write(job, index, data)
        response = P.response(job.request, 0, error=error, payload=payload, run_ns=run_ns, **header)
        self.complete(job, response)

    @staticmethod
    def complete(job, response, ring=True, job_id=None, attempt=None, reserved=0, **changes):
        """A completion with any bytes as its response."""
        done = P.pack("vgpu_done", job=job.id if job_id is None else job_id, reserved=reserved,
                      attempt=job.attempt if attempt is None else attempt)
        job.ring.complete(job.desc, done + response, ring, **changes)

    def do_echo(self, job):
        """Answer an echo as a worker would."""
        data = self.input(job, 0)
        if job.bufs[1].kind == P.BUF_INLINE:
            self.done(job, payload=data)
        else:
            self.done(job, outputs={1: data})


class MediatorRig:
    """The process, its pool file and its sockets."""

    def __init__(self, log_dir, vms=("a",), yaml=None, mediator="heartbeat: 100ms", start=True,
                 arguments=()):
        self.log_path = Path(log_dir) / "mediator.log"
        self.run_dir = Path(tempfile.mkdtemp(prefix="vgpu-"))  # short: sockets have short names
        self.pool_file = self.run_dir / "pool.yaml"
        self.arguments, self.process, self.autostart = arguments, None, start
        self.write_pool(yaml or self.plain_pool(vms, mediator))

    @staticmethod
    def plain_pool(vms, mediator="heartbeat: 100ms", tenant="", pool="", vm=""):
        def block(text, indent):
            return "".join(" " * indent + line + "\n" for line in text.splitlines())

        return ("version: 1\nmediator:\n" + block(mediator, 2) +
                "pools:\n  - name: main\n    id: 7\n" + block(pool, 4) +
                "tenants:\n  - name: t\n" + block(tenant, 4) + "vms:\n" +
                "".join(f"  - name: {v}\n    tenant: t\n" + block(vm, 4) for v in vms))

    def write_pool(self, text):
        self.pool_file.write_text(text)

    def __enter__(self):
        if self.autostart:
            self.start()
        return self

    def __exit__(self, *exc):
        status = self.stop()
        log = self.log()
        shutil.rmtree(self.run_dir, ignore_errors=True)
        if exc[0]:
            print("mediator's log:\n" + log[-8000:])
            return
        assert status in (None, 0), f"the mediator ended with {status}:\n{log[-8000:]}"
        assert "fault:" not in log and "Sanitizer" not in log, log[-8000:]

    def start(self, ready=True):
        self.started_at = len(self.log())
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [str(BIN / "vgpu-mediator"), "--config", str(self.pool_file), "--run-dir",
                 str(self.run_dir), "--log-level", "debug", *self.arguments],
                stdin=subprocess.DEVNULL, stderr=log)
        if ready:
            wait_for("the mediator is ready", self._is_ready)

    def _is_ready(self):
        assert self.process.poll() is None, self.log()
        return any(word in self.log()[self.started_at :] for word in ("info ready", '"ready"'))

    def stop(self, number=signal.SIGTERM):
        """End it by a signal (twice if once is not enough). Returns its status."""
        if not self.process or self.process.poll() is not None:
            return self.process and self.process.returncode
        self.process.send_signal(number)
        try:
            return self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.send_signal(number)
        return self.process.wait(LIMIT_S)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process = None

    def reload(self, text):
        """Write another pool file and have it read. Returns what was logged meanwhile."""
        before = len(self.log())
        self.write_pool(text)
        self.process.send_signal(signal.SIGHUP)
        wait_for("the reload", lambda: any(w in self.log()[before:] for w in
                                           ("info reloaded", "error reloaded", "reload refused")))
        return self.log()[before:]

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def wait_log(self, text):
        wait_for(f"'{text}' in the log", lambda: text in self.log())

    def socket(self, vm):
        return self.run_dir / vm / "vgpu.sock"

    def stub(self, vm="a", **fields):
        return FakeStub(self.socket(vm), **fields)

    def worker(self, name="w0", **fields):
        return FakeWorker(self.run_dir / "worker.sock", name, **fields)

    def ask(self, command, **arguments):
        """A question to the admin socket."""
        with connect(self.run_dir / "admin.sock", socket.SOCK_STREAM) as sock:
            sock.settimeout(LIMIT_S)
            sock.sendall(json.dumps(dict(command=command, **arguments)).encode() + b"\n")
            with sock.makefile("rb") as lines:
                return json.loads(lines.readline())

    def view(self, command, key, name):
        """One row of an answer: the one whose `key` is `name`."""
        rows = [r for r in self.ask(command)[command] if r[key] == name]
        return rows[0] if rows else None


__all__ = ["ALL_OPS", "ARENA", "BIN", "ExecRing", "FakeStub", "FakeWorker", "Gone", "LIMIT_S", "Link",
           "MediatorRig", "P", "VERSION", "connect", "echo",
           "wait_for"]

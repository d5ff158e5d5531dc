# SPDX-License-Identifier: MIT
"""A mediator for tests of the stub: listens on a VM socket and does exactly what it is told.

    m = FakeMediator(path); m.hello(gen=1)          accept, take HELLO, answer HELLO_ACK
    request = m.request()                           REQUEST with all its ARENA inputs
    m.send("ACCEPT", seq=request.seq); m.answer(request, outputs={1: ...}, payload=b"")

It takes the data path that HELLO offers. On shm it has the descriptors of HELLO (m.fds, by place:
m.shm_fd, m.inflight_fd, m.writers_fd, m.kicks, m.calls) and BAR 2 mapped (m.memory), and inputs and
outputs of requests are there.
"""

import mmap
import os
import select
import socket
import time
from types import SimpleNamespace

from local_proto import P

LIMIT_S = 30.0


class FakeMediator:
    def __init__(self, path, gen=0x1122334455667788):
        self.path, self.gen = str(path), gen
        self.conn = None
        self.epoch = 0
        self.offer, self.fds, self.memory = None, [], None
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(self.path)
        self.listener.listen(4)

    def close(self):
        self.drop()
        self.listener.close()

    def drop(self):
        """End the connection, and on shm let go of the memory."""
        self.hang_up()
        self.let_go()

    def hang_up(self):
        if self.conn:
            self.conn.close()
            self.conn = None

    def let_go(self):
        if self.memory:
            self.memory.close()
            self.memory = None
        for fd in self.fds:
            os.close(fd)
        self.fds = []

    def accept(self):
        self.listener.settimeout(LIMIT_S)
        self.conn, _ = self.listener.accept()
        self.conn.settimeout(LIMIT_S)

    def hello(self, **ack):
        """Accept a connection and welcome it. Return: the fields of HELLO."""
        self.accept()
        hello, _ = self.expect("HELLO")
        self.welcome(hello, **ack)
        return hello

    def welcome(self, hello, **ack):
        self.epoch = hello.msg.epoch
        values = dict(version=P.LOCAL_VERSION_MAX, vm_id=7, pool_id=3, band=P.BAND_NORMAL, up=1,
                      mediator_gen=self.gen, max_bytes=1 << 30, deadline_ms=60000,
                      features=hello.features)
        values.update(ack)
        self.send("HELLO_ACK", **values)

    def _take_offer(self, hello, fds):
        """Keep what came with HELLO; a connection has one."""
        self.let_go()
        self.offer, self.fds = hello, fds
        if hello.features & P.LOCAL_FEATURE_SHM:
            assert len(fds) == 3 + 2 * hello.rings, f"{len(fds)} descriptors for {hello.rings} rings"
            self.memory = mmap.mmap(self.shm_fd, hello.shm_size)
        else:
            assert not fds

    shm_fd = property(lambda self: self.fds[P.HELLO_FD_SHM])
    inflight_fd = property(lambda self: self.fds[P.HELLO_FD_INFLIGHT])
    writers_fd = property(lambda self: self.fds[P.HELLO_FD_WRITERS])
    kicks = property(lambda self: self.fds[3 : 3 + self.offer.rings])
    calls = property(lambda self: self.fds[3 + self.offer.rings :])

    def arena(self, offset, length):
        at = self.offer.arena_offset + offset
        return bytes(self.memory[at : at + length])

    def arena_write(self, offset, data):
        at = self.offer.arena_offset + offset
        self.memory[at : at + len(data)] = data

    def kicked(self, ring):
        """How often doorbell `ring` was rung since the last look."""
        try:
            return int.from_bytes(os.read(self.kicks[ring], 8), "little")
        except BlockingIOError:
            return 0

    def call(self, ring):
        os.write(self.calls[ring], (1).to_bytes(8, "little"))

    # ---- messages ---------------------------------------------------------------------------

    def send_raw(self, data):
        self.conn.send(data)

    def send(self, name, epoch=None, tail=b"", **values):
        self.send_raw(P.message(name, epoch=self.epoch if epoch is None else epoch, tail=tail,
                                **values))

    def receive(self):
        """(name, fields, tail) of the next message."""
        data, fds, _, _ = socket.recv_fds(self.conn, P.MSG_MAX + 1, 253)
        assert data, "the stub closed the connection"
        name, fields, tail = P.parse(data)
        if name == "HELLO":
            self._take_offer(fields, fds)
        else:
            assert not fds, f"{name} carries descriptors"
        return name, fields, tail

    def expect(self, name):
        got, fields, tail = self.receive()
        assert got == name, f"{got} instead of {name}"
        return fields, tail

    def silent(self, seconds):
        """Whether nothing comes for so long."""
        return not select.select([self.conn], [], [], seconds)[0]

    def closed_by_stub(self):
        """Whether the stub closes the connection; what it still says is dropped."""
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end:
            try:
                if not self.conn.recv(P.MSG_MAX + 1):
                    return True
            except ConnectionError:
                return True
            except socket.timeout:
                return False
        return False

    # ---- requests ---------------------------------------------------------------------------

    def request(self):
        """The next request: seq, flags, deadline_left_ms, bytes, bufs, inputs (by buffer index)."""
        fields, data = self.expect("REQUEST")
        bufs = P.buffers(data)
        inputs = {i: self._input(fields.seq, i, b) for i, b in enumerate(bufs)
                  if b.kind == P.BUF_ARENA and b.dir == P.BUF_IN}
        return SimpleNamespace(seq=fields.seq, flags=fields.flags, epoch=fields.msg.epoch,
                               deadline_left_ms=fields.deadline_left_ms, bytes=data, bufs=bufs,
                               inputs=inputs)

    def _input(self, seq, index, buf):
        if self.memory:
            return self.arena(buf.offset, buf.length)
        got, length = bytearray(), buf.length
        while len(got) < length:
            fields, tail = self.expect("DATA")
            assert (fields.seq, fields.buffer, fields.offset) == (seq, index, len(got))
            assert 0 < len(tail) <= P.DATA_CHUNK
            got += tail
        assert len(got) == length, "DATA goes past the end of its buffer"
        return bytes(got)

    def send_output(self, seq, index, data):
        for offset in range(0, len(data), P.DATA_CHUNK):
            self.send("DATA", seq=seq, buffer=index, offset=offset,
                      tail=data[offset : offset + P.DATA_CHUNK])

    def answer_in_memory(self, request, outputs):
        for index, data in outputs.items():
            self.arena_write(request.bufs[index].offset, data)

    def answer(self, request, outputs=None, payload=b"", error=0, **header):
        if self.memory:
            self.answer_in_memory(request, outputs or {})
        else:
            for index, data in sorted((outputs or {}).items()):
                self.send_output(request.seq, index, data)
        self.send("RESPONSE", seq=request.seq,
                  tail=P.response(request.bytes, request.seq, error=error, payload=payload, **header))

    def serve_echo(self):
        """Accept the next request and echo its one input to its one output."""
        request = self.request()
        self.send("ACCEPT", seq=request.seq)
        source, sink = request.bufs
        if source.kind == P.BUF_INLINE:
            data = request.bytes[source.offset : source.offset + source.length]
        else:
            data = request.inputs[0]
        if sink.kind == P.BUF_INLINE:
            self.answer(request, payload=bytes(sink.offset) + data)
        else:
            self.answer(request, outputs={1: data})
        return request

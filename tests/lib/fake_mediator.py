# SPDX-License-Identifier: MIT
"""A mediator for tests of the stub: listens on a VM socket and does exactly what it is told.

    m = FakeMediator(path); m.hello(gen=1)          accept, take HELLO, answer HELLO_ACK
    request = m.request()                           REQUEST with all its ARENA inputs
    m.send("ACCEPT", seq=request.seq); m.answer(request, outputs=[...], payload=b"")
"""

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
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(self.path)
        self.listener.listen(4)

    def close(self):
        self.drop()
        self.listener.close()

    def drop(self):
        if self.conn:
            self.conn.close()
            self.conn = None

    def accept(self):
        self.listener.settimeout(LIMIT_S)
        self.conn, _ = self.listener.accept()
        self.conn.settimeout(LIMIT_S)

    def hello(self, **ack):
        """Accept a connection and welcome it. Return: the fields of HELLO."""
        self.accept()
        name, hello, _ = self.receive()
        assert name == "HELLO", name
        self.epoch = hello.msg.epoch
        values = dict(version=1, vm_id=7, pool_id=3, band=P.BAND_NORMAL, up=1, mediator_gen=self.gen,
                      max_bytes=1 << 30, deadline_ms=60000)
        values.update(ack)
        self.send("HELLO_ACK", **values)
        return hello

    # ---- messages ---------------------------------------------------------------------------

    def send_raw(self, data):
        self.conn.send(data)

    def send(self, name, epoch=None, tail=b"", **values):
        self.send_raw(P.message(name, epoch=self.epoch if epoch is None else epoch, tail=tail,
                                **values))

    def receive(self):
        """(name, fields, tail) of the next message."""
        data = self.conn.recv(P.MSG_MAX + 1)
        assert data, "the stub closed the connection"
        return P.parse(data)

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
        inputs = {i: self._input(fields.seq, i, b.length) for i, b in enumerate(bufs)
                  if b.kind == P.BUF_ARENA and b.dir == P.BUF_IN}
        return SimpleNamespace(seq=fields.seq, flags=fields.flags, epoch=fields.msg.epoch,
                               deadline_left_ms=fields.deadline_left_ms, bytes=data, bufs=bufs,
                               inputs=inputs)

    def _input(self, seq, index, length):
        got = bytearray()
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

    def answer(self, request, outputs=None, payload=b"", error=0, **header):
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

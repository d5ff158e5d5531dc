# SPDX-License-Identifier: MIT
"""Fixtures for tests of the device: a QEMU with one vgpu-stub, and a mediator that does as told."""

import pytest

from fake_mediator import FakeMediator
from local_proto import P
from qtest import LIMIT_S, Qemu, VgpuDevice, wait_for

UUID = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
ARENA = P.BUF_ARENA
INLINE = P.BUF_INLINE
IN, OUT = P.BUF_IN, P.BUF_OUT


class Rig:
    """What a test works with: vm, dev, path of the VM socket, and mediators made on demand."""

    def __init__(self, tmp, machine="q35", options="", datapath="shm", plugged=True, more=(), **kwargs):
        self.tmp = tmp
        self.datapath = datapath
        self.path = tmp / "vgpu.sock"
        self.mediators = []
        self.device_args = (f"vgpu-stub,id=vgpu0,socket={self.path},reconnect-ms=100,"
                            f"datapath={datapath}{options}")
        device = ["-device", self.device_args] if plugged else []
        self.vm = Qemu(tmp, ["-uuid", UUID, *device, *more], machine=machine, **kwargs)
        self.dev = VgpuDevice(self.vm) if plugged else None

    def mediator(self, **kwargs):
        """A listening mediator; one that was there before is gone."""
        for old in self.mediators:
            old.close()
        self.path.unlink(missing_ok=True)
        self.mediators.append(FakeMediator(self.path, **kwargs))
        return self.mediators[-1]

    def connected(self, **ack):
        """A mediator that has welcomed the device."""
        m = self.mediator()
        m.hello(**ack)
        wait_for("BACKEND_UP", lambda: self.dev.up() == bool(ack.get("up", 1)))
        return m

    @property
    def shm(self):
        return self.datapath == "shm"

    def wait_state(self, name):
        wait_for(f"STATUS {name}", lambda: self.dev.state() == getattr(P, "STATUS_" + name))

    def close(self):
        for m in self.mediators:
            m.close()
        self.vm.close()


def on(*datapaths):
    """Runs a test that takes `rig` on these data paths only."""
    return pytest.mark.parametrize("rig", datapaths, indirect=True)


@pytest.fixture(params=["shm", "socket"])
def rig(tmp_path, request):
    r = Rig(tmp_path, datapath=request.param)
    yield r
    r.close()
    assert "Assertion" not in r.vm.output()


def echo_inline(data, tag=0, **header):
    at = P.inline_at(2)
    padded = data + bytes(-len(data) % 8)
    bufs = [(INLINE, IN, at, len(data)), (INLINE, OUT, 0, len(data))]
    return P.request("ECHO", bufs, inline=padded, tag=tag, **header)


def echo_arena(length, source=0, sink=None, tag=0, **header):
    sink = (source + length + 63) // 64 * 64 if sink is None else sink
    bufs = [(ARENA, IN, source, length), (ARENA, OUT, sink, length)]
    return P.request("ECHO", bufs, tag=tag, **header)


__all__ = ["ARENA", "IN", "INLINE", "LIMIT_S", "OUT", "P", "Rig", "UUID", "VgpuDevice", "echo_arena",
           "echo_inline", "on", "rig", "wait_for"]

# SPDX-License-Identifier: MIT
"""The device with the real mediator and worker behind it; the guest is played through qtest."""

import json
import os
import signal
import struct
import subprocess

import pytest

from qtest import Qemu
from stub_rig import *  # noqa: F403

BIN = os.environ.get("VGPU_BIN", "")
POOL = """
version: 1
pools:
  - name: main
    id: 1
tenants:
  - name: alpine
vms:
  - name: vm-a
    tenant: alpine
    pools: [main]
    band: normal
"""


class Stack(Rig):
    """A Rig whose mediators are real: start_mediator(), start_worker()."""

    def __init__(self, tmp):
        self.run = tmp / "run"
        self.run.mkdir()
        (tmp / "pool.yaml").write_text(POOL)
        self.processes, self.logs = [], tmp
        super().__init__(tmp, options=f",socket={self.run}/vm-a/vgpu.sock")

    def start(self, name, *args):
        with (self.logs / f"{name}.log").open("ab") as log:
            self.processes.append(subprocess.Popen([f"{BIN}/{name}", "--run-dir", str(self.run), *args],
                                                   stdout=log, stderr=log))
        return self.processes[-1]

    def start_mediator(self):
        process = self.start("vgpu-mediator", "--config", str(self.tmp / "pool.yaml"))
        wait_for("BACKEND_UP", self.dev.up)
        return process

    def start_worker(self, name="w0"):
        return self.start("vgpu-worker", "--name", name, "--backend", "cpu", "--threads", "1")

    def ask(self, command):
        """What vgpuctl says, as rows."""
        done = subprocess.run([f"{BIN}/vgpuctl", "--admin", str(self.run / "admin.sock"), command, "--json"],
                              capture_output=True, text=True, timeout=LIMIT_S)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)[command]

    def close(self):
        for process in self.processes:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.processes:
            try:
                process.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
        super().close()


@pytest.fixture
def stack(tmp_path):
    if not os.access(f"{BIN}/vgpu-mediator", os.X_OK) or not os.access(f"{BIN}/vgpu-worker", os.X_OK):
        pytest.fail(f"vgpu-mediator and vgpu-worker are not built in '{BIN}' (VGPU_BIN)")
    s = Stack(tmp_path)
    yield s
    s.close()


def test_inline_and_bulk_echo(stack):
    stack.start_mediator()
    stack.start_worker()
    stack.dev.submit(echo_inline(b"through all of it", tag=5))
    error, response = stack.dev.wait_end()
    assert error == 0, response
    assert response[P.size("vgpu_resp_hdr") :].startswith(b"through all of it")
    assert P.unpack("vgpu_resp_hdr", response).worker != 0
    data = os.urandom(5 * (1 << 20) + 3)
    stack.vm.write(stack.dev.arena, data)
    stack.dev.submit(echo_arena(len(data)))
    error, response = stack.dev.wait_end()
    assert error == 0, response
    sink = (len(data) + 63) // 64 * 64
    assert stack.vm.read(stack.dev.arena + sink, len(data)) == data


def test_a_sum_and_an_error_with_its_reason(stack):
    stack.start_mediator()
    stack.start_worker()
    values = [1.5, 2.25, -4.0, 1e6]
    body = P.pack("vgpu_reduce", dtype=P.DTYPE["F64"], kind=P.REDUCE_SUM, n=4, stride=1)
    at = P.inline_at(2, len(body))
    bufs = [(INLINE, IN, at, 32), (INLINE, OUT, 0, 8)]
    inline = struct.pack("<4d", *values)
    stack.dev.submit(P.request("REDUCE", bufs, body=body, inline=inline))
    error, response = stack.dev.wait_end()
    assert error == 0, response
    assert struct.unpack("<d", response[-8:])[0] == sum(values)
    stack.dev.submit(P.request("REDUCE", bufs, body=body.replace(bytes([P.DTYPE["F64"]]), b"\x63", 1),
                               inline=inline))
    error, response = stack.dev.wait_end()
    assert error != 0 and len(response) > P.size("vgpu_resp_hdr")


def test_a_mediator_killed_again_and_again(stack):
    """Requests before, during and after: each gets its answer, the guest does nothing special."""
    mediator = stack.start_mediator()
    stack.start_worker()
    for round_ in range(3):
        data = os.urandom(1 << 20)
        stack.vm.write(stack.dev.arena, data)
        stack.dev.submit(echo_arena(len(data), sink=1 << 21, tag=round_))
        mediator.kill()
        mediator.wait()
        mediator = stack.start_mediator()
        error, response = stack.dev.wait_end()
        assert error == 0, response
        assert stack.vm.read(stack.dev.arena + (1 << 21), len(data)) == data


def test_cancel_and_reset_while_a_job_waits(stack):
    stack.start_mediator()  # no worker: requests wait in the mediator's queue
    stack.dev.submit(echo_inline(b"cancel me"))
    stack.dev.write_reg("CONTROL", P.CONTROL_CANCEL)
    assert stack.dev.wait_end()[0] == P.E["CANCELLED"]
    stack.dev.submit(echo_inline(b"reset me"))
    stack.dev.write_reg("CONTROL", P.CONTROL_RESET)
    wait_for("the reset ends", lambda: stack.dev.reg("STATUS") == P.STATUS_BACKEND_UP)
    stack.start_worker()
    stack.dev.submit(echo_inline(b"new life"))
    assert stack.dev.wait_end()[0] == 0
    assert stack.dev.reg("REQUEST_ID") == 1


def test_a_deadline_with_no_worker(stack):
    stack.start_mediator()
    stack.dev.submit(echo_inline(b"nobody computes", deadline_ms=400))
    error, response = stack.dev.wait_end()
    assert error in (P.E["NO_WORKER"], P.E["DEADLINE"]), response


def test_cancelling_half_way_through_the_inputs(stack):
    """The mediator has half of the inputs when CANCEL and the next request arrive."""
    stack.start_mediator()
    stack.start_worker()
    for i in range(10):
        stack.dev.submit(echo_arena(24 << 20, tag=i))
        stack.dev.write_reg("CONTROL", P.CONTROL_CANCEL)
        assert stack.dev.wait_end()[0] == P.E["CANCELLED"]
        stack.dev.submit(echo_inline(b"next", tag=100 + i))
        assert stack.dev.wait_end()[0] == 0
    assert stack.dev.up()


def test_a_stopped_worker_that_goes_on_does_not_change_what_the_guest_reuses(stack):
    """SIGSTOP while the result is written, the answer from elsewhere, the buffer in use again, SIGCONT."""
    with (stack.tmp / "pool.yaml").open("a") as pool:
        pool.write("mediator: {heartbeat: 500ms}\n")
    side, sink = 1000, 1 << 20
    flat = b"\x64" * (side * side)  # a flat picture: denoising it changes nothing
    body = P.pack("vgpu_denoise", dtype=P.DTYPE["U8"], channels=1, patch=2, search=16, sigma=1.0, h=10.0,
                  width=side, height=side, stride=side, w=side, h_out=side)
    bufs = [(ARENA, IN, 0, len(flat)), (ARENA, OUT, sink, len(flat))]
    stack.start_mediator()
    supervisors = {name: stack.start_worker(name) for name in ("w0", "w1")}
    stack.vm.write(stack.dev.arena, flat)
    stack.dev.submit(P.request("DENOISE", bufs, body=body))
    busy = wait_for("it runs", lambda: next((w for w in stack.ask("workers") if w["running"]), None))
    supervisor, executor = supervisors[busy["worker"]], busy["executor_pid"]
    supervisor.send_signal(signal.SIGSTOP)
    os.kill(executor, signal.SIGSTOP)
    error, response = stack.dev.wait_end()
    assert error == 0, response
    assert P.unpack("vgpu_resp_hdr", response).attempts == 2
    assert stack.vm.read(stack.dev.arena + sink, len(flat)) == flat
    assert stack.ask("vms")[0]["lingering"] == 1

    mine = os.urandom(len(flat))
    stack.vm.write(stack.dev.arena + sink, mine)
    os.kill(executor, signal.SIGCONT)
    wait_for("the late try ends", lambda: stack.ask("vms")[0]["lingering"] == 0)
    supervisor.send_signal(signal.SIGCONT)
    stack.dev.submit(echo_inline(b"all that was sent before is read now"))
    assert stack.dev.wait_end()[0] == 0
    assert stack.vm.read(stack.dev.arena + sink, len(mine)) == mine


def test_a_second_qemu_on_the_socket_is_refused_and_the_first_is_not_disturbed(stack, tmp_path):
    stack.start_mediator()
    stack.start_worker()
    other = tmp_path / "other"
    other.mkdir()
    with Qemu(other, ["-device", stack.device_args]) as second:
        wait_for("it is refused", lambda: "is connected already" in second.output())
        intruder = VgpuDevice(second)
        intruder.submit(echo_inline(b"let me in", deadline_ms=300))
        assert intruder.wait_end()[0] == P.E["NO_BACKEND"] and not intruder.up()
        stack.dev.submit(echo_inline(b"not disturbed"))
        error, response = stack.dev.wait_end()
        assert error == 0 and response.endswith(b"not disturbed"), response

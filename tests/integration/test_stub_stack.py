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
from test_stub_hotplug import migrate, plug_into, unplug

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

    def __init__(self, tmp, **kwargs):
        self.run = tmp / "run"
        self.run.mkdir()
        (tmp / "pool.yaml").write_text(POOL)
        self.processes, self.logs = [], tmp
        self.socket = f"{self.run}/vm-a/vgpu.sock"
        super().__init__(tmp, options=f",socket={self.socket}", **kwargs)

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


@pytest.fixture(params=["shm", "socket"])
def stack(tmp_path, request):
    if not os.access(f"{BIN}/vgpu-mediator", os.X_OK) or not os.access(f"{BIN}/vgpu-worker", os.X_OK):
        pytest.fail(f"vgpu-mediator and vgpu-worker are not built in '{BIN}' (VGPU_BIN)")
    s = Stack(tmp_path, datapath=request.param)
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


class Ring:
    """A ring's driver in the guest, as slow and as simple as can be: slot n is request n."""

    def __init__(self, rig, number):
        self.vm, self.dev, self.number = rig.vm, rig.dev, number
        reg = rig.dev.reg
        self.base = rig.dev.BAR2 + reg("RING_OFFSET") + number * reg("RING_STRIDE")
        self.entries, self.slot_bytes = reg("RING_ENTRIES"), reg("SLOT_BYTES")
        self.completions = self.base + 2 * P.RING_PAGE + 64 * self.entries
        end = self.completions - self.base + 32 * self.entries
        self.slots = self.base + (end + P.RING_PAGE - 1) // P.RING_PAGE * P.RING_PAGE
        self.tail = 0

    def slot(self, number):
        return self.slots + number * (2 * self.slot_bytes + 64)

    def submit(self, request, tag, bell=True):
        slot = self.tail
        self.vm.write(self.slot(slot), request)
        self.vm.write(self.base + 2 * P.RING_PAGE + 64 * slot,
                      P.pack("vgpu_desc", slot=slot, length=len(request), tag=tag))
        self.tail += 1
        self.publish(self.tail, bell)

    def publish(self, tail, bell=True):
        self.vm.store(self.base, tail)
        if bell:
            self.vm.store(self.dev.BAR0 + P.REG["RING_DOORBELL"] + 4 * self.number, 1)

    def completed(self):
        return self.vm.load(self.base + P.RING_PAGE)

    def completion(self, index):
        size = P.size("vgpu_completion")
        done = P.unpack("vgpu_completion", self.vm.read(self.completions + index * size, size))
        return done, self.vm.read(self.slot(done.slot) + self.slot_bytes, done.length)


def reset(stack):
    stack.dev.write_reg("CONTROL", P.CONTROL_RESET)
    wait_for("the reset ends", lambda: stack.dev.reg("STATUS") == P.STATUS_BACKEND_UP)


@pytest.mark.parametrize("stack", ["shm"], indirect=True)
def test_rings_carry_requests_and_their_vectors_tell_of_answers(stack):
    stack.start_mediator()
    stack.start_worker()
    for ring in range(4):
        stack.dev.set_message(1 + ring, 0x200 + ring)
    stack.dev.msix_on()
    for number in (0, 3):
        ring = Ring(stack, number)
        for i in range(5):
            ring.submit(echo_inline(b"request %d" % i, tag=i), tag=100 + i)
            wait_for("the answer", lambda: ring.completed() == i + 1)
            done, response = ring.completion(i)
            assert (done.tag, done.error) == (100 + i, 0) and response.endswith(b"request %d" % i)
            assert done.seq == P.unpack("vgpu_resp_hdr", response).seq == number + 1 << 48 | i + 1
            if i == 0:  # complete_event is 0: the first only
                wait_for("the message", lambda: stack.dev.take_message(1 + number) == 0x200 + number)
    assert stack.dev.take_message(2) == stack.dev.take_message(3) == 0
    data = os.urandom(1 << 20)
    stack.vm.write(stack.dev.arena, data)
    ring.submit(echo_arena(len(data)), tag=7)
    wait_for("the answer", lambda: ring.completed() == 6)
    assert ring.completion(5)[0].error == 0
    assert stack.vm.read(stack.dev.arena + len(data), len(data)) == data


@pytest.mark.parametrize("stack", ["shm"], indirect=True)
def test_what_waits_in_a_ring_survives_mediators_and_ends_with_a_reset(stack):
    ring = Ring(stack, 1)
    ring.submit(echo_inline(b"before all"), tag=1)
    mediator = stack.start_mediator()  # no worker yet
    ring.submit(echo_inline(b"while one is there"), tag=2)
    wait_for("it is taken", lambda: stack.ask("vms")[0]["queued"] == 2)
    mediator.kill()
    mediator.wait()
    ring.submit(echo_inline(b"while none is there"), tag=3)
    stack.start_mediator()
    stack.start_worker()
    wait_for("all are answered", lambda: ring.completed() == 3)
    answers = {done.tag: (done.error, response) for done, response in map(ring.completion, range(3))}
    assert sorted(answers) == [1, 2, 3] and all(error == 0 for error, _ in answers.values())
    assert answers[3][1].endswith(b"while none is there")
    reset(stack)
    assert ring.completed() == 0
    ring = Ring(stack, 1)
    ring.submit(echo_inline(b"new life"), tag=9)
    wait_for("the answer", lambda: ring.completed() == 1)
    assert ring.completion(0)[0].tag == 9


@pytest.mark.parametrize("stack", ["shm"], indirect=True)
def test_a_guest_that_breaks_a_ring_resets_and_goes_on(stack):
    stack.start_mediator()
    stack.start_worker()
    for _ in range(3):
        ring = Ring(stack, 2)
        ring.publish(ring.entries + 1)
        wait_for("BROKEN", lambda: stack.dev.reg("STATUS") & P.STATUS_BROKEN)
        assert stack.vm.load(ring.base + P.RING_PAGE + P.offset("vgpu_ring_device", "flags")) == P.RING_BROKEN
        stack.dev.submit(echo_inline(b"refused"))
        assert stack.dev.reg("REJECT_ERROR") == P.E["BROKEN"]
        reset(stack)
        ring.tail = 0
        ring.submit(echo_inline(b"well again"), tag=1)
        wait_for("the answer", lambda: ring.completed() == 1)
        reset(stack)


@pytest.mark.parametrize("stack", ["shm"], indirect=True)
def test_a_restarted_vm_with_requests_in_flight(stack):
    stack.start_mediator()  # no worker: they wait
    ring = Ring(stack, 0)
    for i in range(10):
        ring.submit(echo_inline(b"lost"), tag=i)
    stack.dev.submit(echo_arena(4096))
    wait_for("all wait", lambda: stack.ask("vms")[0]["queued"] == 11)
    stack.vm.command("system_reset")
    stack.dev.program()
    wait_for("the reset ends", lambda: stack.dev.reg("STATUS") == P.STATUS_BACKEND_UP)
    assert stack.ask("vms")[0]["queued"] == 0
    stack.start_worker()
    ring = Ring(stack, 0)
    ring.submit(echo_inline(b"first of the new life"), tag=99)
    wait_for("the answer", lambda: ring.completed() == 1)
    assert ring.completion(0)[0].tag == 99


SIDE, SINK = 1000, 1 << 20
FLAT = b"\x64" * (SIDE * SIDE)  # a flat picture: denoising it changes nothing


def stop_a_worker_in_its_job(stack):
    """Two workers; the one that has the job is stopped. Return: its supervisor, and its executor's pid."""
    with (stack.tmp / "pool.yaml").open("a") as pool:
        pool.write("mediator: {heartbeat: 500ms}\n")
    body = P.pack("vgpu_denoise", dtype=P.DTYPE["U8"], channels=1, patch=2, search=16, sigma=1.0, h=10.0,
                  width=SIDE, height=SIDE, stride=SIDE, w=SIDE, h_out=SIDE)
    bufs = [(ARENA, IN, 0, len(FLAT)), (ARENA, OUT, SINK, len(FLAT))]
    stack.start_mediator()
    supervisors = {name: stack.start_worker(name) for name in ("w0", "w1")}
    stack.vm.write(stack.dev.arena, FLAT)
    stack.dev.submit(P.request("DENOISE", bufs, body=body))
    busy = wait_for("it runs", lambda: next((w for w in stack.ask("workers") if w["running"]), None))
    supervisors[busy["worker"]].send_signal(signal.SIGSTOP)
    os.kill(busy["executor_pid"], signal.SIGSTOP)
    return supervisors[busy["worker"]], busy["executor_pid"]


@pytest.mark.parametrize("stack", ["socket"], indirect=True)
def test_a_stopped_worker_that_goes_on_does_not_change_what_the_guest_reuses(stack):
    """SIGSTOP while the result is written, the answer from elsewhere, the buffer in use again, SIGCONT."""
    supervisor, executor = stop_a_worker_in_its_job(stack)
    error, response = stack.dev.wait_end()
    assert error == 0, response
    assert P.unpack("vgpu_resp_hdr", response).attempts == 2
    assert stack.vm.read(stack.dev.arena + SINK, len(FLAT)) == FLAT
    assert stack.ask("vms")[0]["lingering"] == 1

    mine = os.urandom(len(FLAT))
    stack.vm.write(stack.dev.arena + SINK, mine)
    os.kill(executor, signal.SIGCONT)
    wait_for("the late try ends", lambda: stack.ask("vms")[0]["lingering"] == 0)
    supervisor.send_signal(signal.SIGCONT)
    stack.dev.submit(echo_inline(b"all that was sent before is read now"))
    assert stack.dev.wait_end()[0] == 0
    assert stack.vm.read(stack.dev.arena + SINK, len(mine)) == mine


@pytest.mark.parametrize("stack", ["shm"], indirect=True)
@pytest.mark.parametrize("ending", ["SIGCONT", "SIGKILL"])
def test_a_stopped_worker_keeps_the_buffer_until_it_can_write_no_more(stack, ending):
    """In place there is no copy to throw away: the other worker's try waits for the end of the first."""
    supervisor, executor = stop_a_worker_in_its_job(stack)
    wait_for("it is lost", lambda: any(w["quarantined"] for w in stack.ask("workers")))
    stack.dev.write_reg("CONTROL", P.CONTROL_RESET)
    wait_for("it resets", lambda: stack.dev.reg("STATUS") & P.STATUS_RESETTING)
    assert stack.dev.reg("STATUS") == P.STATUS_RESETTING
    os.kill(executor, getattr(signal, ending))
    supervisor.send_signal(signal.SIGCONT)
    wait_for("the reset ends", lambda: stack.dev.reg("STATUS") == P.STATUS_BACKEND_UP)
    mine = os.urandom(len(FLAT))
    stack.vm.write(stack.dev.arena + SINK, mine)
    stack.dev.submit(echo_inline(b"new life"))
    assert stack.dev.wait_end()[0] == 0
    assert stack.vm.read(stack.dev.arena + SINK, len(mine)) == mine


@pytest.mark.parametrize("stack", ["shm"], indirect=True)
def test_a_lost_worker_s_job_runs_again_when_it_can_write_no_more(stack):
    supervisor, executor = stop_a_worker_in_its_job(stack)
    wait_for("it is lost", lambda: any(w["quarantined"] for w in stack.ask("workers")))
    assert stack.dev.state() == P.STATUS_BUSY
    os.kill(executor, signal.SIGKILL)
    supervisor.send_signal(signal.SIGCONT)
    error, response = stack.dev.wait_end()
    assert error == 0, response
    assert P.unpack("vgpu_resp_hdr", response).attempts == 2
    assert stack.vm.read(stack.dev.arena + SINK, len(FLAT)) == FLAT


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


@pytest.mark.parametrize("datapath", ["shm", "socket"])
def test_unplug_migrate_plug_between_two_hosts(tmp_path, datapath):
    """Two QEMUs and two mediators, each with its worker; work before, during and after."""
    folders = [tmp_path / name for name in ("here", "there")]
    for folder in folders:
        folder.mkdir()
    incoming = f"unix:{folders[1]}/migrate"
    here = Stack(folders[0], machine="pc", datapath=datapath)
    there = Stack(folders[1], machine="pc", datapath=datapath, plugged=False, more=["-incoming", incoming])
    try:
        for host in (here, there):
            host.start("vgpu-mediator", "--config", str(host.tmp / "pool.yaml"))
            host.start_worker()
        wait_for("BACKEND_UP", here.dev.up)
        here.dev.submit(echo_inline(b"before"))
        assert here.dev.wait_end()[0] == 0
        here.dev.submit(echo_arena(16 << 20))
        unplug(here)
        migrate(here.vm, f"{folders[1]}/migrate")
        there.dev = plug_into(there.vm, there.socket, datapath)
        wait_for("BACKEND_UP", there.dev.up)
        there.dev.submit(echo_inline(b"after"))
        error, response = there.dev.wait_end()
        assert error == 0 and response.endswith(b"after")
        assert [len(host.ask("vms")) for host in (here, there)] == [1, 1]
        assert not here.ask("vms")[0]["connected"] and there.ask("vms")[0]["connected"]
    finally:
        here.close()
        there.close()

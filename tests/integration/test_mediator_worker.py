# SPDX-License-Identifier: MIT
"""A real mediator with real workers: killed, stopped and continued while they compute."""

import os
import signal
import subprocess

import numpy as np
import pytest
from mediator_rig import BIN, MediatorRig, P, wait_for

POOL = "heartbeat: 200ms\ncancel_grace: 500ms\nkill_grace: 500ms"


class Workers:
    """vgpu-worker processes by name."""

    def __init__(self, m, log_dir):
        self.m, self.log_dir, self.processes = m, log_dir, {}

    def start(self, name):
        with open(self.log_dir / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(
                [BIN / "vgpu-worker", "--mediator", self.m.run_dir / "worker.sock", "--name", name,
                 "--backend", "cpu", "--threads", "1"], stdin=subprocess.DEVNULL, stderr=log,
                start_new_session=True)
        wait_for(f"{name} is up", lambda: self.state(name) == "up")

    def state(self, name):
        row = self.m.view("workers", "worker", name)
        return row and row["state"]

    def signal(self, name, number):
        os.killpg(self.processes[name].pid, number)

    def running(self):
        """Name of the worker that has a job now."""
        for row in self.m.ask("workers")["workers"]:
            if row["running"]:
                return row["worker"]
        return None

    def close(self):
        for name, process in self.processes.items():
            try:
                self.signal(name, signal.SIGCONT)
                self.signal(name, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()


@pytest.fixture
def m(tmp_path):
    with MediatorRig(tmp_path, mediator=POOL) as rig:
        yield rig


@pytest.fixture
def workers(m, tmp_path):
    w = Workers(m, tmp_path)
    yield w
    w.close()


def denoise(side, search, out_at):
    """(request, inputs) of a denoising that takes a while, of a flat picture: its result is known."""
    picture = np.full((side, side), 100, np.uint8).tobytes()
    body = P.pack("vgpu_denoise", dtype=P.DTYPE["U8"], channels=1, patch=2, search=search, sigma=1.0,
                  h=10.0, width=side, height=side, stride=side, w=side, h_out=side)
    bufs = [(P.BUF_ARENA, P.IN, 0, len(picture)), (P.BUF_ARENA, P.OUT, out_at, len(picture))]
    return P.request("DENOISE", bufs, body), {0: picture}, picture


def gemm(n, out_at):
    """A product of whole numbers, exact in F32."""
    rng = np.random.default_rng(n)
    a, b = (rng.integers(-8, 8, (n, n)).astype(np.float32) for _ in range(2))
    body = P.pack("vgpu_gemm", dtype=P.DTYPE["F32"], m=n, n=n, k=n, lda=n, ldb=n, alpha=1.0)
    size = 4 * n * n
    bufs = [(P.BUF_ARENA, P.IN, 0, size), (P.BUF_ARENA, P.IN, size, size),
            (P.BUF_ARENA, P.OUT, out_at, size)]
    return P.request("GEMM", bufs, body), {0: a.tobytes(), 1: b.tobytes()}, (a @ b).tobytes()


def test_straight_through(m, workers):
    workers.start("w0")
    with m.stub("a") as s:
        for n in (4, 16, 256):
            request, inputs, want = gemm(n, (8 * n * n + 63) // 64 * 64)
            s.request(request, inputs)
            answer = s.answer()
            assert answer.error == 0, answer.text
            assert bytes(answer.outputs[2]) == want


@pytest.mark.parametrize("victim", ["worker", "executor"])
def test_kill_9_while_it_computes(m, workers, victim):
    for name in ("w0", "w1"):
        workers.start(name)
    request, inputs, want = denoise(700, 10, 1 << 20)
    with m.stub("a") as s:
        s.request(request, inputs)
        busy = wait_for("it runs", workers.running)
        if victim == "worker":
            workers.signal(busy, signal.SIGKILL)
        else:
            os.kill(m.view("workers", "worker", busy)["executor_pid"], signal.SIGKILL)
        answer = s.answer(limit_s=120)
        assert answer.error == 0 and bytes(answer.outputs[1]) == want
        assert answer.hdr.attempts == 2
        wait_for("nothing lingers", lambda: m.view("vms", "vm", "a")["lingering"] == 0)


def test_stopped_while_it_computes_and_continued_later(m, workers):
    """The old writer wakes up when its job was answered elsewhere and the memory is in use again."""
    for name in ("w0", "w1"):
        workers.start(name)
    request, inputs, want = denoise(500, 8, 1 << 20)
    with m.stub("a") as s:
        s.request(request, inputs)
        stopped = wait_for("it runs", workers.running)
        workers.signal(stopped, signal.SIGSTOP)
        answer = s.answer(limit_s=120)
        assert answer.error == 0 and bytes(answer.outputs[1]) == want and answer.hdr.attempts == 2
        assert m.view("vms", "vm", "a")["lingering"] == 1
        again, inputs, want = gemm(400, 8 * 400 * 400)
        s.request(again, inputs)
        workers.signal(stopped, signal.SIGCONT)
        answer = s.answer(limit_s=120)
        assert answer.error == 0 and bytes(answer.outputs[2]) == want
        wait_for("the old try is gone", lambda: m.view("vms", "vm", "a")["lingering"] == 0, 120)
        wait_for("the worker is back", lambda: workers.state(stopped) == "up", 120)


def test_all_workers_killed_and_started_again(m, workers):
    workers.start("w0")
    request, inputs, want = denoise(400, 8, 1 << 20)
    with m.stub("a") as s:
        s.request(request, inputs)
        wait_for("it runs", workers.running)
        workers.signal("w0", signal.SIGKILL)
        workers.processes["w0"].wait()
        wait_for("it is gone", lambda: workers.state("w0") == "gone")
        workers.start("w0")
        answer = s.answer(limit_s=120)
        assert answer.error == 0 and bytes(answer.outputs[1]) == want and answer.hdr.attempts == 2

# SPDX-License-Identifier: MIT
"""A real mediator with real workers, and VMs on the shared-memory path.

    with Rig(tmp_path, vms=["a", "b"]) as m:
        m.start_worker("w0", threads=2)
        with m.vm("a", rings=2) as vm:
            ...

Beside them what tests of this path look at in /proc: descriptors, mappings and memory of processes.
"""

import os
import signal
import subprocess
from types import SimpleNamespace

import numpy as np
from local_proto import P
from mediator_rig import BIN, LIMIT_S, MediatorRig, wait_for
from ring import round_up
from shm_client import Vm

QUICK = "heartbeat: 100ms\ncancel_grace: 500ms\nkill_grace: 300ms"
SLOW_PIXELS = 480  # side of a picture whose denoising takes about a second on one core


class Rig(MediatorRig):
    def __init__(self, log_dir, vms=("a", "b"), mediator=QUICK, **options):
        super().__init__(log_dir, vms=vms, mediator=mediator, **options)
        self.log_dir, self.workers = log_dir, {}

    def __exit__(self, *exc):
        for name in list(self.workers):
            self.end_worker(name)
        if exc[0]:
            for name in self.workers:
                print(f"log of {name}:\n" + self.worker_log(name)[-3000:])
        super().__exit__(*exc)

    # ---- workers ------------------------------------------------------------------------------

    def start_worker(self, name="w0", threads=1, depth=None, pool=None, wait=True):
        options = ["--depth", str(depth)] if depth else []
        options += ["--pool", pool] if pool else []
        with open(self.log_dir / f"{name}.log", "ab") as log:
            self.workers[name] = subprocess.Popen(
                [BIN / "vgpu-worker", "--mediator", self.run_dir / "worker.sock", "--name", name,
                 "--backend", "cpu", "--threads", str(threads), "--log-level", "debug", *options],
                stdin=subprocess.DEVNULL, stderr=log, start_new_session=True)
        if wait:
            self.wait_worker(name)

    def worker_log(self, name="w0"):
        return (self.log_dir / f"{name}.log").read_text(errors="replace")

    def worker_row(self, name):
        return self.view("workers", "worker", name)

    def worker_up(self, name):
        row = self.worker_row(name)
        return bool(row and row["state"] == "up" and row["executor_pid"])

    def wait_worker(self, name="w0"):
        wait_for(f"{name} is up", lambda: self.worker_up(name))

    def executor_pid(self, name="w0"):
        return self.worker_row(name)["executor_pid"]

    def signal_worker(self, name, number):
        """To the supervisor and its executors."""
        os.killpg(self.workers[name].pid, number)

    def end_worker(self, name):
        for number in (signal.SIGCONT, signal.SIGKILL):
            try:
                self.signal_worker(name, number)
            except ProcessLookupError:
                break
        self.workers[name].wait()

    def running(self):
        """Name of a worker that has a job now."""
        for row in self.ask("workers")["workers"]:
            if row["running"]:
                return row["worker"]
        return None

    def wait_running(self):
        return wait_for("a job runs", self.running)

    # ---- VMs ----------------------------------------------------------------------------------

    def vm(self, name="a", **options):
        return Vm(self.socket(name), **options)

    def lingering(self, vm="a"):
        return self.view("vms", "vm", vm)["lingering"]

    def connected(self, vm="a"):
        return self.view("vms", "vm", vm)["connected"]

    # ---- what processes hold ------------------------------------------------------------------

    def descriptors(self):
        """What the mediator has open, without the sockets of admin clients that come and go."""
        return sorted(links(self.process.pid).values())

    def wait_descriptors(self, want):
        wait_for(f"descriptors are back at {len(want)}", lambda: len(self.descriptors()) <= len(want))


def links(pid):
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[fd] = os.readlink(f"/proc/{pid}/fd/{fd}")
        except FileNotFoundError:
            pass
    return found


def mappings(pid, text="vgpu-test-"):
    """Mappings of files of that name in a process; none when it has ended."""
    try:
        with open(f"/proc/{pid}/maps") as maps:
            return sum(text in line for line in maps)
    except (FileNotFoundError, ProcessLookupError):
        return 0


def alive(pid):
    """Whether a process exists and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def private_kib(pid):
    """RssAnon: memory that belongs to the process alone."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))


# ---- work -----------------------------------------------------------------------------------


def slow(vm, at=0, side=SLOW_PIXELS, search=8, **header):
    """A request that takes a while, of a flat picture: its result is known, at `out` of the arena."""
    size = side * side
    out = at + round_up(size, 64)
    vm.put(at, bytes([100]) * size)
    vm.put(out, bytes(size))
    body = P.pack("vgpu_denoise", dtype=P.DTYPE["U8"], channels=1, patch=2, search=search, sigma=1.0,
                  h=10.0, width=side, height=side, stride=side, w=side, h_out=side)
    request = P.request("DENOISE", [(P.BUF_ARENA, P.IN, at, size), (P.BUF_ARENA, P.OUT, out, size)],
                        body, **header)
    return SimpleNamespace(request=request, at=at, out=out, size=size,
                           done=lambda: vm.get(out, size) == bytes([100]) * size)


def case(op):
    """A case of an operation: body, inputs, expected outputs (None: whatever every path gives)."""
    rng = np.random.default_rng(7)
    if op == "ECHO":
        x = rng.integers(0, 255, 131, np.uint8)
        return b"", [x], [x]
    if op == "AXPY":
        x, y = (rng.integers(-99, 99, 24).astype(np.float32) for _ in range(2))
        body = P.pack("vgpu_axpy", dtype=P.DTYPE["F32"], alpha=3.0, n=24, incx=1, incy=1)
        return body, [x, y], [3 * x + y]
    if op == "REDUCE":
        x = rng.integers(-1000, 1000, 40).astype(np.int32)
        body = P.pack("vgpu_reduce", dtype=P.DTYPE["I32"], kind=P.REDUCE_SUM, n=40, stride=1)
        return body, [x], [np.array([x.sum()], np.int64)]
    if op == "GEMM":
        a, b = (rng.integers(-8, 8, (6, 6)).astype(np.float32) for _ in range(2))
        body = P.pack("vgpu_gemm", dtype=P.DTYPE["F32"], m=6, n=6, k=6, lda=6, ldb=6, alpha=1.0)
        return body, [a, b], [a @ b]
    if op == "FFT":
        x = (rng.random(16) + 1j * rng.random(16)).astype(np.complex64)
        body = P.pack("vgpu_fft", dtype=P.DTYPE["F32"], rank=1, n0=16, batch=1)
        return body, [x], [np.fft.fft(x).astype(np.complex64)]
    if op == "SORT":
        keys = rng.integers(0, 9, 30).astype(np.int32)
        values = np.arange(30, dtype=np.uint32)
        order = np.argsort(keys, kind="stable")
        body = P.pack("vgpu_sort", dtype=P.DTYPE["I32"], value_size=4, n=30)
        return body, [keys, values], [keys[order], values[order]]
    assert op == "DENOISE"
    picture = rng.integers(80, 120, (12, 12)).astype(np.uint8)
    body = P.pack("vgpu_denoise", dtype=P.DTYPE["U8"], channels=1, patch=1, search=2, sigma=5.0, h=9.0,
                  width=12, height=12, stride=12, w=12, h_out=12)
    return body, [picture], [None]


__all__ = ["LIMIT_S", "P", "QUICK", "Rig", "Vm", "alive", "case", "links", "mappings", "private_kib", "slow",
           "wait_for"]

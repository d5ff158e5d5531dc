# SPDX-License-Identifier: MIT
"""kill -9 of one side of the shared-memory path, again and again, under load.

    shm_kill.py VICTIM [ROUNDS]     client, qemu, mediator or worker

Every request is answered once, with right bytes or a documented code; nobody writes to a buffer that was
handed back; afterwards no descriptor, mapping, memfd or private memory is left over.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mediator_rig import BIN
from shm_load import Load
from shm_rig import P, Rig, alive, mappings, private_kib, wait_for
from stack import guest_command
from worker_rig import SANITIZED

LIB = Path(__file__).resolve().parent
ALLOWED_KIB = 2048 if not SANITIZED else 1 << 30  # sanitizers keep freed memory


class Left:
    """What a mediator and its executors hold; leaks() compares with now."""

    def __init__(self, m):
        self.m = m
        self.descriptors, self.kib = m.descriptors(), private_kib(m.process.pid)

    def executors(self):
        return [row["executor_pid"] for row in self.m.ask("workers")["workers"] if row["executor_pid"]]

    def held(self):
        """Mappings of VMs' memory in any process of ours: all memfds but those of jobs and pulses."""
        pids = [self.m.process.pid, *self.executors()]
        return sum(mappings(pid, "/memfd:") - mappings(pid, "/memfd:vgpu-jobs") -
                   mappings(pid, "/memfd:vgpu-pulse") for pid in pids if alive(pid))

    def wait_clean(self):
        wait_for("no mapping is left", lambda: self.held() == 0)
        wait_for("nothing lingers", lambda: self.m.lingering("a") == 0)
        self.m.wait_descriptors(self.descriptors)

    def check_memory(self):
        grown = private_kib(self.m.process.pid) - self.kib
        assert grown < ALLOWED_KIB, f"the mediator has {grown} KiB more than before"


class Guest:
    """A real QEMU, VM b: its guest sends one ring request after another, and ends when one fails."""

    def __init__(self, m):
        self.m = m
        self.process = subprocess.Popen(guest_command(m.socket("b"), "forever"), start_new_session=True,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def done(self):
        assert self.process.poll() is None, f"the guest ended with {self.process.returncode}"
        return self.m.view("vms", "vm", "b")["done"]

    def progresses(self):
        goal = self.done() + 20
        wait_for("the guest's requests are answered", lambda: self.done() > goal)

    def close(self):
        self.progresses()
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class NoGuest:
    def progresses(self):
        pass

    def close(self):
        pass


def kill_clients(m, rounds, noise, command):
    """QEMU dies: a process that holds the memory and submits."""
    left = None
    for round_ in range(rounds):
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              start_new_session=True) as process:
            try:
                wait_for("it is connected", lambda: m.connected("a") or process.poll() is not None)
                done = m.view("vms", "vm", "a")["done"]
                wait_for("it works", lambda: m.view("vms", "vm", "a")["done"] > done + 20
                         or process.poll() is not None)
                time.sleep(noise.random() * 0.1)
                assert process.poll() is None, f"the client ended with {process.returncode}"
            finally:
                os.killpg(process.pid, signal.SIGKILL)
        wait_for("the mediator saw it", lambda: not m.connected("a"))
        if left:
            left.wait_clean()
        elif round_ == min(5, rounds - 1):
            wait_for("nothing lingers", lambda: m.lingering("a") == 0)
            left = Left(m)
    left.check_memory()
    with m.vm("a") as vm:
        vm.works()


def kill_mediators(m, rounds, noise, guest):
    with m.vm("a", rings=2) as vm:
        load, kib = Load(vm).start(), []
        guest.progresses()
        for _ in range(rounds):
            load.wait_answers(noise.randrange(1, 150))
            time.sleep(noise.random() * 0.02)
            kib.append(private_kib(m.process.pid))
            m.kill()
            m.start()
            vm.disconnect()
            vm.wait_hung_up()
            vm.connect()
            m.wait_worker()
            guest.progresses()
        load.finish()
        guest.close()
        left = Left(m)
        assert max(kib) - kib[0] < ALLOWED_KIB
        assert vm.inflight[64 + 64 * vm.rings :: 64].count(P.INFLIGHT_FREE) == vm.rings * vm.entries
        print(f"{load.answered} answers, codes {load.errors}")
    del left.descriptors
    wait_for("no mapping is left", lambda: left.held() == 0)
    wait_for("no memfd of a VM is left", lambda: not any("vgpu-test" in d for d in m.descriptors()))


def kill_workers(m, rounds, noise, guest):
    names = ("w0", "w1")
    m.start_worker("w1", threads=1)
    with m.vm("a", rings=2) as vm:
        load = Load(vm).start()
        load.wait_answers(100)
        guest.progresses()
        before = None
        for round_ in range(rounds):
            load.wait_answers(noise.randrange(1, 100))
            name = noise.choice(names)
            victim = noise.choice(["executor", "executor", "supervisor", "both"])
            pid = m.executor_pid(name)
            if victim == "executor":
                os.kill(pid, signal.SIGKILL)
                wait_for("another executor", lambda: m.executor_pid(name) not in (pid, 0, None))
            else:
                if victim == "supervisor":
                    m.workers[name].kill()
                else:
                    m.signal_worker(name, signal.SIGKILL)
                m.workers[name].wait()
                wait_for("it is gone", lambda: not m.worker_up(name))
                wait_for("its executor has ended", lambda: not alive(pid))
                m.start_worker(name)
            m.wait_worker(name)
            guest.progresses()
            if round_ == min(5, rounds - 1):
                before = Left(m)
        load.finish()
        print(f"{load.answered} answers, codes {load.errors}")
        before.check_memory()
        guest.close()
        m.wait_descriptors(before.descriptors)
    wait_for("no mapping is left", lambda: before.held() == 0)
    wait_for("nothing lingers", lambda: m.lingering("a") == 0)


def run(victim, rounds, log_dir, seed=1, real_guest=False):
    """With a real guest: one that is served beside the load while mediator or workers are killed."""
    noise = random.Random(seed)
    with Rig(log_dir, arguments=("--log-level", "info")) as m:
        m.start_worker("w0", threads=1)
        if victim == "client":
            load = [sys.executable, "-B", str(LIB / "shm_load.py"), str(m.socket("a"))]
            kill_clients(m, rounds, noise, load)
        elif victim == "qemu":
            kill_clients(m, rounds, noise, guest_command(m.socket("a"), "forever"))
        else:
            guest = Guest(m) if real_guest else NoGuest()
            (kill_mediators if victim == "mediator" else kill_workers)(m, rounds, noise, guest)


def main():
    victim, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 50
    if victim not in ("client", "qemu", "mediator", "worker"):
        sys.exit(__doc__)
    has_guest = (BIN / "guest.elf").exists()
    if victim == "qemu" and not has_guest:
        print("no guest.elf in this build")
        sys.exit(77)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vgpu-kill-") as log_dir:
        run(victim, rounds, Path(log_dir), real_guest=has_guest)
    print(f"{victim}: killed {rounds} times in {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()

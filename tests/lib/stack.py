# SPDX-License-Identifier: MIT
"""Real processes for tests: a mediator with workers, and the multiboot guest in a QEMU.

    with Stack(tmp, vms=["vm-a"]) as s:
        s.start_worker("w0")
        done = run_guest(s.socket("vm-a"), "selftest", accel="tcg")
        assert done.status == GUEST_PASS, done.output

Everything that was started is ended by close(); logs stay in the folder given.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(os.environ.get("VGPU_SOURCE_DIR", Path(__file__).resolve().parents[2]))
BIN = Path(os.environ.get("VGPU_BIN", ROOT / "build" / "dev" / "bin"))
LIMIT_S = 60.0
GUEST_PASS, GUEST_FAIL = 33, 35


def wait_for(what, condition, limit_s=LIMIT_S):
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, f"waited {limit_s:.0f} s in vain: {what}"
        time.sleep(0.02)


def missing_programs(*names):
    """Names of programs that this build does not have."""
    return [n for n in names if not os.access(BIN / n, os.X_OK)]


def accelerators():
    """tcg, and kvm where /dev/kvm opens."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR))
        return ["tcg", "kvm"]
    except OSError:
        return ["tcg"]


class Stack:
    """A mediator and its workers, in a run directory of their own."""

    def __init__(self, log_dir, vms=("vm-a",), mediator_yaml=""):
        self.log_dir = Path(log_dir)
        self.run_dir = Path(tempfile.mkdtemp(prefix="vgpu-"))  # short: sockets have short names
        self.processes = {}
        pool = ["version: 1", "pools:", "  - name: main", "    id: 1", "tenants:", "  - name: test", "vms:"]
        for vm in vms:
            pool += [f"  - name: {vm}", "    tenant: test", "    pools: [main]",
                     f"    socket: {self.socket(vm)}"]
        self.pool_file = self.run_dir / "pool.yaml"
        self.pool_file.write_text("\n".join(pool) + "\n" + mediator_yaml)

    def __enter__(self):
        try:
            self.start_mediator()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def socket(self, vm):
        return self.run_dir / vm / "vgpu.sock"

    def log(self, name):
        path = self.log_dir / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self, name, *command):
        with (self.log_dir / f"{name}.log").open("ab") as out:
            self.processes[name] = subprocess.Popen(
                [str(c) for c in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True,
            )

    def start_mediator(self):
        self.start("mediator", BIN / "vgpu-mediator", "--config", self.pool_file,
                   "--run-dir", self.run_dir)
        self.wait_alive("mediator", lambda: (self.run_dir / "worker.sock").exists())

    def start_worker(self, name, threads=1):
        self.start(name, BIN / "vgpu-worker", "--mediator", self.run_dir / "worker.sock",
                   "--name", name, "--backend", "cpu", "--threads", threads)

    def wait_alive(self, name, condition):
        def ready():
            status = self.processes[name].poll()
            assert status is None, f"{name} ended with status {status}:\n{self.log(name)}"
            return condition()

        wait_for(f"{name} is ready", ready)

    def kill(self, name, number=signal.SIGKILL):
        """Signal a process and those that it started."""
        process = self.processes[name]
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            pass
        if number == signal.SIGKILL:
            process.wait(LIMIT_S)

    def close(self):
        for name in reversed(list(self.processes)):
            self.kill(name, signal.SIGTERM)
        for name, process in self.processes.items():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                pass
            self.kill(name)
        shutil.rmtree(self.run_dir, ignore_errors=True)


def qemu_under_test():
    """Nothing for the installed QEMU, or VGPU_TEST_QEMU with VGPU_TEST_QEMU_ARGS, as in qtest.py."""
    qemu = os.environ.get("VGPU_TEST_QEMU")
    return [qemu, *os.environ.get("VGPU_TEST_QEMU_ARGS", "").split()] if qemu else []


def guest_command(socket, mode, accel="tcg", machine="pc", options="", memory="64"):
    """QEMU with the multiboot guest and one device; serial line on stdout. With no more than one CPU
    possible QEMU before 8.1 drops the guest's fences under TCG."""
    return [
        str(ROOT / "stub" / "qemu-with-vgpu"), *qemu_under_test(), "-machine", machine, "-accel", accel, "-m", memory,
        "-smp", "1,maxcpus=2",
        "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
        "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
        "-device", f"vgpu-stub,socket={socket},reconnect-ms=100{options}",
        "-kernel", str(BIN / "guest.elf"), "-append", mode,
    ]


def run_guest(socket, mode, limit_s=180, **kwargs):
    """Run the guest to its end. Return: status, output, and its TAP lines as (ok, name)."""
    environment = dict(os.environ, VGPU_REQUIRE="1")
    done = subprocess.run(
        guest_command(socket, mode, **kwargs), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, timeout=limit_s, env=environment, check=False,
    )
    output = done.stdout.decode(errors="replace").replace("\r", "")
    tap = [(not bad, name) for bad, name in re.findall(r"^(not )?ok \d+ - (.*)$", output, flags=re.M)]
    plan = re.search(r"^1\.\.(\d+)$", output, flags=re.M)
    return SimpleNamespace(status=done.returncode, output=output, tap=tap,
                           plan=int(plan[1]) if plan else None)

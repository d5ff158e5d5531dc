# SPDX-License-Identifier: MIT
"""A QEMU with the vgpu-stub device, driven by qtest and QMP: no guest, no KVM.

    with Qemu(tmp, ["-device", "vgpu-stub,socket=..."]) as vm:
        dev = VgpuDevice(vm)            finds it on bus 0 and programs its BARs
        dev.reg("STATUS"), dev.write_reg("REQUEST_LEN", 128)

The machine stands still (-S); qtest accesses memory and ports as a vCPU would. Whoever waits, waits
for a condition, with a generous limit.
"""

import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from local_proto import P, ROOT

LIMIT_S = 30.0


def wait_for(what, condition, limit_s=LIMIT_S):
    """The first true result of condition(); fails, saying `what`, when there is none in time."""
    end = time.monotonic() + limit_s
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < end, f"not within {limit_s:.0f} s: {what}"
        time.sleep(0.002)


def qemu_binary():
    """The QEMU under test: the installed one, or VGPU_TEST_QEMU, one with the device built in."""
    return os.environ.get("VGPU_TEST_QEMU") or shutil.which("qemu-system-x86_64")


def build_plugin():
    """Path of the plug-in for the installed QEMU, made by the same script that users call; empty
    when the QEMU under test needs none."""
    if os.environ.get("VGPU_TEST_QEMU"):
        return ""
    done = subprocess.run([str(ROOT / "stub" / "build-plugin.sh")], capture_output=True, text=True)
    assert done.returncode == 0, f"stub/build-plugin.sh failed:\n{done.stdout}{done.stderr}"
    return done.stdout.strip().splitlines()[-1]


def run_qemu(args, command=None, env=None, limit_s=LIMIT_S):
    """(exit status, what it said) of a QEMU that is expected to end by itself."""
    environment = dict(os.environ, **(env or {}))
    if command is None:
        environment["LD_PRELOAD"] = build_plugin()
        command = [qemu_binary(), *os.environ.get("VGPU_TEST_QEMU_ARGS", "").split()]
    done = subprocess.run(command + ["-nodefaults", "-display", "none"] + args, env=environment,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=limit_s, check=False)
    return done.returncode, done.stdout


class Lines:
    """A line-based conversation over a Unix stream socket that QEMU connects to."""

    def __init__(self, path):
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self.sock, self.file = None, None

    def accept(self):
        self.listener.settimeout(LIMIT_S)
        self.sock, _ = self.listener.accept()
        self.sock.settimeout(LIMIT_S)
        self.file = self.sock.makefile("rb")

    def send(self, text):
        self.sock.sendall(text.encode() + b"\n")

    def line(self):
        data = self.file.readline()
        assert data, "QEMU closed the connection"
        return data.decode().strip()

    def close(self):
        for thing in (self.file, self.sock, self.listener):
            if thing:
                thing.close()


class Qemu:
    def __init__(self, tmp, args, machine="q35", plugin=None, env=None, binary=None,
                 accel="tcg"):
        self.tmp = Path(tmp)
        self.qtest = Lines(self.tmp / "qtest.sock")
        self.qmp = Lines(self.tmp / "qmp.sock")
        self.log = self.tmp / "qemu.log"
        self.events = []
        environment = dict(os.environ, **(env or {}))
        environment["LD_PRELOAD"] = plugin or build_plugin()
        command = [binary or qemu_binary(), "-machine", machine, "-accel", accel, "-m", "64", "-S"]
        command += ["-nodefaults", "-display", "none", "-no-user-config"]
        command += ["-qtest", f"unix:{self.tmp}/qtest.sock", "-qtest-log", "/dev/null"]
        command += ["-qmp", f"unix:{self.tmp}/qmp.sock", "-d", "guest_errors"]
        command += os.environ.get("VGPU_TEST_QEMU_ARGS", "").split()
        if os.environ.get("VGPU_TEST_QEMU") and "VGPU_STUB_TRACE" in environment:
            command += ["-trace", f"vgpu_stub_*{environment['VGPU_STUB_TRACE']}*"]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(command + args, env=environment, stdout=out, stderr=out,
                                            stdin=subprocess.DEVNULL)
        try:
            for channel in (self.qtest, self.qmp):
                self._accept(channel)
            json.loads(self.qmp.line())
            self.command("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def _accept(self, channel):
        channel.listener.settimeout(0.2)
        end = time.monotonic() + LIMIT_S
        while True:
            assert self.process.poll() is None, f"QEMU ended at once:\n{self.output()}"
            assert time.monotonic() < end, "QEMU did not connect"
            try:
                channel.accept()
                return
            except socket.timeout:
                continue

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.qtest.close()
        self.qmp.close()

    def output(self):
        return self.log.read_text(errors="replace")

    def alive(self):
        return self.process.poll() is None

    # ---- QMP --------------------------------------------------------------------------------

    def command(self, name, **arguments):
        self.qmp.send(json.dumps({"execute": name, "arguments": arguments}))
        while True:
            answer = json.loads(self.qmp.line())
            if "event" in answer:
                self.events.append(answer)
            else:
                assert "error" not in answer, f"QMP {name}: {answer['error']['desc']}"
                return answer["return"]

    def saw_event(self, name, **data):
        self.command("query-status")
        return any(e["event"] == name and data.items() <= e.get("data", {}).items()
                   for e in self.events)

    # ---- qtest ------------------------------------------------------------------------------

    def do(self, text):
        self.qtest.send(text)
        while True:
            answer = self.qtest.line()
            if answer.startswith("IRQ"):
                continue
            assert answer.startswith("OK"), f"qtest {text[:60]}: {answer}"
            return answer[3:].strip()

    def out(self, port, value, width="l"):
        self.do(f"out{width} 0x{port:x} 0x{value:x}")

    def inp(self, port, width="l"):
        return int(self.do(f"in{width} 0x{port:x}"), 0)

    def store(self, address, value, size=4):
        self.do(f"write{ {1: 'b', 2: 'w', 4: 'l', 8: 'q'}[size] } 0x{address:x} 0x{value:x}")

    def load(self, address, size=4):
        return int(self.do(f"read{ {1: 'b', 2: 'w', 4: 'l', 8: 'q'}[size] } 0x{address:x}"), 0)

    def write(self, address, data):
        for start in range(0, len(data), 65536):
            part = data[start : start + 65536]
            self.do(f"write 0x{address + start:x} 0x{len(part):x} 0x{part.hex()}")

    def read(self, address, length):
        out = bytearray()
        for start in range(0, length, 65536):
            n = min(65536, length - start)
            out += bytes.fromhex(self.do(f"read 0x{address + start:x} 0x{n:x}")[2:])
        return bytes(out)

    # ---- PCI configuration space ------------------------------------------------------------

    def config_read(self, slot, offset):
        self.out(0xCF8, 0x80000000 | slot << 11 | offset)
        return self.inp(0xCFC)

    def config_write(self, slot, offset, value):
        self.out(0xCF8, 0x80000000 | slot << 11 | offset)
        self.out(0xCFC, value)

    def find_slot(self):
        want = P.PCI_DEVICE_ID << 16 | P.PCI_VENDOR_ID
        return next((s for s in range(32) if self.config_read(s, 0) == want), None)


class VgpuDevice:
    """The device on bus 0, its BARs programmed, memory and bus mastering on."""

    BAR0, BAR2, BAR4 = 0xE0000000, 0x8_0000_0000, 0xE0100000
    COMMAND_MEMORY_MASTER = 0x6

    def __init__(self, vm, slot=None):
        self.vm = vm
        self.slot = vm.find_slot() if slot is None else slot
        assert self.slot is not None, "no vgpu-stub on bus 0"
        self.program()

    def program(self):
        write = self.vm.config_write
        write(self.slot, 0x10, self.BAR0)
        write(self.slot, 0x18, self.BAR2 & 0xFFFFFFFF)
        write(self.slot, 0x1C, self.BAR2 >> 32)
        write(self.slot, 0x20, self.BAR4)
        write(self.slot, 0x04, self.COMMAND_MEMORY_MASTER)

    def reg(self, name):
        return self.vm.load(self.BAR0 + P.REG[name])

    def write_reg(self, name, value):
        self.vm.store(self.BAR0 + P.REG[name], value)

    @property
    def arena(self):
        return self.BAR2 + (self.reg("ARENA_OFFSET_HI") << 32 | self.reg("ARENA_OFFSET_LO"))

    @property
    def arena_size(self):
        return self.reg("ARENA_SIZE_HI") << 32 | self.reg("ARENA_SIZE_LO")

    def state(self):
        return self.reg("STATUS") & P.STATUS_STATE_MASK

    def up(self):
        return bool(self.reg("STATUS") & P.STATUS_BACKEND_UP)

    def submit(self, request, length=None):
        self.vm.write(self.BAR0 + P.WINDOW_REQUEST, request)
        self.write_reg("REQUEST_LEN", len(request) if length is None else length)
        self.write_reg("DOORBELL", 1)

    def wait_end(self):
        """(error, response) of the window request, once it has ended."""
        wait_for("the request ends", lambda: self.state() != P.STATUS_BUSY)
        length = self.reg("RESPONSE_LEN")
        response = self.vm.read(self.BAR0 + P.WINDOW_RESPONSE, P.WINDOW_SIZE)
        assert not any(response[length:]), "the response window is not zero past RESPONSE_LEN"
        return self.reg("ERROR"), response[:length]

    # ---- MSI-X ------------------------------------------------------------------------------

    MSI_ADDRESS = 0x1000  # in the machine's RAM: a message is then a plain write there

    def msix_capability(self):
        at = self.vm.config_read(self.slot, 0x34) & 0xFF
        while at:
            word = self.vm.config_read(self.slot, at & 0xFC)
            if word & 0xFF == 0x11:
                return at
            at = word >> 8 & 0xFF
        raise AssertionError("the device has no MSI-X capability")

    def msix_vectors(self):
        return (self.vm.config_read(self.slot, self.msix_capability()) >> 16 & 0x7FF) + 1

    def msix_entry(self, vector):
        table = self.vm.config_read(self.slot, self.msix_capability() + 4)
        assert table & 7 == P.BAR_MSIX
        return self.BAR4 + (table & ~7) + 16 * vector

    def mask(self, masked, vector=0):
        self.vm.store(self.msix_entry(vector) + 12, 1 if masked else 0)

    def set_message(self, vector, data, masked=False):
        """Every vector has a place of its own."""
        entry = self.msix_entry(vector)
        self.vm.store(entry, self.MSI_ADDRESS + 4 * vector)
        self.vm.store(entry + 4, 0)
        self.vm.store(entry + 8, data)
        self.mask(masked, vector)

    def msix_on(self, enabled=True):
        at = self.msix_capability()
        word = self.vm.config_read(self.slot, at) & ~(1 << 31)
        self.vm.config_write(self.slot, at, word | enabled << 31)

    def enable_msix(self, masked=False, data=0x5A5A, vector=0):
        self.set_message(vector, data, masked)
        self.msix_on()

    def msix_pending(self, vector=0):
        pba = self.vm.config_read(self.slot, self.msix_capability() + 8)
        return self.vm.load(self.BAR4 + (pba & ~7) + vector // 32 * 4) >> vector % 32 & 1

    def take_message(self, vector=0):
        """The data of the last message of this vector, and forget it."""
        place = self.MSI_ADDRESS + 4 * vector
        value = self.vm.load(place)
        if value:  # one that comes between a read of nothing and the store would be lost
            self.vm.store(place, 0)
        return value

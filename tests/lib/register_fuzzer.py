# SPDX-License-Identifier: MIT
"""Random accesses of a guest and random words of a mediator: the device must survive all of them.

    Fuzzer(tmp, seed=7, datapath="shm", steps=2000).run()

A run has one QEMU under qtest. Each step is drawn from a generator of its own, seeded with the seed and
the number of the step, so that a seed gives the same steps however fast anything answers. Guest steps
access BAR 0, BAR 2, BAR 4 and the configuration space at any width and alignment, and reset device and
machine; mediator steps welcome, refuse, answer, lie, fall silent, hang up, signal, and write to the
memory that they were given. Nothing is expected but that QEMU lives, answers each access in time, and
serves a request as it should when a good mediator comes in the end.
"""

import mmap
import os
import random
import signal
import socket
import subprocess
import time

from fake_mediator import FakeMediator
from local_proto import P, ROOT
from qtest import LIMIT_S, Qemu, VgpuDevice, wait_for
from stub_rig import UUID, echo_arena, echo_inline

WIDTHS = {1: "b", 2: "w", 4: "l", 8: "q"}
BAD_OUTPUT = ("Assertion", "assert", "ERROR:", "Sanitizer", "fatal", "core dumped", "stack smashing")
BASES = {0x10: 0xE0000000, 0x20: 0xE0100000}  # BAR 0, BAR 4; BAR 2 follows
BAR2 = 0x8_0000_0000
RAM_END = 64 << 20
BATCH = 48
FDS_SLACK = 4  # descriptors that QEMU may open for itself meanwhile


def sanitized():
    """Arguments of Qemu for a plug-in that is built with AddressSanitizer and UBSan."""
    out = ROOT / "build" / "plugin-asan"
    flags = "-fsanitize=address,undefined -fno-sanitize-recover=all"
    done = subprocess.run([str(ROOT / "stub" / "build-plugin.sh"), "--out", str(out)],
                          env=dict(os.environ, CC=f"gcc {flags}"), capture_output=True, text=True)
    assert done.returncode == 0, f"stub/build-plugin.sh failed:\n{done.stdout}{done.stderr}"
    libraries = []
    for name in ("libasan.so", "libubsan.so"):
        found = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True)
        libraries.append(os.path.realpath(found.stdout.strip()))
    # QEMU itself is not instrumented: its leaks and its coroutines' stacks are not looked at.
    options = "detect_leaks=0:detect_stack_use_after_return=0:abort_on_error=1"
    return dict(plugin=" ".join(libraries + [done.stdout.strip().splitlines()[-1]]),
                env={"ASAN_OPTIONS": options, "UBSAN_OPTIONS": "print_stacktrace=1"})


class Hang(AssertionError):
    pass


def pick_value(rng, width):
    """A number that a driver might write, or one that it should not."""
    bits = 8 * width
    kind = rng.random()
    if kind < 0.3:
        value = rng.choice((0, 1, 2, 3, 0xFF, 0x80000000, 0xFFFFFFFF, (1 << 64) - 1))
    elif kind < 0.5:
        value = 1 << rng.randrange(bits)
    elif kind < 0.6:
        value = rng.choice((BASES[0x10], BASES[0x20], BAR2)) + rng.randrange(0, 4096, 4)
    else:
        value = rng.getrandbits(bits)
    return value & ((1 << bits) - 1)


class Chaos:
    """A mediator that does what a step tells it, and never blocks."""

    def __init__(self, path, rings):
        self.path, self.rings = path, rings
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(path))
        self.listener.listen(4)
        self.listener.setblocking(False)
        self.conn, self.fds, self.memory, self.hello, self.last = None, [], None, None, {}
        self.heard, self.mood = {}, "good"  # messages, by name

    def close(self):
        self.hang_up()
        self.let_go()
        self.listener.close()
        os.unlink(self.path)

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

    def listen(self, rng):
        """Take what came, but not always all of it."""
        try:
            if not self.conn:
                self.conn = self.listener.accept()[0]
                self.conn.setblocking(False)
            for _ in range(rng.choice((1, 4, 64))):
                self.receive()
        except (BlockingIOError, ConnectionError):
            pass

    def receive(self):
        data, fds, _, _ = socket.recv_fds(self.conn, P.MSG_MAX + 1, 253)
        if not data:
            self.conn.close()
            self.conn = None
            raise ConnectionError
        name, fields, tail = P.parse(data)
        self.last[name] = (fields, tail)
        self.heard[name] = self.heard.get(name, 0) + 1
        if name == "HELLO":
            self.let_go()
            self.hello, self.fds = fields, fds
            if fds:
                self.memory = mmap.mmap(fds[P.HELLO_FD_SHM], fields.shm_size)

    def send(self, data, fds=()):
        if not self.conn:
            return
        try:
            if fds:
                socket.send_fds(self.conn, [data], list(fds))
            else:
                self.conn.send(data)
        except (BlockingIOError, ConnectionError, BrokenPipeError):
            pass

    # ---- good words ---------------------------------------------------------------------------

    def welcome(self, rng):
        up, gen, band, deadline = rng.random() < 0.9, rng.getrandbits(64), rng.randrange(4), 2000
        if self.hello:
            self.send(P.message("HELLO_ACK", epoch=self.hello.msg.epoch, version=P.LOCAL_VERSION_MAX,
                                vm_id=7, pool_id=3, band=band, up=int(up), mediator_gen=gen,
                                max_bytes=1 << 30, deadline_ms=deadline,
                                features=self.hello.features))

    def accept(self, rng):
        if "REQUEST" in self.last:
            fields, _ = self.last["REQUEST"]
            self.send(P.message("ACCEPT", epoch=fields.msg.epoch, seq=fields.seq))

    def answer(self, rng):
        error, size = rng.choice((0, 0, P.E["CANCELLED"], 77)), rng.randrange(0, 1100)
        if "REQUEST" not in self.last:
            return
        fields, request = self.last["REQUEST"]
        for index, buf in enumerate(P.buffers(request)):
            if not self.memory and buf.kind == P.BUF_ARENA and buf.dir == P.BUF_OUT:
                self.output(fields, index, buf.length)
        self.send(P.message("RESPONSE", epoch=fields.msg.epoch, seq=fields.seq,
                            tail=P.response(request, fields.seq, error=error, payload=bytes(size))))

    def output(self, fields, index, length):
        for offset in range(0, min(length, 1 << 20), P.DATA_CHUNK):
            n = min(P.DATA_CHUNK, length - offset)
            self.send(P.message("DATA", epoch=fields.msg.epoch, seq=fields.seq, buffer=index,
                                offset=offset, tail=bytes(n)))

    def reset_ack(self, rng):
        if "RESET" in self.last:
            self.send(P.message("RESET_ACK", epoch=self.last["RESET"][0].msg.epoch))

    # ---- bad ones -----------------------------------------------------------------------------

    def lie(self, rng):
        """A message with a good head, or nearly; the rest is anything."""
        name = rng.choice(sorted(P.MSG))
        body = rng.randbytes(rng.choice((0, 8, P.size(P.struct_of(name)) - 16, rng.randrange(2000))))
        epoch = self.hello.msg.epoch if self.hello and rng.random() < 0.8 else rng.getrandbits(32)
        length = 16 + len(body) + (rng.random() < 0.1)
        head = P.pack("vgpu_msg", magic=P.MSG_MAGIC ^ (rng.random() < 0.05), type=P.MSG[name],
                      length=length, epoch=epoch)
        self.send(head + body, fds=self.fds[:3] if rng.random() < 0.05 else ())

    def flood(self, rng):
        seq = rng.getrandbits(3)
        for _ in range(rng.randrange(200)):
            self.send(P.message("ACCEPT", epoch=self.hello.msg.epoch if self.hello else 0, seq=seq))

    def break_device(self, rng):
        if self.hello:
            self.send(P.message("STATE", epoch=self.hello.msg.epoch, up=1, broken=1))

    def bells(self, rng):
        """Calls and kicks; also so many that the counters are full."""
        count = rng.choice((1, 1, 7, (1 << 64) - 2))
        for fd in self.fds[3:] if self.fds else ():
            try:
                if rng.random() < 0.3:
                    os.read(fd, 8)
                elif rng.random() < 0.5:
                    os.write(fd, count.to_bytes(8, "little"))
            except BlockingIOError:
                pass

    def scribble(self, rng):
        """Into the pages of the rings, and anywhere else in BAR 2."""
        data = rng.randbytes(rng.choice((4, 64, 512)))
        at = rng.choice((0, P.SHM_CONTROL_SIZE, P.SHM_CONTROL_SIZE + 4096)) + rng.randrange(8192)
        if self.memory:
            self.memory[at : at + len(data)] = data

    def touch_pipe(self, rng):
        if self.fds and rng.random() < 0.3:
            try:
                os.set_blocking(self.fds[P.HELLO_FD_WRITERS], False)
                os.write(self.fds[P.HELLO_FD_WRITERS], b"x" * rng.choice((1, 300)))
            except (BlockingIOError, BrokenPipeError):
                pass

    STEPS = ((listen, 30), (welcome, 16), (accept, 6), (answer, 14), (reset_ack, 8), (lie, 8),
             (flood, 1), (break_device, 2), (bells, 6), (scribble, 5), (touch_pipe, 1))
    MOODS = (("good", 60), ("chaotic", 20), ("listens", 10), ("deaf", 10))

    def step(self, rng):
        """Moods last for some steps, so that the device gets through its states."""
        if rng.random() < 0.04:
            moods, weights = zip(*self.MOODS)
            self.mood = rng.choices(moods, weights)[0]
        if self.mood == "good":
            self.be_good(rng)
        elif self.mood == "listens":
            self.listen(rng)
        elif self.mood == "chaotic":
            self.be_chaotic(rng)

    def be_good(self, rng):
        if not self.conn:
            self.let_go()
        self.last = {}
        self.listen(rng)
        if "HELLO" in self.last:
            self.welcome(rng)
        if "RESET" in self.last:
            self.reset_ack(rng)
        if rng.random() < 0.8:
            self.accept(rng)
        if rng.random() < 0.8:
            self.answer(rng)
        if rng.random() < 0.1:
            self.bells(rng)
        if rng.random() < 0.1:
            self.scribble(rng)

    def be_chaotic(self, rng):
        if rng.random() < 0.03:
            self.hang_up()
            if rng.random() < 0.7:
                self.let_go()
            return
        if not self.conn and self.fds and rng.random() < 0.5:
            self.let_go()
        verbs, weights = zip(*self.STEPS)
        for verb in rng.choices(verbs, weights, k=rng.choice((1, 2, 3))):
            verb(self, rng)


class Fuzzer:
    def __init__(self, tmp, seed, datapath, steps, log=None, machine="q35", **kwargs):
        self.tmp, self.seed, self.steps, self.log = tmp, seed, steps, log
        rng = self.rng_of("setup")
        self.rings = rng.choice((1, 2, 4, 64))
        entries, size = rng.choice((16, 128, 4096)), rng.choice(("1M", "4M", "64M"))
        self.shm_size = int(size[:-1]) << 20
        self.path = tmp / "vgpu.sock"
        options = f"rings={self.rings},ring-entries={entries},shm-size={size},datapath={datapath}"
        device = f"vgpu-stub,id=vgpu0,socket={self.path},reconnect-ms=20,deadline-ms=300,{options}"
        self.what = f"seed {seed}, {datapath}, {steps} steps ({options})"
        self.vm = Qemu(tmp, ["-uuid", UUID, "-device", device], machine=machine, **kwargs)
        self.mediator, self.heard = None, {}
        self.step_number = -1
        self.commands = []

    def rng_of(self, step):
        return random.Random(f"{self.seed}/{step}")

    # ---- what QEMU is asked ---------------------------------------------------------------------

    def ask(self, *commands):
        self.commands += commands
        if len(self.commands) >= BATCH:
            self.flush()

    def flush(self):
        """Send what waits, and wait for every answer: this is the watchdog."""
        commands, self.commands = self.commands, []
        if not commands:
            return
        if self.log:
            self.log.write("".join(f"{self.step_number} {c}\n" for c in commands))
            self.log.flush()
        try:
            self.vm.qtest.send("\n".join(commands))
            for command in commands:
                self.answer(command)
        except (socket.timeout, TimeoutError):
            raise Hang(f"no answer within {LIMIT_S:.0f} s to one of {commands}") from None

    def answer(self, command):
        line = self.vm.qtest.line()
        while line.startswith("IRQ"):
            line = self.vm.qtest.line()
        assert line.startswith("OK"), f"qtest {command}: {line}"

    def write(self, address, value, width=4):
        self.ask(f"write{WIDTHS[width]} 0x{address:x} 0x{value:x}")

    def read(self, address, width=4):
        self.ask(f"read{WIDTHS[width]} 0x{address:x}")

    def config_write(self, offset, value, width=4):
        self.ask(f"outl 0xcf8 0x{0x80000000 | self.slot << 11 | offset & 0xfc:x}",
                 f"out{WIDTHS[width]} 0x{0xCFC + offset % 4:x} 0x{value & (1 << 8 * width) - 1:x}")

    def config_read(self, offset, width=4):
        self.ask(f"outl 0xcf8 0x{0x80000000 | self.slot << 11 | offset & 0xfc:x}",
                 f"in{WIDTHS[width]} 0x{0xCFC + offset % 4:x}")

    def program(self):
        """The BARs where they belong, memory and bus mastering on."""
        for offset, base in BASES.items():
            self.config_write(offset, base)
        self.config_write(0x18, BAR2 & 0xFFFFFFFF)
        self.config_write(0x1C, BAR2 >> 32)
        self.config_write(0x04, VgpuDevice.COMMAND_MEMORY_MASTER)

    # ---- steps of a guest -----------------------------------------------------------------------

    def any_register(self, rng):
        width = rng.choice((1, 2, 4, 4, 4, 8))
        step = 1 if rng.random() < 0.1 else width  # unaligned, now and then
        address = BASES[0x10] + rng.randrange(0, P.BAR_REGS_SIZE - width + 1, step)
        if rng.random() < 0.5:
            self.read(address, width)
        else:
            self.write(address, pick_value(rng, width), width)

    def known_register(self, rng):
        name = rng.choice(("CONTROL", "DOORBELL", "PRIORITY", "REQUEST_LEN", "RING_DOORBELL", "STATUS"))
        offset = P.REG[name] + (4 * rng.randrange(64) if name == "RING_DOORBELL" else 0)
        for _ in range(rng.choice((1, 1, 1, 30))):
            self.write(BASES[0x10] + offset, rng.choice((0, 1, 2, 3, 96, pick_value(rng, 4))))

    def request(self, rng):
        """A request that is good, or was; its doorbell; perhaps a second thought."""
        flags = rng.choice((0, P.REQ_IRQ, P.REQ_ORDERED | P.REQ_NO_RETRY, P.REQ_FLAGS))
        length = 64 * rng.randrange(1, 64)
        data = bytearray(rng.choice((echo_inline(bytes(rng.randrange(1, 500)), flags=flags),
                                     echo_arena(length, flags=flags, deadline_ms=rng.randrange(200)),
                                     P.request("INFO", flags=flags))))
        for _ in range(rng.choice((0, 0, 0, 1, 3))):
            data[rng.randrange(len(data))] = rng.getrandbits(8)
        size = len(data) if rng.random() < 0.9 else rng.randrange(2000)
        self.ask(f"write 0x{BASES[0x10] + P.WINDOW_REQUEST:x} 0x{len(data):x} 0x{data.hex()}")
        self.write(BASES[0x10] + P.REG["REQUEST_LEN"], size)
        for _ in range(rng.choice((1, 1, 2))):
            self.write(BASES[0x10] + P.REG["DOORBELL"], 1)
        if rng.random() < 0.2:
            self.write(BASES[0x10] + P.REG["CONTROL"], rng.choice((1, 2)))

    def memory(self, rng):
        """BAR 2: the pages of the rings, their slots, the arena, both ends."""
        width = rng.choice((1, 2, 4, 8))
        place = rng.choice((0, P.SHM_CONTROL_SIZE, P.SHM_CONTROL_SIZE + 4096, self.shm_size - 64))
        offset = min(place + rng.randrange(0, 8192, 1 if rng.random() < 0.1 else width),
                     self.shm_size - 8)
        if rng.random() < 0.3:
            self.read(BAR2 + offset, width)
        else:
            self.write(BAR2 + offset, pick_value(rng, width), width)

    def msix(self, rng):
        """The table, the pending bits and what is behind them."""
        width = rng.choice((1, 2, 4, 4, 8))
        offset = rng.choice((16 * rng.randrange(66) + rng.randrange(0, 16, width),
                             rng.randrange(0, 0x1000 - 8, width), 0x800 + rng.randrange(0, 64, width)))
        if rng.random() < 0.3:
            self.read(BASES[0x20] + offset, width)
        else:
            self.write(BASES[0x20] + offset, pick_value(rng, width), width)

    def vector(self, rng):
        """A whole vector: where its message goes is the guest's choice, the device itself included."""
        entry = BASES[0x20] + 16 * rng.randrange(self.rings + 1)
        address = rng.choice((VgpuDevice.MSI_ADDRESS, BASES[0x10] + P.REG["DOORBELL"],
                              BASES[0x10] + P.REG["CONTROL"], BASES[0x10] + P.REG["RING_DOORBELL"],
                              BASES[0x20] + 12, BAR2 + P.SHM_CONTROL_SIZE, 0xFEE00000,
                              rng.getrandbits(32) & ~3))
        for at, value in ((0, address & 0xFFFFFFFF), (4, address >> 32), (8, rng.choice((0, 1, 2, 0x41))),
                          (12, rng.choice((0, 0, 1)))):
            self.write(entry + at, value)
        self.config_write(self.msix_at + 2, rng.choice((0x8000, 0x8000, 0xC000, 0)), 2)

    def config(self, rng):
        width = rng.choice((1, 2, 4))
        offset = rng.choice((rng.randrange(0, 256, width), 4, 0x10, 0x14, 0x18, 0x1C, 0x20, 0x30, 0x3C,
                             self.msix_at))
        offset -= offset % width
        if rng.random() < 0.3:
            self.config_read(offset, width)
        else:
            self.config_write(offset, pick_value(rng, width), width)

    def good_config(self, rng):
        self.program()
        if rng.random() < 0.5:
            self.config_write(self.msix_at + 2, 0x8000, 2)

    def device_reset(self, rng):
        for _ in range(rng.choice((1, 1, 20))):
            self.write(BASES[0x10] + P.REG["CONTROL"], P.CONTROL_RESET)

    def machine_reset(self, rng):
        self.flush()
        self.vm.command("system_reset")
        self.program()

    def pause(self, rng):
        """Let the loop run: timers, reconnects, deadlines."""
        self.flush()
        time.sleep(rng.choice((0.001, 0.005, 0.03)))

    STEPS = ((any_register, 30), (known_register, 14), (request, 20), (memory, 16), (msix, 10),
             (vector, 6), (config, 8), (good_config, 8), (device_reset, 3), (machine_reset, 0.3),
             (pause, 2))

    def step(self, number):
        self.step_number = number
        rng = self.rng_of(number)
        if rng.random() < 0.25:
            self.flush()
            if not self.mediator:
                self.mediator = Chaos(self.path, self.rings)
            self.mediator.step(rng)
            return
        verbs, weights = zip(*self.STEPS)
        rng.choices(verbs, weights)[0](self, rng)

    # ---- a run ----------------------------------------------------------------------------------

    def fds(self):
        return len(os.listdir(f"/proc/{self.vm.process.pid}/fd"))

    def start(self):
        self.slot = self.vm.find_slot()
        assert self.slot is not None, "no vgpu-stub on bus 0"
        self.msix_at = VgpuDevice(self.vm, self.slot).msix_capability()
        self.fds_before = self.fds()

    def finish(self):
        """Whatever happened: after a reset the device serves a good mediator as if nothing had."""
        self.flush()
        if self.mediator:
            self.heard = self.mediator.heard
            self.mediator.close()
            self.mediator = None
        self.vm.command("system_reset")
        dev = VgpuDevice(self.vm, self.slot)
        wait_for("QEMU lets go of the last connection", lambda: self.fds() <= self.fds_before + FDS_SLACK)
        m = FakeMediator(self.path)
        try:
            m.hello()
            wait_for("BACKEND_UP", dev.up)
            dev.submit(echo_inline(b"still here"))
            m.serve_echo()
            error, response = dev.wait_end()
            assert error == 0 and response.endswith(b"still here"), f"error {error}"
        finally:
            m.close()

    def run(self):
        try:
            self.start()
            for number in range(self.steps):
                self.step(number)
            self.finish()
            assert self.vm.alive()
        except BaseException as error:
            raise AssertionError(self.report(error)) from error
        finally:
            self.close()
        self.what += ": heard " + (", ".join(f"{n} {name}" for name, n in sorted(self.heard.items()))
                                   or "nothing")
        bad = [w for w in BAD_OUTPUT if w in self.vm.output()]
        assert not bad, f"{self.what}: QEMU said {bad}:\n{self.vm.output()[-2000:]}"

    def report(self, error):
        where = ""
        if isinstance(error, Hang) or (self.vm.alive() and isinstance(error, OSError)):
            where = self.backtrace()
        try:
            code = self.vm.process.wait(2)
            state = signal.Signals(-code).name if code < 0 else f"exit {code}"
        except Exception:  # pylint: disable=broad-except
            state = "it runs"
        return (f"{self.what}: at step {self.step_number}: {error!r}\nQEMU: {state}\n"
                f"{self.vm.output()[-3000:]}{where}\nSee it again with: tests/fuzz/registers "
                f"--seed {self.seed} --datapath {self.what.split(', ')[1]} --steps {self.steps}")

    def backtrace(self):
        """Where a QEMU that does not answer is; empty without gdb."""
        try:
            done = subprocess.run(["gdb", "-p", str(self.vm.process.pid), "-batch", "-ex", "bt"],
                                  capture_output=True, text=True, timeout=60, check=False)
            return "\n" + done.stdout[-4000:]
        except OSError:
            return ""

    def close(self):
        if self.mediator:
            self.mediator.close()
        self.vm.close()

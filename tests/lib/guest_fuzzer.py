# SPDX-License-Identifier: MIT
"""Random guests at a real mediator with a real worker, on the shared-memory path.

    GuestFuzzer(rig, seed=7).run(steps=300)

Some guests are driven by random steps: requests of all kinds, good and bad, many at a time; bytes of
their rings changed under the mediator's hands; indices that jump; doorbell storms; resets in the middle;
connections that end; messages that make no sense; workers and mediators that are killed. Each step is drawn from a
generator of its own, seeded with the seed and its number.

What must hold all the while: a guest that kept the rules since its last reset gets every answer
once, with its own identity and bytes; a reset is acknowledged; a connection that ended lets go of the
memory; another VM that only works never fails. In the end every guest resets its device and works.
"""

import collections
import contextlib
import os
import random
import select
import signal
import threading

from executor_fuzzer import HostileWorker
from local_proto import P
from ring import PAGE
from shm_client import Vm
from shm_rig import LIMIT_S, QUICK, Rig, slow, wait_for
from worker_rig import Gone

BLOCK = 4096
WRAP = 1 << 32


# What a request may end with when workers are killed, or lie.
LOST_BY = ("WORKER_LOST", "QUARANTINED", "INTERNAL", "BACKEND_FAULT", "JOB_TOO_LONG")
MAY_BE_LOST = [P.E[name] for name in LOST_BY]


class Neighbour:
    """A VM that works all the time; every answer is checked."""

    def __init__(self, vm):
        self.vm, self.done, self.failure = vm, 0, None
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self):
        try:
            while not self.ended.is_set():
                data = self.done.to_bytes(8, "little") * 4
                answer = self.vm.call(self.vm.echo(data), limit_s=2 * LIMIT_S)
                lost = answer.error in MAY_BE_LOST
                assert lost or answer.payload == data, f"error {answer.error}: {answer.text}"
                self.done += 1
        except BaseException as failure:  # for the fuzzer's thread to raise
            self.failure = failure

    def check(self):
        if self.failure:
            raise AssertionError(f"the neighbour: {self.failure!r}") from self.failure

    def close(self):
        goal = self.done + 3
        wait_for("the neighbour works", lambda: self.done >= goal or self.failure)
        self.check()
        self.ended.set()
        self.thread.join(LIMIT_S)
        self.check()
        self.vm.close()


class Guest:
    """A Vm that knows whether it kept the rules since its last reset."""

    def __init__(self, path, rng):
        self.vm = Vm(path, rings=rng.choice((1, 2, 4)), entries=rng.choice((16, 64, 128)),
                     slot_bytes=rng.choice((512, 4096)))
        self.resetting, self.honest, self.trail = False, True, collections.deque(maxlen=12)
        self.answers, self.echoes = 0, {}  # tag: bytes that an inline echo must bring back

    # ---- good and bad requests ------------------------------------------------------------------

    def make_request(self, rng):
        flags = rng.choice((0, 0, P.REQ_ORDERED, P.REQ_NO_RETRY, P.REQ_FLAGS))
        deadline = rng.choice((0, 0, 0, 1, 20, 1 << 31))
        kind, at = rng.randrange(10), rng.randrange(64) * BLOCK
        data = rng.randbytes(rng.choice((8, 64, 192)))
        if kind < 4:
            return self.vm.echo(data, flags=flags, deadline_ms=deadline), data
        if kind < 7:
            return self.vm.echo(data, at=at, flags=flags, deadline_ms=deadline), None
        if kind == 7:
            return P.request("INFO", flags=flags), None
        if kind == 8:
            tag = rng.randrange(max(1, self.vm.next_tag + 2))
            return P.request("CANCEL", body=P.pack("vgpu_cancel", tag=tag)), None
        request = bytearray(self.vm.echo(data, at=at, flags=flags))
        for _ in range(rng.choice((1, 2, 8))):  # the size stays: another one is no breach, but no answer
            request[rng.randrange(4, len(request))] = rng.getrandbits(8)
        return bytes(request), None

    def submit(self, rng, most=20):
        ring = rng.randrange(self.vm.rings)
        for _ in range(rng.randrange(1, most)):
            request, data = self.make_request(rng)
            tag = self.vm.prepare(request, ring)
            if tag is None:
                break
            if data:
                self.echoes[tag] = data
        self.vm.publish(ring)

    def submit_slow(self, rng):
        work = slow(self.vm, at=1 << 20, side=rng.choice((60, 200)), search=4)
        if self.vm.prepare(work.request, 0) is not None:
            self.vm.publish(0)

    def poll(self):
        """Take what is there; a guest that broke the rules looks at nothing."""
        if not self.honest:
            return
        for ring in range(self.vm.rings):
            answer = self.vm.poll(ring)
            while answer:
                self.answers += 1
                data = self.echoes.pop(answer.tag, None)
                assert answer.error or data is None or answer.payload == data, "bytes of another request"
                answer = self.vm.poll(ring)

    def hear(self):
        """What the mediator says on the socket; raises Gone when it ended the connection."""
        while select.select([self.vm.link.sock], [], [], 0)[0]:
            self.vm.link.receive()

    def drained(self):
        self.hear()
        self.poll()
        return not self.vm.in_flight()

    def drain(self):
        """A guest that kept the rules gets every answer."""
        wait_for(f"answers of {self.vm.in_flight()} requests", self.drained)

    # ---- breaking the rules ---------------------------------------------------------------------

    def scribble(self, rng):
        ring = self.vm.driver[rng.randrange(self.vm.rings)]
        self.honest = False
        for _ in range(rng.choice((1, 10, 100))):
            place = rng.choice((0, 64, PAGE, PAGE + 64, 2 * PAGE + rng.randrange(64 * ring.entries),
                                rng.randrange(len(ring.bytes))))
            place -= place % 4
            value = rng.choice((rng.getrandbits(32), rng.randrange(300), ring.submit_tail + 1))
            ring.words[place // 4] = value % WRAP
        self.vm.kick(rng.randrange(self.vm.rings))

    def jump(self, rng):
        ring = self.vm.driver[rng.randrange(self.vm.rings)]
        self.honest = False
        ring.store(ring.SUBMIT_TAIL, ring.submit_tail + rng.choice((-1, 1, ring.entries, rng.getrandbits(31))))
        self.vm.kick(rng.randrange(self.vm.rings))

    def change_slot(self, rng):
        """A request whose bytes change after its doorbell: it ends somehow, with its identity."""
        ring = self.vm.driver[0]
        request, _ = self.make_request(rng)
        if self.vm.prepare(request, 0) is None:
            return
        self.honest = False  # what its answer says cannot be foreseen
        self.vm.publish(0)
        at = ring.request_at(rng.randrange(ring.entries))
        for _ in range(200):
            ring.bytes[at + rng.randrange(160)] = rng.getrandbits(8)

    def storm(self, rng):
        for _ in range(rng.choice((10, 300))):
            self.vm.kick(rng.randrange(self.vm.rings))

    # ---- QEMU -----------------------------------------------------------------------------------

    def start_reset(self):
        self.resetting = True
        self.honest = False
        self.vm.start_reset()

    def new_life(self):
        self.resetting, self.honest, self.echoes = False, True, {}

    def reset(self, _=None):
        self.start_reset()
        self.vm.wait_reset(limit_s=2 * LIMIT_S)
        self.new_life()

    def double_reset(self, rng):
        """Also with a guest that does not wait until a reset is over."""
        for _ in range(rng.choice((2, 10))):
            self.start_reset()
            if rng.random() < 0.5:
                self.submit(rng)
        self.reset()

    def window(self, rng):
        request, _ = self.make_request(rng)
        seq = self.vm.window(request, deadline_ms=rng.choice((1, 50, 60000)))
        if rng.random() < 0.3:
            self.vm.link.send("CANCEL", epoch=self.vm.epoch, seq=seq, reason=P.E["CANCELLED"])

    def nonsense(self, rng):
        """A message that ends the connection, or one that is dropped."""
        name = rng.choice(sorted(P.MSG))
        self.vm.link.send_raw(P.pack("vgpu_msg", magic=P.MSG_MAGIC, type=P.MSG[name], length=48,
                                     epoch=rng.choice((0, self.vm.epoch))) + rng.randbytes(32))

    def reconnect(self, rng):
        """As the stub: pages are zeroed once more when a reset waited for the last writer."""
        self.vm.disconnect()
        self.vm.wait_hung_up(2 * LIMIT_S)
        if self.resetting:
            for ring, sent in zip(self.vm.driver, self.vm.sent):
                ring.zero()
                ring.restart()
                sent.clear()
            self.new_life()
        self.vm.connect()
        if not self.honest:
            self.reset()

    STEPS = ((submit, 40), (submit_slow, 3), (scribble, 5), (jump, 2), (change_slot, 4), (storm, 3),
             (reset, 5), (double_reset, 1), (window, 6), (nonsense, 2), (reconnect, 3))

    def step(self, number, rng):
        verbs, weights = zip(*self.STEPS)
        verb = rng.choices(verbs, weights)[0]
        self.trail.append(f"{number} {verb.__name__}")
        try:
            verb(self, rng)
            self.poll()
            self.hear()
        except (Gone, ConnectionError, BrokenPipeError):
            self.trail.append("disconnected")
            self.reconnect(rng)  # the mediator ended the connection, as it may


class GuestFuzzer:
    def __init__(self, rig, seed, names=("a", "b", "c"), neighbour="n", say=print):
        self.m, self.seed, self.say = rig, seed, say
        self.guests = [Guest(rig.socket(n), self.rng_of(n)) for n in names]
        self.neighbour = Neighbour(rig.vm(neighbour))

    def rng_of(self, step):
        return random.Random(f"{self.seed}/{step}")

    def kill_worker(self, rng):
        """Its executor, or all of it."""
        row = self.m.worker_row("w0")
        if not row or not row["executor_pid"]:
            return
        if rng.random() < 0.7:
            with contextlib.suppress(ProcessLookupError):
                os.kill(row["executor_pid"], signal.SIGKILL)
        else:
            self.m.end_worker("w0")
            self.m.start_worker("w0", threads=2, wait=False)

    def kill_mediator(self):
        """The next one goes on where it stopped; QEMU connects again."""
        self.m.kill()
        self.m.start()
        for guest in self.guests:
            guest.trail.append("mediator killed")
            guest.reconnect(None)
        self.neighbour.vm.reconnect(2 * LIMIT_S)

    def step(self, number):
        rng = self.rng_of(number)
        if rng.random() < 0.004:
            self.kill_worker(rng)
        if rng.random() < 0.002:
            self.kill_mediator()
        self.guests[rng.randrange(len(self.guests))].step(number, rng)
        self.neighbour.check()

    def finish(self):
        self.m.wait_worker("w0")
        for guest in self.guests:
            if guest.honest:
                self._tolerant(guest, guest.drain)
            self._tolerant(guest, guest.reset)
            guest.vm.works()
        self.neighbour.close()
        for guest in self.guests:
            guest.vm.disconnect()
            guest.vm.wait_hung_up(2 * LIMIT_S)
            guest.vm.close()

    @staticmethod
    def _tolerant(guest, verb):
        """The connection may have ended by the last nonsense: then once more on a new one."""
        try:
            verb()
        except (Gone, ConnectionError, BrokenPipeError):
            guest.reconnect(None)
            verb()

    def run(self, steps):
        number = -1
        try:
            for number in range(steps):
                self.step(number)
            number = "the end"
            self.finish()
        except BaseException as error:
            trails = "\n".join(f"guest {i}: {', '.join(g.trail)}" for i, g in enumerate(self.guests))
            raise AssertionError(f"seed {self.seed}, step {number}: {error!r}\n{trails}") from error
        self.say(f"seed {self.seed}: {steps} steps, {sum(g.answers for g in self.guests)} answers, "
                 f"neighbour {self.neighbour.done}")


def run_once(tmp, seed, steps):
    """One run with a mediator and worker of its own, and with every other seed a worker that lies; what
    they said when it failed is printed."""
    bands = "".join(f"  {band}: {{max_job: 4s}}\n" for band in ("realtime", "high", "normal", "batch"))
    pool = Rig.plain_pool(["a", "b", "c", "n"], QUICK, pool="bands:\n" + bands)
    with Rig(tmp, yaml=pool) as rig:
        rig.start_worker("w0", threads=2, depth=8)
        before = rig.descriptors()
        liar = HostileWorker(rig.run_dir / "worker.sock", seed) if seed % 2 else None
        try:
            GuestFuzzer(rig, seed).run(steps)
        finally:
            if liar and liar.failure:
                print(f"the hostile worker: {liar.failure!r}")
        if liar:
            liar.close()
            print(f"    a worker that lied {liar.lies} times and answered {liar.good} jobs")
        rig.wait_descriptors(before)

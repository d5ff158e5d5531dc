# SPDX-License-Identifier: MIT
"""A worker that lies: random breaches of the job ring and of its channel, between good answers.

It never gives a well-formed answer with wrong bytes, since nobody could tell; everything else may come:
completions of other slots, twice, with wrong numbers or lengths, indices that jump, bytes that change,
regions that it claims to have let go, silence. When the mediator ends its executor it obeys, as a
supervisor does that kills the process: regions and pipes are gone with it, then it offers a new one.
"""

import contextlib
import os
import random
import select
import struct
import threading
import traceback

from local_proto import P
from mediator_rig import FakeWorker
from ring import PAGE
from worker_rig import Gone


class Stubborn(FakeWorker):
    """One that may keep regions that it is told to let go."""

    keeps = False

    def new_executor(self, pid=None):
        self.keeps = False
        return super().new_executor(pid)

    def _take_region(self, message):
        old = message.fields.region
        if old in self.regions:  # it claimed to have let it go
            self.regions.pop(old).close()
            os.close(self.writers.pop(old))
        super()._take_region(message)

    def _drop_region(self, region):
        if not self.keeps:
            super()._drop_region(region)


class HostileWorker:
    def __init__(self, path, seed, name="liar"):
        self.path, self.name, self.rng = path, name, random.Random(f"{seed}/executor")
        self.ended, self.lies, self.good, self.failure = threading.Event(), 0, 0, None
        self.worker = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def close(self):
        self.ended.set()
        self.thread.join(30)
        if self.failure:
            raise AssertionError(f"the hostile worker: {self.failure!r}") from self.failure

    # ---- life -----------------------------------------------------------------------------------

    def _run(self):
        try:
            while not self.ended.is_set():
                with contextlib.suppress(Gone, OSError, TimeoutError):
                    self._live()
                self._die()
                self.ended.wait(0.05)
        except BaseException as failure:  # for close() to raise
            self.failure = failure
            traceback.print_exc()
            self._die()

    def _live(self):
        """One connection of a supervisor, with executor after executor."""
        self.worker = Stubborn(self.path, name=self.name, depth=4)
        while not self.ended.is_set():
            try:
                self._serve()
            except (Gone, ConnectionError, BrokenPipeError):
                self._let_go()
                self.worker.gone()
                self.worker.new_executor()

    def _die(self):
        if self.worker:
            self._let_go()
            with contextlib.suppress(OSError):
                self.worker.close()
            self.worker = None

    def _let_go(self):
        """What the end of its process takes away from an executor."""
        w = self.worker
        for mapping in w.regions.values():
            mapping.close()
        for fd in w.writers.values():
            os.close(fd)
        w.regions, w.writers = {}, {}

    def _obey(self):
        """The supervisor's link: an executor that is to be killed is killed."""
        w = self.worker
        while select.select([w.link.sock], [], [], 0)[0]:
            if w.link.receive(0).name == "KILL_EXECUTOR":
                raise Gone("killed")

    def _serve(self):
        while not self.ended.is_set():
            self._obey()
            try:
                job = self.worker.job(limit_s=0.1)
            except TimeoutError:
                continue
            except (AssertionError, KeyError):
                raise Gone("its own mess") from None  # it met what it scribbled itself
            self._answer(job)

    # ---- answers --------------------------------------------------------------------------------

    def _answer(self, job):
        echo = (job.hdr.op == P.OP["ECHO"] and [b.dir for b in job.bufs] == [P.IN, P.OUT] and
                job.bufs[0].length == job.bufs[1].length)
        if self.rng.random() < 0.9:
            self.good += 1
            if echo:
                self.worker.do_echo(job)
            else:
                self.worker.done(job, error=P.E["BACKEND_FAULT"])
            return
        self.lies += 1
        self.rng.choice(self.LIES)(self, job)

    def wrong_number(self, job):
        self.worker.complete(job, P.response(job.request, 0), job_id=job.id + self.rng.choice((1, -1)))

    def wrong_attempt(self, job):
        self.worker.complete(job, P.response(job.request, 0), attempt=job.attempt + 1)

    def wrong_slot(self, job):
        slot = self.rng.choice((job.desc.slot + 1, 1 << 31))
        self.worker.complete(job, P.response(job.request, 0), slot=slot)

    def wrong_length(self, job):
        length = self.rng.choice((0, 15, 79, 5000, 1 << 31))
        self.worker.complete(job, P.response(job.request, 0), length=length)

    def wrong_fields(self, job):
        field = self.rng.choice(({"error": 1}, {"reserved": 1}, {"tag": job.desc.tag + 1}))
        self.worker.complete(job, P.response(job.request, 0), **field)

    def no_response(self, job):
        self.worker.complete(job, self.rng.randbytes(self.rng.randrange(64, 4096)))

    def twice(self, job):
        response = P.response(job.request, 0, error=P.E["BACKEND_FAULT"])
        for _ in range(2):
            self.worker.complete(job, response)

    def jump(self, job):
        ring = job.ring.ring
        ring.store(ring.COMPLETE_TAIL, ring.complete_tail + self.rng.choice((1, -1, 1000, 1 << 31)))
        os.eventfd_write(job.ring.call, 1)

    def scribble(self, job):
        """Anywhere in the ring, the mediator's own pages included."""
        ring = job.ring.ring
        for _ in range(self.rng.choice((1, 30, 300))):
            at = self.rng.choice((0, PAGE, 2 * PAGE, 2 * PAGE + 64 * ring.entries))
            at += self.rng.randrange(64 * 32)
            struct.pack_into("<I", ring.bytes, at & ~3, self.rng.choice((self.rng.getrandbits(32), 1)))
        os.eventfd_write(job.ring.call, 1)

    def false_detached(self, job):
        self.worker.channel.send("DETACHED", region=self.rng.choice((job.region, 77777)))

    def keep_regions(self, job):
        self.worker.keeps = True
        self.worker.done(job, error=P.E["BACKEND_FAULT"])

    def nonsense(self, job):
        name = self.rng.choice(sorted(P.MSG))
        link = self.rng.choice((self.worker.channel, self.worker.link))
        link.send_raw(P.pack("vgpu_msg", magic=P.MSG_MAGIC, type=P.MSG[name], length=40) +
                      self.rng.randbytes(24))

    def forget(self, job):
        """No answer, until its supervisor loses patience."""
        self.ended.wait(0.3)
        raise Gone("hung")

    def leave(self, job):
        raise Gone("it crashed")

    LIES = (wrong_number, wrong_attempt, wrong_slot, wrong_length, wrong_fields, no_response, twice, jump,
            scribble, false_detached, keep_regions, nonsense, forget, leave)

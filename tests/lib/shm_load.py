# SPDX-License-Identifier: MIT
"""Load on the rings of one VM, for tests that kill what serves them. Every answer is checked.

    shm_load.py SOCKET      as a process of its own, which may be killed: a line with the number of answers
                            now and then, until it is ended or something is wrong
"""

import os
import random
import sys
import threading
import time

from local_proto import P
from shm_client import Vm
from shm_rig import LIMIT_S, slow

BLOCK = 4096
SCRIBBLE = b"\x5a" * BLOCK
LOST = {P.E["WORKER_LOST"], P.E["BACKEND_RESTARTED"], P.E["QUARANTINED"]}


class Load:
    """A guest: keeps requests of several kinds in flight on all rings of a Vm, whose connection is
    somebody else's business. An output range that was handed back is scribbled over, and must stay so
    until it is used again."""

    def __init__(self, vm, seed=1, in_flight=24):
        self.vm, self.noise, self.in_flight = vm, random.Random(seed), in_flight
        self.places = list(range(64))  # pairs of blocks in the arena
        self.pending = {}  # tag: (kind, data, place)
        self.scribbled = set()
        self.answered, self.errors, self.failure = 0, {}, None
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self.thread.start()
        return self

    def _at(self, place):
        return (2 << 20) + place * 2 * BLOCK

    def _submit(self, ring):
        kind = self.noise.choice(["inline", "inline", "arena", "arena", "once", "slow"])
        data, place, work = os.urandom(64), None, None
        if kind == "slow" and any(k == "slow" for k, _, _ in self.pending.values()):
            kind = "inline"
        if kind == "slow":
            work = slow(self.vm, side=120, search=6)
            request = work.request
        elif kind == "arena":
            place = self.places.pop(0)
            self._check_scribble(place)
            self.scribbled.discard(place)
            data = os.urandom(BLOCK)
            request = self.vm.echo(data, at=self._at(place))
        else:
            request = self.vm.echo(data, flags=P.REQ_NO_RETRY if kind == "once" else 0)
        tag = self.vm.prepare(request, ring)
        self.pending[tag] = (kind, work or data, place)

    def _check_scribble(self, place):
        if place in self.scribbled:
            assert self.vm.get(self._at(place) + BLOCK, BLOCK) == SCRIBBLE, "written after the completion"

    def _take(self, answer):
        kind, data, place = self.pending.pop(answer.tag)
        if answer.error:
            assert answer.error in LOST and answer.text, f"error {answer.error}: {answer.text}"
            assert kind == "once" or answer.error == P.E["QUARANTINED"], f"{kind}: {answer.text}"
            self.errors[answer.error] = self.errors.get(answer.error, 0) + 1
        elif kind == "slow":
            assert data.done(), "wrong bytes"
        elif kind == "arena":
            assert self.vm.get(self._at(place) + BLOCK, BLOCK) == data, "wrong bytes"
        else:
            assert answer.payload == data, "wrong bytes"
        if kind == "slow":
            self.vm.put(data.out, bytes(data.size))
        if place is not None:
            self.vm.put(self._at(place) + BLOCK, SCRIBBLE)
            self.scribbled.add(place)
            self.places.append(place)
        self.answered += 1

    def step(self, limit_s):
        for ring in range(self.vm.rings):
            while len(self.pending) < self.in_flight and self.places and self.vm.driver[ring].free:
                self._submit(ring)
                if self.noise.random() < 0.3:
                    break
            self.vm.publish(ring)
        self._take(self.vm.wait_any(limit_s)[1])

    def _run(self):
        try:
            while not self.ended.is_set():
                self.step(LIMIT_S)
            while self.pending:
                self._take(self.vm.wait_any(LIMIT_S)[1])
            for place in list(self.scribbled):
                self._check_scribble(place)
        except BaseException as failure:  # raised by check()
            self.failure = failure

    def check(self):
        if self.failure:
            raise self.failure

    def wait_answers(self, count):
        """Until so many more have been answered."""
        goal, end = self.answered + count, time.monotonic() + LIMIT_S
        while self.answered < goal:
            self.check()
            assert time.monotonic() < end, f"{self.answered} of {goal} answers"
            time.sleep(0.002)

    def finish(self):
        """End: everything that is in flight is answered."""
        self.ended.set()
        self.thread.join(2 * LIMIT_S)
        assert not self.thread.is_alive()
        self.check()
        assert not self.pending and self.vm.in_flight() == 0


def main():
    with Vm(sys.argv[1], rings=2) as vm:
        load = Load(vm, seed=os.getpid())
        while True:
            load.step(LIMIT_S)
            if load.answered % 20 == 0:
                print(load.answered, flush=True)


if __name__ == "__main__":
    main()

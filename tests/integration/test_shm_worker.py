# SPDX-License-Identifier: MIT
"""Workers that die or stop while they compute in a VM's own memory: each request is answered once, and
nobody writes to its buffers after its completion."""

import os
import random
import signal
import time

import pytest
import shm_kill
from shm_rig import P, Rig, alive, slow, wait_for

SCRIBBLE = b"\x5a"


@pytest.fixture
def m(tmp_path):
    with Rig(tmp_path) as rig:
        yield rig


@pytest.fixture
def vm(m):
    with m.vm("a") as v:
        yield v
        assert v.in_flight() == 0


class Watch:
    """Scribbles over output ranges whose request was completed and sees that it stays."""

    def __init__(self, vm):
        self.vm, self.works = vm, []

    def add(self, work):
        self.vm.put(work.out, SCRIBBLE * work.size)
        self.works.append(work)

    def check(self):
        for w in self.works:
            assert self.vm.get(w.out, w.size) == SCRIBBLE * w.size, "written after the completion"


@pytest.mark.parametrize("victim", ["executor", "supervisor"])
def test_killed_while_it_computes(m, vm, victim):
    for name in ("w0", "w1"):
        m.start_worker(name)
    work = slow(vm)
    vm.submit(work.request)
    busy = m.wait_running()
    pid = m.executor_pid(busy)
    os.kill(pid if victim == "executor" else m.workers[busy].pid, signal.SIGKILL)
    answer = vm.collect()
    assert answer.error == 0 and answer.hdr.attempts == 2 and work.done()
    assert not alive(pid)
    watch = Watch(vm)
    watch.add(work)
    vm.works()
    wait_for("nothing lingers", lambda: m.lingering() == 0)
    watch.check()


def test_the_only_worker_is_killed_and_started_again(m, vm):
    m.start_worker("w0")
    work = slow(vm)
    vm.submit(work.request)
    m.wait_running()
    m.signal_worker("w0", signal.SIGKILL)
    m.workers["w0"].wait()
    wait_for("it is gone", lambda: not m.worker_up("w0"))
    m.start_worker("w0")
    answer = vm.collect()
    assert answer.error == 0 and answer.hdr.attempts == 2 and work.done()


def test_no_retry(m, vm):
    m.start_worker("w0")
    work = slow(vm, flags=P.REQ_NO_RETRY)
    vm.submit(work.request)
    m.wait_running()
    os.kill(m.executor_pid(), signal.SIGKILL)
    answer = vm.collect()
    assert answer.error == P.E["WORKER_LOST"] and answer.hdr.attempts == 1


def test_quarantined(m, vm):
    """A job whose executor dies three times."""
    m.start_worker("w0")
    work = slow(vm, side=900, search=12)
    vm.submit(work.request)
    for attempt in range(3):
        m.wait_running()
        pid = m.executor_pid()
        os.kill(pid, signal.SIGKILL)
        wait_for("it is seen", lambda: m.executor_pid() != pid)
        assert attempt == 2 or m.wait_running()
    answer = vm.collect()
    assert answer.error == P.E["QUARANTINED"] and answer.hdr.attempts == 3
    vm.works()


def test_stopped_and_continued(m, vm):
    """While the writer is only stopped its request waits: a second writer to the same bytes would be one
    too many. Continued, it is answered once."""
    for name in ("w0", "w1"):
        m.start_worker(name)
    work = slow(vm)
    vm.submit(work.request)
    stopped = m.wait_running()
    m.signal_worker(stopped, signal.SIGSTOP)
    wait_for("it is lost", lambda: not m.worker_up(stopped))
    with pytest.raises(TimeoutError):
        vm.collect(limit_s=1.5)
    small = vm.echo(b"others are served")
    assert vm.call(small).payload == b"others are served"
    m.signal_worker(stopped, signal.SIGCONT)
    answer = vm.collect()
    assert answer.error == 0 and work.done()
    watch = Watch(vm)
    watch.add(work)
    m.wait_worker(stopped)
    vm.works()
    watch.check()


def test_inline_requests_need_not_wait_for_a_stopped_worker(m, vm):
    """Without outputs in the arena there is nothing that a late writer could spoil."""
    m.start_worker("w0", depth=4)
    vm.works()
    executor = m.executor_pid()
    os.kill(executor, signal.SIGSTOP)
    tag = vm.submit(vm.echo(b"inline"))
    m.start_worker("w1")
    assert vm.collect().tag == tag
    wait_for("the stopped one was ended", lambda: not alive(executor))


def test_only_the_executor_is_stopped(m, vm):
    """The supervisor ends it; the answer of the second try comes after its end."""
    for name in ("w0", "w1"):
        m.start_worker(name)
    work = slow(vm)
    vm.submit(work.request)
    busy = m.wait_running()
    pid = m.executor_pid(busy)
    os.kill(pid, signal.SIGSTOP)
    answer = vm.collect()
    assert not alive(pid), "answered while the first writer exists"
    assert answer.error == 0 and work.done() and answer.hdr.attempts == 2


def test_deadline_waits_for_a_writer_that_is_stopped(m, vm):
    m.start_worker("w0")
    work = slow(vm, deadline_ms=400)
    vm.submit(work.request)
    m.wait_running()
    m.signal_worker("w0", signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        vm.collect(limit_s=1.5)
    m.signal_worker("w0", signal.SIGCONT)
    answer = vm.collect()
    assert answer.error == P.E["DEADLINE"]
    watch = Watch(vm)
    watch.add(work)
    m.wait_worker()
    vm.works()
    watch.check()


def test_workers_killed_stopped_and_continued_under_load(tmp_path):
    """Two workers, four rings, a signal every now and then; every answer is right, none comes twice."""
    noise = random.Random(11)
    with Rig(tmp_path) as m, m.vm("a", rings=4, entries=16) as vm:
        for name in ("w0", "w1"):
            m.start_worker(name)
        slots = {}  # tag: (data, offset)
        free = [(1 << 20) + i * 8192 for i in range(64)]
        answered, stopped, next_signal = 0, None, time.monotonic() + 0.3
        signals = 0
        while signals < 16 or slots:
            for ring in range(4):
                while signals < 16 and free and vm.driver[ring].free:
                    at, data = free.pop(), os.urandom(2048)
                    slots[vm.prepare(vm.echo(data, at=at), ring)] = (data, at)
                vm.publish(ring)
            _, answer = vm.wait_any(120)
            data, at = slots.pop(answer.tag)
            assert answer.error in (0, P.E["QUARANTINED"]), answer.text
            if answer.error == 0:
                assert vm.get(at + 2048, 2048) == data
            vm.put(at + 2048, bytes(2048))
            free.insert(0, at)
            answered += 1
            if time.monotonic() > next_signal:
                next_signal = time.monotonic() + 0.3
                signals += 1
                if stopped:
                    m.signal_worker(stopped, signal.SIGCONT)
                    stopped = None
                    continue
                name = noise.choice(["w0", "w1"])
                row = m.worker_row(name)
                kind = noise.choice(["kill executor", "stop executor", "stop all"])
                if kind == "stop all":
                    m.signal_worker(name, signal.SIGSTOP)
                    stopped = name
                elif row["executor_pid"]:
                    number = signal.SIGKILL if kind == "kill executor" else signal.SIGSTOP
                    os.kill(row["executor_pid"], number)
            if stopped and (signals >= 16 or not any(d.free for d in vm.driver)):
                m.signal_worker(stopped, signal.SIGCONT)
                stopped = None
        assert answered > 100
        vm.works()


@pytest.mark.parametrize("victim", ["client", "mediator", "worker"])
def test_kill_9_a_few_times(tmp_path, victim):
    """The long form is tests/full.d/shm-kill.sh."""
    shm_kill.run(victim, 6, tmp_path)

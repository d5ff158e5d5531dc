# SPDX-License-Identifier: MIT
"""A guest that breaks the rules of its rings, or floods: it is cut off until it resets its device, and
another VM of the same mediator loses nothing."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading

import pytest
from shm_rig import LIMIT_S, P, Rig, private_kib, slow, wait_for
from worker_rig import SANITIZED, Gone

WRAP = 1 << 32


@pytest.fixture(scope="module")
def m(tmp_path_factory):
    with Rig(tmp_path_factory.mktemp("m"), mediator="heartbeat: 1s") as rig:
        rig.start_worker("w0", threads=2, depth=8)
        yield rig


class Neighbour:
    """Another VM that works all the time; every answer is checked."""

    def __init__(self, m):
        self.vm, self.done, self.failure = m.vm("b"), 0, None
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self):
        try:
            while not self.ended.is_set():
                data = self.done.to_bytes(8, "little") * 4
                assert self.vm.call(self.vm.echo(data)).payload == data
                self.done += 1
        except BaseException as failure:  # for the test's thread to raise
            self.failure = failure

    def progresses(self, count=20):
        goal = self.done + count
        wait_for("the neighbour works", lambda: self.done >= goal or self.failure)
        if self.failure:
            raise self.failure

    def close(self):
        self.progresses()
        self.ended.set()
        self.thread.join(LIMIT_S)
        if self.failure:
            raise self.failure
        self.vm.close()


@pytest.fixture
def neighbour(m):
    n = Neighbour(m)
    yield n
    n.close()
    wait_for("it is gone", lambda: not m.connected("b"))


@pytest.fixture
def vm(m, neighbour):
    with m.vm("a", rings=2) as v:
        v.works()
        yield v
    wait_for("it is gone", lambda: not m.connected("a") and m.lingering("a") == 0)


def publish_tail(vm, tail):
    ring = vm.driver[0]
    ring.store(ring.SUBMIT_TAIL, tail)
    vm.kick()


def jump(by):
    def breach(vm):
        publish_tail(vm, vm.driver[0].submit_tail + by)
    return breach


def descriptor(**fields):
    def breach(vm):
        ring = vm.driver[0]
        slot = ring.take()
        request = vm.echo(b"x" * 16)
        ring.write(slot, request)
        values = dict(slot=slot, length=len(request))
        values.update(fields)
        at = ring.desc_at(ring.submit_tail)
        ring.bytes[at : at + 64] = P.pack("vgpu_desc", tag=5, **values)
        publish_tail(vm, ring.submit_tail + 1)
    return breach


def slot_twice_at_once(vm):
    ring = vm.driver[0]
    slot = ring.take()
    request = vm.echo(b"x" * 16)
    ring.write(slot, request)
    ring.submit(slot, len(request), 1)
    ring.submit(slot, len(request), 2)
    publish_tail(vm, ring.submit_tail)


def slot_of_a_running_request(vm):
    ring = vm.driver[0]
    slot = ring.free[-1]
    vm.submit(slow(vm).request)
    state = 64 + 64 * vm.rings + 64 * slot
    wait_for("it was started", lambda: vm.inflight[state] == P.INFLIGHT_STARTED)
    request = vm.echo(b"x" * 16)
    ring.write(slot, request)
    ring.submit(slot, len(request), 2)
    publish_tail(vm, ring.submit_tail)


BREACHES = {
    "more than the ring holds": jump(65),
    "far ahead": jump(1 << 31),
    "one back": jump(-1),
    "half a ring back": jump(-32),
    "slot behind the last": descriptor(slot=64),
    "slot far out": descriptor(slot=WRAP - 1),
    "length zero": descriptor(length=0),
    "length of more than a slot": descriptor(length=4097),
    "length far out": descriptor(length=WRAP - 1),
    "reserved": descriptor(reserved=b"\0" * 47 + b"\1"),
    "a slot twice at once": slot_twice_at_once,
    "a slot of a running request": slot_of_a_running_request,
}


@pytest.mark.parametrize("name", BREACHES)
def test_breach_of_the_rules(m, vm, neighbour, name):
    """STATE.broken and both rings' flags; nothing is completed any more; a reset heals."""
    work = slow(vm, side=200)
    vm.submit(work.request, ring=1)
    BREACHES[name](vm)
    vm.wait_broken()
    tails = [r.load(r.COMPLETE_TAIL) for r in vm.driver]
    for ring in range(2):
        vm.kick(ring)
    neighbour.progresses()
    assert [r.load(r.COMPLETE_TAIL) for r in vm.driver] == tails, "a completion on a broken device"
    vm.reset()
    assert not any(r.broken for r in vm.driver)
    vm.works()
    assert "fault:" not in m.log()


@pytest.mark.parametrize("length", [1, 47, 48, 100, 4096])
def test_length_that_is_not_the_headers(vm, length):
    """The request is malformed, the ring is not broken."""
    driver = vm.driver[0]
    request = vm.echo(b"x" * 16)
    assert length != len(request)
    driver.write(slot := driver.take(), request)
    vm.sent[0][5] = request
    driver.submit(slot, length, 5)
    vm.publish()
    wait_for("it is completed", lambda: driver.load(driver.COMPLETE_TAIL) != driver.complete_head)
    done = driver.collect()
    assert (done.tag, done.error) == (5, P.E["BAD_LENGTH"]) and not driver.broken
    driver.give_back(slot)
    vm.works()


@pytest.mark.parametrize("length", [1, 24, 47])
def test_a_piece_of_a_header_tells_nothing_of_others(vm, length):
    """What the answer says of the request is of these bytes, not of those that lay there before."""
    driver = vm.driver[0]
    request = bytes(length)
    driver.write(slot := driver.take(), request)
    driver.submit(slot, length, 5)
    vm.publish()
    wait_for("it is completed", lambda: driver.load(driver.COMPLETE_TAIL) != driver.complete_head)
    hdr = P.unpack("vgpu_resp_hdr", driver.collect().response)
    assert (hdr.error, hdr.tag, hdr.op) == (P.E["BAD_LENGTH"], 0, 0)
    driver.give_back(slot)
    vm.works()


def test_broken_again_and_again(m, vm, neighbour):
    before = m.descriptors()
    for i in range(60):
        vm.call(vm.echo(b"fine"))
        BREACHES[list(BREACHES)[i % len(BREACHES)]](vm)
        vm.wait_broken()
        vm.reset()
    vm.works()
    neighbour.progresses()
    m.wait_descriptors(before)


def test_device_pages_and_completions_are_not_believed(vm, neighbour):
    """What the mediator wrote there, the guest may spoil: that is its own loss."""
    noise = random.Random(3)
    ring = vm.driver[0]
    request = vm.echo(b"x" * 16)
    for _ in range(10):
        for slot in range(20):
            ring.bytes[4096:8192] = noise.randbytes(4096)
            at = ring.completion_at(0)
            ring.bytes[at : at + 32 * ring.entries] = noise.randbytes(32 * ring.entries)
            ring.write(slot, request)
            ring.submit(slot, len(request), 1)
            ring.store(ring.SUBMIT_TAIL, ring.submit_tail)
            vm.kick()
        vm.reset()
    vm.works()
    neighbour.progresses()


def scribbler(vm, seed, ended, places):
    """Changes words of what was submitted, as a second processor of the guest may."""
    noise = random.Random(seed)
    ring = vm.driver[0]
    while not ended.is_set():
        at = noise.choice(places)(noise)
        ring.words[at // 4] = noise.choice([0, 1, 64, 48, 4096, noise.getrandbits(32)])


@pytest.mark.parametrize("what", ["slots", "descriptors", "everything"])
def test_bytes_that_change_after_the_submission(m, vm, neighbour, what):
    ring = vm.driver[0]
    slots = [lambda n: ring.request_at(n.randrange(ring.entries)) + 4 * n.randrange(40)]
    descs = [lambda n: ring.desc_at(0) + 4 * n.randrange(16 * ring.entries)]
    pages = [lambda n: 4 * n.randrange(2048)]
    places = {"slots": slots, "descriptors": descs, "everything": slots + descs + pages}[what]
    ended = threading.Event()
    thread = threading.Thread(target=scribbler, args=(vm, 1, ended, places), daemon=True)
    thread.start()
    try:
        for round_ in range(60):
            for i in range(24):
                slot = i
                request = vm.echo(os.urandom(32), at=None if i % 2 else 4096 * i)
                ring.write(slot, request)
                ring.submit(slot, len(request), i)
            ring.store(ring.SUBMIT_TAIL, ring.submit_tail)
            vm.kick()
            if round_ % 4 == 3:
                vm.start_reset()
                vm.wait_reset(clean=False)
    finally:
        ended.set()
        thread.join()
    vm.reset()
    vm.works()
    neighbour.progresses()
    assert m.process.poll() is None and "fault:" not in m.log()


ARENA = 1 << 20  # bytes of each input


def unsteady_jobs():
    """Operations whose inputs are looked at more than once, or decide where something is written."""
    n = ARENA // 4
    rng = (P.BUF_ARENA, P.IN, 0, ARENA)
    for dtype, value_size in (("F32", 0), ("F32", 4), ("U32", 0), ("I32", 8)):
        bufs = [rng, (P.BUF_ARENA, P.OUT, 4 * ARENA, ARENA)]
        if value_size:
            values = value_size * n
            bufs = [rng, (P.BUF_ARENA, P.IN, ARENA, values), (P.BUF_ARENA, P.OUT, 4 * ARENA, ARENA),
                    (P.BUF_ARENA, P.OUT, 5 * ARENA, values)]
        yield P.request("SORT", bufs, P.pack("vgpu_sort", dtype=P.DTYPE[dtype], value_size=value_size, n=n))
    for kind in (P.REDUCE_MAX, P.REDUCE_ARGMAX):
        body = P.pack("vgpu_reduce", dtype=P.DTYPE["F32"], kind=kind, n=n, stride=1)
        yield P.request("REDUCE", [rng, (P.BUF_ARENA, P.OUT, 4 * ARENA, 4 if kind == P.REDUCE_MAX else 8)], body)
    body = P.pack("vgpu_fft", dtype=P.DTYPE["F32"], rank=1, n0=n // 2, batch=1)
    yield P.request("FFT", [rng, (P.BUF_ARENA, P.OUT, 4 * ARENA, ARENA)], body)
    body = P.pack("vgpu_gemm", dtype=P.DTYPE["F32"], m=256, n=256, k=256, lda=256, ldb=256, alpha=1.0)
    yield P.request("GEMM", [(P.BUF_ARENA, P.IN, 0, 1 << 18), (P.BUF_ARENA, P.IN, 1 << 18, 1 << 18),
                             (P.BUF_ARENA, P.OUT, 4 * ARENA, 1 << 18)], body)
    body = P.pack("vgpu_denoise", dtype=P.DTYPE["F32"], channels=1, patch=1, search=2, sigma=1.0, h=5.0,
                  width=256, height=256, stride=1024, w=256, h_out=256)
    yield P.request("DENOISE", [(P.BUF_ARENA, P.IN, 0, 1 << 18), (P.BUF_ARENA, P.OUT, 4 * ARENA, 1 << 18)],
                    body)


def test_inputs_that_change_while_they_are_read(m, vm, neighbour):
    """The executor works in the guest's memory: whatever happens there, it writes nowhere else and lives."""
    executor, ended = m.executor_pid(), threading.Event()
    guard = b"\x77" * 4096
    edges = (4 * ARENA - 4096, 7 * ARENA)  # around all outputs
    for at in edges:
        vm.put(at, guard)

    def change():
        blocks = [os.urandom(1 << 16), b"\xff" * (1 << 16), bytes(1 << 16)]
        noise = random.Random(2)
        while not ended.is_set():
            vm.put(noise.randrange(3 * ARENA // (1 << 16)) << 16, noise.choice(blocks))

    thread = threading.Thread(target=change, daemon=True)
    thread.start()
    try:
        for _ in range(3):
            for request in unsteady_jobs():
                assert vm.call(request).error == 0
    finally:
        ended.set()
        thread.join()
    assert m.executor_pid() == executor, m.worker_log()[-2000:]
    assert all(vm.get(at, 4096) == guard for at in edges)
    neighbour.progresses()


# ---- floods ----

STORM = """
import os, sys
fds = [int(fd) for fd in sys.argv[1:]]
print("up", flush=True)
while True:
    for _ in range(1000):
        for fd in fds:
            try:
                os.eventfd_write(fd, 1)
            except BlockingIOError:
                pass
"""


@pytest.fixture
def storm():
    processes = []

    def start(fds):
        p = subprocess.Popen([sys.executable, "-c", STORM, *map(str, fds)], pass_fds=fds,
                             stdout=subprocess.PIPE)
        assert p.stdout.readline() == b"up\n"
        processes.append(p)

    yield start
    for p in processes:
        p.kill()
        p.wait()
        p.stdout.close()


def test_doorbell_storm(m, vm, neighbour, storm):
    """The neighbour and the stormy VM itself are served on."""
    storm(vm.kicks)
    neighbour.progresses(300)
    for i in range(50):
        assert vm.call(vm.echo(bytes([i]))).payload == bytes([i])
    assert m.ask("vms")["vms"]
    vm.reset()
    vm.works()


def test_doorbell_storm_on_a_broken_device(m, vm, neighbour, storm):
    storm(vm.kicks)
    BREACHES["far ahead"](vm)
    vm.wait_broken()
    neighbour.progresses(300)


def test_a_guest_that_never_looks_at_its_completions(m, vm, neighbour):
    """It submits on in slots that it may use; the mediator keeps nothing for it."""
    ring = vm.driver[0]
    request = vm.echo(b"x" * 16)
    for slot in range(ring.entries):
        ring.write(slot, request)
    before = private_kib(m.process.pid)
    for _ in range(100):
        for slot in range(ring.entries):
            ring.submit(slot, len(request), slot)
        ring.store(ring.SUBMIT_TAIL, ring.submit_tail)
        vm.kick()
        wait_for("all are complete", lambda: ring.load(ring.COMPLETE_TAIL) == ring.submit_tail)
    neighbour.progresses()
    assert not ring.broken and (private_kib(m.process.pid) - before < 1024 or SANITIZED)
    vm.reset()
    vm.works()


def test_a_flood_of_requests(tmp_path):
    """Eight rings of 4,096, filled before the bell: what is too much for the VM's tenant is answered BUSY,
    each is answered once, the mediator's memory stays bounded, and another tenant loses nothing."""
    pool = "version: 1\nmediator: {heartbeat: 1s}\nvms:\n  - {name: a}\n  - {name: b}\n"
    with Rig(tmp_path, yaml=pool) as m:
        m.start_worker("w0")
        neighbour, before = Neighbour(m), private_kib(m.process.pid)
        with m.vm("a", rings=8, entries=4096, slot_bytes=256, shm_size=64 << 20) as vm:
            request = vm.echo(b"flood")
            for ring in range(8):
                while vm.prepare(request, ring) is not None:
                    pass
            for ring in range(8):
                vm.publish(ring)
            neighbour.progresses()
            answers = vm.collect_all()
            assert len(answers) == 8 * 4096
            assert {a.error for a in answers.values()} <= {0, P.E["BUSY"]}
            assert all(a.hdr.retry_after_ms > 0 for a in answers.values() if a.error)
            assert private_kib(m.process.pid) - before < 65536 or SANITIZED
            vm.works()
        neighbour.close()


def test_a_stub_that_never_reads_its_socket(m, vm, neighbour):
    """Its answers pile up to the limit, then it is cut off."""
    before = private_kib(m.process.pid)
    with pytest.raises(OSError):
        for i in range(2_000_000):
            vm.link.send("WISH", epoch=vm.epoch, band=i % 4)
            if i % 1000 == 0:
                neighbour.progresses(1)
    neighbour.progresses()
    wait_for("it is cut off", lambda: not m.connected("a"))
    assert private_kib(m.process.pid) - before < 16384 or SANITIZED
    vm.reconnect()
    vm.works()


def test_a_stub_that_does_not_read_loses_no_ring(m, vm, neighbour):
    """Rings need no socket."""
    for _ in range(200):
        vm.link.send("WISH", epoch=vm.epoch, band=P.BAND_BATCH)
    for i in range(100):
        assert vm.call(vm.echo(bytes([i]))).payload == bytes([i])


def fill(fd):
    """Its counter is as large as it can be; a signal of an earlier answer may come late."""
    while True:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(fd)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(fd, WRAP * WRAP - 2)
            return


def test_call_eventfd_that_is_full(m, vm, neighbour):
    """A signal that does not fit is no reason to wait, and the completion is there."""
    fill(vm.calls[0])
    tag = vm.prepare(vm.echo(b"x"))
    vm.driver[0].arm()
    vm.publish()
    wait_for("the answer", lambda: vm.driver[0].load(vm.driver[0].COMPLETE_TAIL) != vm.driver[0].complete_head)
    assert vm.poll().tag == tag
    os.eventfd_read(vm.calls[0])
    vm.works()


@pytest.mark.parametrize("which", ["kicks", "calls"])
def test_eventfds_made_blocking(m, vm, neighbour, which):
    """O_NONBLOCK is shared with whoever passed the descriptor: the mediator must not rely on it."""
    if which == "calls":
        fill(vm.calls[0])
    for fd in getattr(vm, which):
        os.set_blocking(fd, True)
    if which == "calls":
        vm.prepare(vm.echo(b"x"))
        vm.driver[0].arm()
        vm.publish()
        neighbour.progresses()
        os.set_blocking(vm.calls[0], False)
        os.eventfd_read(vm.calls[0])
        vm.collect()
    else:
        vm.kick()
        neighbour.progresses()
    for fd in getattr(vm, which):
        os.set_blocking(fd, False)
    vm.works()


def test_window_flood(m, vm, neighbour):
    with pytest.raises(OSError):
        for _ in range(100_000):
            vm.window(vm.echo(b"x" * 64))
    neighbour.progresses()
    wait_for("it is cut off", lambda: not m.connected("a"))
    vm.reconnect()
    vm.works()


def test_data_on_this_path(m, vm):
    """Inputs lie in the arena: a stub that sends them is wrong."""
    vm.window(vm.echo(b"x" * 64, at=0))
    vm.link.send("DATA", epoch=vm.epoch, tail=b"x" * 64, seq=vm.seq, buffer=0)
    vm.gone()
    vm.reconnect()
    vm.works()


def test_a_mediator_that_was_stopped_meets_a_mess(m, vm, neighbour):
    m.process.send_signal(signal.SIGSTOP)
    for ring in vm.driver:
        ring.bytes[:] = os.urandom(len(ring.bytes))
    for ring in range(2):
        vm.kick(ring)
    m.process.send_signal(signal.SIGCONT)
    vm.wait_message("STATE", lambda f: f.broken)
    vm.reset()
    vm.works()
    neighbour.progresses()


def test_a_stub_that_comes_and_goes(m, neighbour):
    """Connections are taken at a pace: the others are served, and the VM itself gets in again."""
    for _ in range(200):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            s.connect(str(m.socket("a")))
    neighbour.progresses()

    def gets_in():
        with contextlib.suppress(Gone), m.vm("a") as vm:
            vm.works()
            return True

    wait_for("the VM gets in again", gets_in)

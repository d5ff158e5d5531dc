# SPDX-License-Identifier: MIT
"""HELLO of the shared-memory path: every wrong descriptor and layout is refused with a sentence, nothing
of it stays in the mediator, and the next good HELLO is served."""

import contextlib
import fcntl
import os
import resource
import select
import socket

import pytest
from mediator_rig import FakeStub, echo
from shm_client import SEALS, inflight_bytes, memfd
from shm_rig import P, Rig, mappings, wait_for
from worker_rig import SANITIZED

SHRINK, GROW, SEAL = fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_GROW, fcntl.F_SEAL_SEAL


@pytest.fixture(scope="module")
def m(tmp_path_factory):
    with Rig(tmp_path_factory.mktemp("m")) as rig:
        rig.start_worker("w0")
        with rig.vm("b") as warm, FakeStub(rig.socket("a")) as stub:  # what is made on first use is there
            warm.works()
            stub.request(*echo(b"x", inline=False))
            assert stub.answer().error == 0
        wait_for("they are gone", lambda: not rig.connected("a") and not rig.connected("b"))
        yield rig


@pytest.fixture
def clean(m):
    """What a test does leaves no descriptor and no mapping, and the VM is served afterwards."""
    before = m.descriptors()
    with m.vm("b") as bystander:
        yield
        bystander.works()
    wait_for("all are gone", lambda: not m.connected("a") and not m.connected("b"))
    m.wait_descriptors(before)
    wait_for("no mapping stays", lambda: mappings(m.process.pid) == 0)
    with m.vm("a") as vm:
        vm.works()
    wait_for("it is gone", lambda: not m.connected("a"))


def test_accepted(m, clean):
    with m.vm("a", rings=3) as vm:
        assert vm.ack.version == P.LOCAL_VERSION_MAX and vm.ack.features == P.LOCAL_FEATURE_SHM
        assert (vm.ack.vm_id, vm.ack.pool_id, vm.ack.up) == (1, 7, 1)
        vm.works()


def test_a_stub_without_shared_memory_is_served_as_before(m, clean):
    with FakeStub(m.socket("a")) as s:
        assert s.ack.features == 0
        s.request(*echo(b"socket path", inline=False))
        assert bytes(s.answer().outputs[1]) == b"socket path"


def test_a_second_connection_is_refused(m, clean):
    with m.vm("a") as first, m.vm("a", start=False) as second:
        reason, why = second.refused()
        assert reason == P.REFUSED_ALREADY_CONNECTED and str(os.getpid()) in why
        second.wait_hung_up()
        first.works()


# ---- descriptors ----


@contextlib.contextmanager
def descriptor(kind, vm):
    """A descriptor that is not what belongs in its place."""
    sizes = {"shm": vm.shm_size, "inflight": inflight_bytes(vm.rings, vm.entries)}
    what, _, flaw = kind.partition(" ")
    fds = []
    if what in sizes:
        size = sizes[what] + {"too small": -1, "far too small": -sizes[what] + 1, "too large": 4096}.get(flaw, 0)
        seals = {"without seals": 0, "not sealed against shrinking": GROW | SEAL,
                 "not sealed against growing": SHRINK | SEAL,
                 "sealed against writing": SEALS | fcntl.F_SEAL_WRITE}.get(flaw, SEALS)
        fds.append(memfd("wrong", size, seals, huge=flaw == "of huge pages"))
        if flaw == "read only":
            fds.insert(0, os.open(f"/proc/self/fd/{fds[0]}", os.O_RDONLY | os.O_CLOEXEC))
    elif kind == "file":
        path = vm.path.parent / "file"
        fds.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        os.ftruncate(fds[0], vm.shm_size)
    elif kind == "null":
        fds.append(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
    elif kind == "directory":
        fds.append(os.open("/", os.O_RDONLY | os.O_CLOEXEC))
    elif kind == "socket":
        fds = [s.detach() for s in socket.socketpair()]
    elif kind == "eventfd":
        fds.append(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
    elif kind == "epoll":
        epoll = select.epoll()
        fds.append(os.dup(epoll.fileno()))
        epoll.close()
    elif kind == "pipe read end":
        fds = list(os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK))
    elif kind == "pipe write end":
        fds = list(os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK))[::-1]
    try:
        yield fds[0]
    finally:
        for fd in fds:
            os.close(fd)


OTHER = ["file", "null", "directory", "socket", "epoll", "pipe read end"]
MEMFD_FLAWS = ["without seals", "not sealed against shrinking", "not sealed against growing", "too small",
               "far too small", "too large", "read only", "sealed against writing"]
WRONG = [(P.HELLO_FD_SHM, k) for k in OTHER + ["eventfd", "pipe write end"] + [f"shm {f}" for f in MEMFD_FLAWS]]
WRONG += [(P.HELLO_FD_INFLIGHT, k) for k in OTHER + ["eventfd"] + [f"inflight {f}" for f in MEMFD_FLAWS]]
WRONG += [(P.HELLO_FD_SHM, "shm of huge pages")]
WRONG += [(P.HELLO_FD_WRITERS, k) for k in OTHER + ["eventfd", "shm"]]
WRONG += [(place, k) for place in (3, 4, 5, 6) for k in OTHER + ["pipe write end", "shm"]]


@pytest.mark.parametrize("place, kind", WRONG)
def test_wrong_descriptor(m, clean, place, kind):
    with m.vm("a", rings=2, start=False) as vm, descriptor(kind, vm) as fd:
        reason, why = vm.refused(replace={place: fd})
        assert reason == P.REFUSED_MALFORMED and len(why) > 10
        vm.wait_hung_up()
        vm.connect()
        vm.works()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 6, 8, 64, 131])
def test_wrong_number_of_descriptors(m, clean, count):
    """Seven belong to a HELLO with two rings."""
    with m.vm("a", rings=2, start=False) as vm:
        fds = [vm.shm_fd, vm.inflight_fd, None, *vm.kicks, *vm.calls]
        fds = (fds + [vm.calls[0]] * 200)[:count]
        reason, why = vm.refused(fds=fds)
        assert reason == P.REFUSED_MALFORMED and len(why) > 10
        vm.wait_hung_up()
        vm.connect()
        vm.works()


def test_more_descriptors_than_any_message_has(m, clean):
    """Such a message is not read to its end."""
    with m.vm("a", rings=2, start=False) as vm:
        vm.send_hello(fds=[vm.shm_fd, vm.inflight_fd, None] + [vm.calls[0]] * 200)
        vm.gone()
        vm.disconnect()
        vm.wait_hung_up()
        vm.connect()
        vm.works()


def test_descriptors_in_the_wrong_order(m, clean):
    with m.vm("a", start=False) as vm:
        right = [vm.shm_fd, vm.inflight_fd, None, vm.kicks[0], vm.calls[0]]
        for first in range(3):  # the last two are alike
            wrong = list(right)
            wrong[first], wrong[first + 1] = wrong[first + 1], wrong[first]
            assert vm.refused(fds=wrong)[0] == P.REFUSED_MALFORMED
        vm.wait_hung_up()
        vm.connect()
        vm.works()


def test_descriptors_without_the_offer(m, clean):
    """A HELLO of the socket path carries none."""
    with m.vm("a", start=False) as vm:
        plain = dict.fromkeys(("features", "rings", "ring_entries", "slot_bytes", "shm_size", "ring_offset",
                               "ring_stride", "arena_offset"), 0)
        vm.send_hello(**plain)
        vm.gone()
        vm.disconnect()
        vm.wait_hung_up()


# ---- layouts ----

HUGE = (1 << 64) - 4096
LAYOUTS = {
    "no ring": dict(rings=0),
    "a ring more than there are descriptors": dict(rings=3),
    "more rings than a device can have": dict(rings=65),
    "rings far out": dict(rings=0xFFFF),
    "no entries": dict(ring_entries=0),
    "entries: not a power of two": dict(ring_entries=48),
    "too few entries": dict(ring_entries=8),
    "too many entries": dict(ring_entries=8192),
    "entries far out": dict(ring_entries=1 << 31),
    "no slot": dict(slot_bytes=0),
    "small slots": dict(slot_bytes=64),
    "odd slots": dict(slot_bytes=4097),
    "slots larger than the stride": dict(slot_bytes=65536),
    "slots far out": dict(slot_bytes=(1 << 32) - 64),
    "memory of another size": dict(shm_size=8 << 20),
    "no memory": dict(shm_size=0),
    "memory far out": dict(shm_size=1 << 63),
    "rings over the end": dict(ring_offset=(16 << 20) - 4096),
    "rings behind the end": dict(ring_offset=16 << 20),
    "ring offset not of a page": dict(ring_offset=65536 + 64),
    "ring offset that overflows": dict(ring_offset=HUGE),
    "rings on top of each other": dict(ring_stride=0),
    "rings that overlap": dict(ring_stride=4096),
    "ring stride not of a page": dict(ring_stride=(1 << 20) + 64),
    "ring stride that overflows": dict(ring_stride=HUGE),
    "arena over the rings": dict(arena_offset=65536),
    "arena over the last ring": dict(arena_offset=1 << 20),
    "arena over the end": dict(arena_offset=(16 << 20) - 4096),
    "arena behind the end": dict(arena_offset=16 << 20),
    "arena not of a page": dict(arena_offset=(8 << 20) + 64, arena_size=1 << 20),
    "arena offset that overflows": dict(arena_offset=HUGE),
    "arena too large": dict(arena_size=16 << 20),
    "arena size that overflows": dict(arena_size=HUGE),
    "all over each other": dict(ring_offset=HUGE, ring_stride=HUGE, arena_offset=HUGE, arena_size=HUGE),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_impossible_layout(m, clean, name):
    with m.vm("a", rings=2, start=False) as vm:
        reason, why = vm.refused(**LAYOUTS[name])
        assert reason == P.REFUSED_MALFORMED and len(why) > 10
        vm.wait_hung_up()
        vm.connect()
        vm.works()


@pytest.mark.parametrize("field", ["reserved0", "reserved1"])
def test_reserved_fields(m, clean, field):
    with m.vm("a", start=False) as vm:
        vm.send_hello(**{field: 1})
        vm.gone()
        vm.disconnect()
        vm.wait_hung_up()


def test_rings_without_the_offer(m, clean):
    with FakeStub(m.socket("a"), hello=False) as s:
        s.send_hello(rings=1, ring_entries=64)
        assert s.wait("REFUSED").fields.reason == P.REFUSED_MALFORMED


@pytest.mark.parametrize("rings, entries, slot_bytes", [
    (1, 16, 256), (64, 16, 4096), (2, 4096, 1024), (5, 128, 8192),
])
def test_extreme_layouts_work(m, clean, rings, entries, slot_bytes):
    with m.vm("a", rings=rings, entries=entries, slot_bytes=slot_bytes, shm_size=64 << 20) as vm:
        for ring in range(rings):
            assert vm.call(vm.echo(b"x" * 32), ring).payload == b"x" * 32


def limited(m, what, value):
    """The mediator's soft limit, for as long as the context lasts."""
    @contextlib.contextmanager
    def context():
        soft, hard = resource.prlimit(m.process.pid, what)
        resource.prlimit(m.process.pid, what, (value, hard))
        try:
            yield
        finally:
            resource.prlimit(m.process.pid, what, (soft, hard))
    return context()


def test_descriptors_run_out(m, clean):
    """A HELLO whose descriptors do not fit the mediator's table is dropped as a whole."""
    open_now = max(int(fd) for fd in os.listdir(f"/proc/{m.process.pid}/fd"))
    with m.vm("a", rings=64, entries=16, shm_size=64 << 20, start=False) as vm:
        with limited(m, resource.RLIMIT_NOFILE, open_now + 20):
            vm.send_hello()
            vm.gone()
            vm.disconnect()
            vm.wait_hung_up()
        vm.connect()
        vm.works()


@pytest.mark.skipif(SANITIZED, reason="sanitizers need the address space")
def test_memory_runs_out(m, clean):
    with open(f"/proc/{m.process.pid}/statm") as statm:
        pages = int(statm.read().split()[0])
    with m.vm("a", shm_size=1 << 30, start=False) as vm:
        with limited(m, resource.RLIMIT_AS, pages * 4096 + (64 << 20)):
            reason, why = vm.refused()
            assert reason == P.REFUSED_FULL and "memory" in why
            vm.wait_hung_up()
        vm.connect()
        vm.works()


def test_many_connections(m, clean):
    """Forty connections one after another, with work, leave nothing."""
    before = m.descriptors()
    with m.vm("a", rings=4) as vm:
        for _ in range(40):
            vm.works()
            vm.reconnect()
    wait_for("it is gone", lambda: not m.connected("a"))
    m.wait_descriptors(before)
    assert mappings(m.process.pid) <= 2  # those of the bystander

# SPDX-License-Identifier: MIT
"""datapath=shm as a mediator sees it: descriptors, doorbells, interrupts, the writers' pipe, resets."""

import fcntl
import os
import select
import time

import pytest

from stack import accelerators
from stub_rig import *  # noqa: F403
from stub_rig import Rig
from qtest import run_qemu

GROW_SHRINK_SEAL = 0x4 | 0x2 | 0x1


@pytest.fixture
def rig(tmp_path):
    r = Rig(tmp_path)
    yield r
    r.close()
    assert "Assertion" not in r.vm.output()


def doorbell(rig, ring, size=4, byte=0):
    rig.vm.store(rig.dev.BAR0 + P.REG["RING_DOORBELL"] + 4 * ring + byte, 1, size)


def pages(rig, ring):
    """Address in BAR 2 of the driver's and the device's page of a ring."""
    driver = rig.dev.BAR2 + rig.dev.reg("RING_OFFSET") + ring * rig.dev.reg("RING_STRIDE")
    return driver, driver + P.RING_PAGE


def inode(fd):
    return os.fstat(fd).st_ino


# ---- the handshake --------------------------------------------------------------------------


def test_what_hello_carries(rig):
    m = rig.mediator()
    hello = m.hello()
    assert hello.features == P.LOCAL_FEATURE_SHM and len(m.fds) == 3 + 2 * hello.rings
    for name, value in (("RING_COUNT", hello.rings), ("RING_ENTRIES", hello.ring_entries),
                        ("SLOT_BYTES", hello.slot_bytes), ("RING_OFFSET", hello.ring_offset),
                        ("RING_STRIDE", hello.ring_stride), ("SHM_SIZE_LO", hello.shm_size),
                        ("ARENA_OFFSET_LO", hello.arena_offset), ("ARENA_SIZE_LO", hello.arena_size)):
        assert rig.dev.reg(name) == value, name
    assert os.fstat(m.shm_fd).st_size == hello.shm_size
    area = 64 + 64 * hello.rings + 64 * hello.rings * hello.ring_entries
    assert os.fstat(m.inflight_fd).st_size == area
    for fd in (m.shm_fd, m.inflight_fd):
        assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & GROW_SHRINK_SEAL == GROW_SHRINK_SEAL
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 4096)
    assert os.pread(m.inflight_fd, area, 0) == bytes(area)
    assert os.readlink(f"/proc/self/fd/{m.writers_fd}").startswith("pipe:")
    for fd in m.kicks + m.calls:
        assert "eventfd" in os.readlink(f"/proc/self/fd/{fd}")
        assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK
    assert len({inode(m.shm_fd), inode(m.inflight_fd)}) == 2


def test_the_memory_is_bar_2_and_the_in_flight_area_is_not(rig):
    m = rig.connected()
    rig.vm.write(rig.dev.BAR2 + 12345, b"from the guest")
    assert m.memory[12345 : 12345 + 14] == b"from the guest"
    m.memory[m.offer.shm_size - 16 :] = b"from the mediato"
    assert rig.vm.read(rig.dev.BAR2 + m.offer.shm_size - 16, 16) == b"from the mediato"
    before = rig.vm.read(rig.dev.BAR2, 1 << 20)
    os.pwrite(m.inflight_fd, b"\xff" * 64, 0)
    assert rig.vm.read(rig.dev.BAR2, 1 << 20) == before


@pytest.mark.parametrize("options, rings, entries", [
    ("", 4, 128), (",rings=1,ring-entries=16", 1, 16), (",rings=64,ring-entries=4096", 64, 16),
    (",shm-size=1M", 1, 16), (",shm-size=256M,rings=64,ring-entries=128", 64, 64),
])
def test_rings_take_at_most_a_quarter_of_bar_2(tmp_path, options, rings, entries):
    rig = Rig(tmp_path, options=options)
    try:
        m = rig.mediator()
        hello = m.hello()
        assert (hello.rings, hello.ring_entries) == (rings, entries)
        assert hello.rings * hello.ring_stride <= hello.shm_size // 4
        assert rig.dev.msix_vectors() == 1 + rings == 1 + len(m.kicks) == 1 + len(m.calls)
        doorbell(rig, rings - 1)
        assert m.kicked(rings - 1) == 1
    finally:
        rig.close()


@pytest.mark.parametrize("options, sentence", [
    ("rings=0", "rings is 0; it must be 1 to 64"),
    ("rings=65", "rings is 65"),
    ("ring-entries=100", "power of two from 16 to 4096"),
    ("ring-entries=8", "power of two from 16 to 4096"),
    ("ring-entries=8192", "power of two from 16 to 4096"),
])
def test_bad_rings_are_refused_in_a_sentence(tmp_path, options, sentence):
    given = f"vgpu-stub,socket={tmp_path}/vgpu.sock,{options}"
    code, said = run_qemu(["-machine", "q35", "-accel", "tcg", "-S", "-device", given])
    assert code == 1 and sentence in said
    assert said.count("\n") == 1, "more than a sentence"


# ---- doorbells ------------------------------------------------------------------------------


def test_a_doorbell_of_any_width_kicks_its_ring_and_no_other(rig):
    m = rig.connected()
    for ring in range(4):
        for size in (1, 2, 4):
            doorbell(rig, ring, size)
            assert [m.kicked(i) for i in range(4)] == [int(i == ring) for i in range(4)], (ring, size)
        for byte in (1, 2, 3):
            doorbell(rig, ring, 1, byte)
            assert m.kicked(ring) == 1, (ring, byte)
    for ring in (0, 2):
        doorbell(rig, ring, 8)
        assert m.kicked(ring) == 1 and m.kicked(ring + 1) == 0
    for ring in (4, 63):
        doorbell(rig, ring)
    assert [m.kicked(i) for i in range(4)] == [0] * 4
    assert "doorbell of a ring that does not exist" in rig.vm.output()
    assert m.silent(0.2), "ring doorbells are not for the socket"


def test_a_storm_of_doorbells_is_one_number(rig):
    m = rig.connected()
    for _ in range(1000):
        doorbell(rig, 1)
    assert m.kicked(1) == 1000 and m.kicked(1) == 0


def test_doorbells_are_kept_while_there_is_no_mediator(rig):
    doorbell(rig, 2)
    m = rig.connected()
    assert m.kicked(2) == 1
    doorbell(rig, 3)
    m.drop()
    doorbell(rig, 3)
    m.hello()
    assert m.kicked(3) == 2


# ---- interrupts -----------------------------------------------------------------------------


def test_a_call_raises_the_vector_of_its_ring(rig):
    m = rig.connected()
    for ring in range(4):
        rig.dev.set_message(1 + ring, 0x100 + ring)
    rig.dev.msix_on()
    for ring in (2, 0, 3, 1):
        m.call(ring)
        wait_for("the message", lambda: rig.dev.take_message(1 + ring) == 0x100 + ring)
        assert [rig.dev.take_message(1 + i) for i in range(4)] == [0] * 4
        assert rig.dev.msix_pending(1 + ring) == 0


def test_a_masked_vector_becomes_pending_and_is_delivered_when_unmasked(rig):
    m = rig.connected()
    rig.dev.set_message(3, 0x33, masked=True)
    rig.dev.msix_on()
    m.call(2)
    m.call(2)
    wait_for("the pending bit", lambda: rig.dev.msix_pending(3))
    assert rig.dev.take_message(3) == 0 and rig.dev.msix_pending(2) == 0
    rig.dev.mask(False, 3)
    wait_for("the message", lambda: rig.dev.take_message(3) == 0x33)
    assert rig.dev.msix_pending(3) == 0
    rig.dev.mask(True, 3)
    rig.dev.mask(False, 3)
    assert rig.dev.take_message(3) == 0, "once is enough"


def test_calls_before_msi_x_is_enabled_are_delivered_when_it_is(rig):
    m = rig.connected()
    rig.dev.set_message(1, 0x11)
    m.call(0)
    wait_for("the pending bit", lambda: rig.dev.msix_pending(1))
    rig.dev.msix_on()
    wait_for("the message", lambda: rig.dev.take_message(1) == 0x11)


@pytest.fixture
def kvm_rig(tmp_path):
    if "kvm" not in accelerators():
        pytest.skip("no /dev/kvm")
    r = Rig(tmp_path, accel="kvm", env={"VGPU_STUB_TRACE": "vector"})
    yield r
    r.close()


def routes(rig, vector):
    lines = [x for x in rig.vm.output().splitlines() if f"vgpu_stub_vector vector={vector} " in x]
    return [int(x.rsplit("=", 1)[1]) for x in lines]


def test_under_kvm_calls_go_by_irqfd_and_doorbells_that_trap_count(kvm_rig):
    """The message itself lands in the vCPU's local APIC: the multiboot guest looks there."""
    NONE, KVM = 0, 1
    m = kvm_rig.connected()
    dev = kvm_rig.dev
    for size in (1, 2, 4, 8):
        doorbell(kvm_rig, 1, size)
        assert m.kicked(1) == 1, f"{size} bytes, by way of QEMU"
    dev.set_message(2, 0x41, masked=True)
    dev.msix_on()
    m.call(1)
    wait_for("the pending bit", lambda: dev.msix_pending(2))
    dev.mask(False, 2)
    wait_for("the route", lambda: routes(kvm_rig, 2)[-1] == KVM)
    assert dev.msix_pending(2) == 0
    m.call(1)
    wait_for("KVM takes it", lambda: read_counter(m.calls[1]) == 0)
    dev.mask(True, 2)
    assert routes(kvm_rig, 2)[-1] == NONE
    m.call(1)
    wait_for("the pending bit", lambda: dev.msix_pending(2))
    dev.mask(False, 2)
    dev.msix_on(False)
    assert routes(kvm_rig, 2)[-1] == NONE, "MSI-X is off"
    dev.msix_on()
    assert routes(kvm_rig, 2)[-1] == KVM


def test_under_kvm_a_reset_guest_may_unmask_before_it_enables(kvm_rig):
    dev = kvm_rig.dev
    dev.set_message(1, 0x41)
    dev.msix_on()
    assert routes(kvm_rig, 1)[-1] == 1
    kvm_rig.vm.command("system_reset")
    wait_for("the reset", lambda: routes(kvm_rig, 1)[-1] == 0)
    dev.program()
    dev.set_message(1, 0x42)
    assert routes(kvm_rig, 1)[-1] == 0
    dev.msix_on()
    assert routes(kvm_rig, 1)[-1] == 1 and kvm_rig.vm.alive()


def read_counter(fd):
    """An eventfd's counter, without reading it away."""
    with open(f"/proc/self/fdinfo/{fd}") as info:
        return next(int(x.split()[1], 16) for x in info if x.startswith("eventfd-count"))


# ---- connections ----------------------------------------------------------------------------


def test_the_next_connection_carries_the_same_memory_and_a_new_pipe(rig):
    m = rig.connected()
    hello, before = m.offer, [inode(fd) for fd in m.fds[:3]]
    m.memory[4096:4100] = b"kept"
    m.drop()
    again = m.hello()
    assert [inode(fd) for fd in m.fds[:2]] == before[:2]
    assert inode(m.writers_fd) != before[2]
    assert m.memory[4096:4100] == b"kept"
    assert again.boot_id == hello.boot_id and again.conn_gen == hello.conn_gen + 1
    doorbell(rig, 0)
    assert m.kicked(0) == 1


def test_it_connects_again_only_when_nobody_holds_the_memory(rig):
    m = rig.connected()
    kept = os.dup(m.writers_fd)  # as an executor would
    m.drop()
    wait_for("BACKEND_UP gone", lambda: not rig.dev.up())
    os.write(kept, b"not a hang-up" * 100)
    m.listener.settimeout(1.0)
    with pytest.raises(TimeoutError):
        m.listener.accept()
    wait_for("the operator is told", lambda: "still holds the memory" in rig.vm.output())
    os.close(kept)
    m.hello()
    wait_for("BACKEND_UP", rig.dev.up)
    assert rig.vm.output().count("still holds the memory") == 1


def test_a_mediator_that_never_reads_hello(rig):
    for _ in range(3):
        m = rig.mediator()  # the one before ends with HELLO in its backlog
        assert select.select([m.listener], [], [], LIMIT_S)[0]
    for _ in range(3):
        m.accept()
        m.conn.close()
    m.hello()
    wait_for("BACKEND_UP", rig.dev.up)


def test_a_qemu_that_is_killed_leaves_the_mediator_with_its_memory(rig):
    m, request = in_flight(rig)
    rig.vm.process.kill()
    assert m.closed_by_stub()
    m.answer_in_memory(request, {1: b"\x42" * 4096})
    assert m.arena(8192, 4096) == b"\x42" * 4096


def test_many_connections_leak_nothing(rig):
    m = rig.connected()
    folder = f"/proc/{rig.vm.process.pid}/fd"

    def again():
        m.drop()
        m.hello()
        wait_for("BACKEND_UP", rig.dev.up)

    again()
    before = len(os.listdir(folder))
    for _ in range(20):
        again()
    assert len(os.listdir(folder)) == before


def test_a_mediator_that_takes_the_socket_path_is_told_so(rig):
    m = rig.mediator()
    m.accept()
    hello, _ = m.expect("HELLO")
    m.welcome(hello, features=0)
    assert m.closed_by_stub() and "this device has datapath=shm" in rig.vm.output()


# ---- requests through the windows -----------------------------------------------------------


def in_flight(rig, **header):
    m = rig.connected()
    rig.dev.submit(echo_arena(4096, sink=8192, **header))
    return m, m.request()


def test_arena_buffers_are_used_in_place(rig):
    m = rig.connected()
    data = os.urandom(5 << 20)
    rig.vm.write(rig.dev.arena, data)
    rig.dev.submit(echo_arena(len(data)))
    request = m.request()
    assert request.inputs[0] == data and m.silent(0.1), "no DATA"
    m.answer(request, outputs={1: data[::-1]})
    assert rig.dev.wait_end()[0] == 0
    assert rig.vm.read(rig.dev.arena + len(data), len(data)) == data[::-1]


@pytest.mark.parametrize("by", ["CANCELLED", "DEADLINE"])
def test_a_request_that_is_given_up_is_busy_until_the_mediator_answers(rig, by):
    m, request = in_flight(rig, deadline_ms=200 if by == "DEADLINE" else 0)
    m.send("ACCEPT", seq=request.seq)
    if by == "CANCELLED":
        rig.dev.write_reg("CONTROL", P.CONTROL_CANCEL)
    cancel, _ = m.expect("CANCEL")
    assert cancel.seq == request.seq and cancel.reason == P.E[by]
    rig.dev.write_reg("CONTROL", P.CONTROL_CANCEL)
    assert m.silent(0.3) and rig.dev.state() == P.STATUS_BUSY
    m.answer(request, error=P.E[by])
    assert rig.dev.wait_end()[0] == P.E[by]
    rig.dev.submit(echo_inline(b"next"))
    m.serve_echo()
    assert rig.dev.wait_end()[0] == 0


def test_a_result_that_comes_before_the_cancel_counts(rig):
    m, request = in_flight(rig)
    rig.dev.write_reg("CONTROL", P.CONTROL_CANCEL)
    m.answer(request, outputs={1: b"\x42" * 4096})
    assert rig.dev.wait_end()[0] == 0
    assert rig.vm.read(rig.dev.arena + 8192, 4096) == b"\x42" * 4096


def test_a_request_without_arena_outputs_ends_at_its_deadline_whatever_the_mediator_does(rig):
    m = rig.connected()
    rig.dev.submit(echo_inline(b"hello?", deadline_ms=200))
    assert rig.dev.wait_end()[0] == P.E["DEADLINE"]
    request = m.request()
    assert m.expect("CANCEL")[0].seq == request.seq
    m.answer(request, payload=b"hello!")
    rig.dev.submit(echo_inline(b"next"))
    assert m.serve_echo().seq == request.seq + 1
    assert rig.dev.wait_end()[0] == 0


@pytest.mark.parametrize("by", ["CANCELLED", "DEADLINE"])
def test_a_request_given_up_after_its_mediator_died_ends_when_the_last_writer_has(rig, by):
    m, request = in_flight(rig, deadline_ms=700 if by == "DEADLINE" else 0)
    m.send("ACCEPT", seq=request.seq)
    writer = os.dup(m.writers_fd)
    m.drop()
    wait_for("BACKEND_UP gone", lambda: not rig.dev.up())
    if by == "CANCELLED":
        rig.dev.write_reg("CONTROL", P.CONTROL_CANCEL)
    time.sleep(1.0)
    assert rig.dev.state() == P.STATUS_BUSY, "somebody may still write"
    os.close(writer)
    assert rig.dev.wait_end()[0] == P.E[by]
    m.hello()
    assert m.silent(0.2), "a request that ended is not sent"


# ---- resets ---------------------------------------------------------------------------------


def test_a_reset_zeroes_rings_and_kicks_before_the_mediator_hears_of_it(rig):
    m = rig.connected()
    offset, stride, rings = (rig.dev.reg("RING_" + name) for name in ("OFFSET", "STRIDE", "COUNT"))
    for ring in range(rings):
        for page in pages(rig, ring):
            rig.vm.write(page, b"\xee" * P.RING_PAGE)
        doorbell(rig, ring)
    m.arena_write(0, b"stays")
    rig.dev.write_reg("CONTROL", P.CONTROL_RESET)
    m.expect("RESET")
    for ring in range(rings):
        at = offset + ring * stride
        assert not any(m.memory[at : at + 2 * P.RING_PAGE]) and m.kicked(ring) == 0
    assert rig.dev.reg("STATUS") == P.STATUS_RESETTING
    m.send("RESET_ACK", epoch=rig.dev.reg("RESET_EPOCH"))
    wait_for("the reset ends", rig.dev.up)
    assert rig.vm.read(rig.dev.arena, 5) == b"stays"


def test_a_reset_that_a_mediator_leaves_behind_ends_with_its_last_writer(rig):
    m = rig.connected()
    writer, old_memory = os.dup(m.writers_fd), m.memory
    m.memory = None
    rig.dev.write_reg("CONTROL", P.CONTROL_RESET)
    m.drop()
    wait_for("BACKEND_UP gone", lambda: not rig.dev.up())
    time.sleep(0.3)
    assert rig.dev.reg("STATUS") == P.STATUS_RESETTING
    at = m.offer.ring_offset + P.RING_PAGE
    old_memory[at : at + 4] = b"late"  # a completion of the old life
    old_memory.close()
    os.close(writer)
    wait_for("the reset ends", lambda: rig.dev.reg("STATUS") == P.STATUS_IDLE)
    assert rig.vm.load(pages(rig, 0)[1]) == 0
    m.hello()
    wait_for("BACKEND_UP", rig.dev.up)


def test_a_reset_after_the_mediator_left_waits_too(rig):
    m = rig.connected()
    writer = os.dup(m.writers_fd)
    m.drop()
    wait_for("BACKEND_UP gone", lambda: not rig.dev.up())
    rig.dev.write_reg("CONTROL", P.CONTROL_RESET)
    assert rig.dev.reg("STATUS") == P.STATUS_RESETTING
    rig.dev.submit(echo_inline(b"too early"))
    assert rig.dev.reg("REJECT_ERROR") == P.E["BUSY"]
    os.close(writer)
    wait_for("the reset ends", lambda: rig.dev.reg("STATUS") == P.STATUS_IDLE)
    assert m.hello().msg.epoch == rig.dev.reg("RESET_EPOCH")


def test_a_device_that_never_had_a_mediator_resets_at_once(rig):
    rig.vm.write(pages(rig, 3)[0], b"\xee" * 64)
    rig.dev.write_reg("CONTROL", P.CONTROL_RESET)
    assert rig.dev.reg("STATUS") == P.STATUS_IDLE and rig.vm.load(pages(rig, 3)[0]) == 0


def test_a_mediator_that_makes_the_bells_blocking_does_not_stop_qemu(rig):
    m = rig.connected()
    for fd in m.kicks + m.calls:
        os.set_blocking(fd, True)
    rig.dev.set_message(1, 0x11)
    rig.dev.msix_on()
    m.call(0)
    wait_for("the message", lambda: rig.dev.take_message(1) == 0x11)
    rig.dev.write_reg("CONTROL", P.CONTROL_RESET)  # drains what is empty
    m.send("RESET_ACK", epoch=m.expect("RESET")[0].msg.epoch)
    wait_for("the reset ends", rig.dev.up)


def test_a_restarted_vm_is_a_new_life_of_the_same_device(rig):
    m = rig.connected()
    hello, memory = m.offer, inode(m.shm_fd)
    rig.vm.write(pages(rig, 0)[0], b"\xee" * 64)
    rig.vm.command("system_reset")
    reset, _ = m.expect("RESET")
    at = hello.ring_offset
    assert not any(m.memory[at : at + 2 * P.RING_PAGE])
    m.send("RESET_ACK", epoch=reset.msg.epoch)
    rig.dev.program()
    wait_for("the reset ends", rig.dev.up)
    m.drop()
    again = m.hello()
    assert again.boot_id == hello.boot_id and inode(m.shm_fd) == memory
    doorbell(rig, 0)
    assert m.kicked(0) == 1


def test_a_broken_ring_shows_and_a_reset_heals(rig):
    m = rig.connected()
    rig.dev.enable_msix(data=0x99)
    rig.dev.take_message()
    m.send("STATE", epoch=m.epoch - 1 & 0xFFFFFFFF, pool_id=3, band=1, up=1, broken=1)
    m.send("STATE", pool_id=4, band=1, up=1)
    wait_for("the other STATE", lambda: rig.dev.reg("POOL_ID") == 4)
    assert not rig.dev.reg("STATUS") & P.STATUS_BROKEN, "of another life"
    rig.dev.take_message()
    m.send("STATE", pool_id=4, band=1, up=1, broken=1)
    wait_for("BROKEN", lambda: rig.dev.reg("STATUS") & P.STATUS_BROKEN)
    assert rig.dev.take_message() == 0x99
    rig.dev.submit(echo_inline(b"no"))
    assert rig.dev.reg("REJECT_ERROR") == P.E["BROKEN"] and rig.dev.state() == P.STATUS_IDLE
    rig.dev.write_reg("CONTROL", P.CONTROL_RESET)
    reset, _ = m.expect("RESET")
    m.epoch = reset.msg.epoch
    m.send("RESET_ACK")
    wait_for("it is well again", lambda: rig.dev.reg("STATUS") == P.STATUS_BACKEND_UP)
    rig.dev.submit(echo_inline(b"yes"))
    m.serve_echo()
    assert rig.dev.wait_end()[0] == 0

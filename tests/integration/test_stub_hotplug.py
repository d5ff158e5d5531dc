# SPDX-License-Identifier: MIT
"""Hot-plug, hot-unplug and migration of the device."""

import os

import pytest

from stub_rig import *  # noqa: F403
from stub_rig import Rig, rig  # noqa: F401

EJECT = 0xAE08  # ACPI PCI hot-plug of the "pc" machine: writing a slot's bit ejects its device


@pytest.fixture
def pc(tmp_path):
    r = Rig(tmp_path, machine="pc")
    yield r
    r.close()


def unplug(rig):
    """device_del, and what the guest's ACPI code does then."""
    rig.vm.events.clear()
    rig.vm.command("device_del", id="vgpu0")
    rig.vm.out(EJECT, 1 << rig.dev.slot)
    wait_for("DEVICE_DELETED", lambda: rig.vm.saw_event("DEVICE_DELETED", device="vgpu0"))


def plug(rig):
    rig.vm.command("device_add", driver="vgpu-stub", id="vgpu0", socket=str(rig.path),
                   **{"reconnect-ms": 100})
    rig.dev = VgpuDevice(rig.vm)


def test_unplug_with_a_request_in_flight_and_plug_again(pc):
    m = pc.connected()
    boots = set()
    for _ in range(5):
        pc.dev.submit(echo_arena(1 << 20))
        request = m.request()
        unplug(pc)
        assert m.closed_by_stub(), "unplugging closes the connection"
        m.drop()
        assert pc.vm.find_slot() is None
        plug(pc)
        boots.add(m.hello().boot_id)
        wait_for("BACKEND_UP", pc.dev.up)
        assert pc.dev.state() == P.STATUS_IDLE
        m.answer(request, outputs={1: b"\xff" * (1 << 20)})  # of a device that is gone
        pc.dev.submit(echo_inline(b"fresh"))
        m.serve_echo()
        assert pc.dev.wait_end()[0] in (0,)
        assert pc.vm.read(pc.dev.arena, 4096) == bytes(4096), "a new device has a new, empty arena"
    assert len(boots) == 5, "every device life has its own boot_id"


def test_unplug_without_a_mediator_and_while_connecting(pc):
    pc.dev.submit(echo_inline(b"nobody"))
    unplug(pc)
    plug(pc)
    m = pc.mediator()
    m.accept()
    unplug(pc)
    m.drop()
    plug(pc)
    m.hello()
    wait_for("BACKEND_UP", pc.dev.up)


def test_plugging_leaks_neither_descriptors_nor_memory(pc):
    m = pc.connected()

    def descriptors():
        return len(os.listdir(f"/proc/{pc.vm.process.pid}/fd"))

    def shm_mappings():
        with open(f"/proc/{pc.vm.process.pid}/maps") as maps:
            return sum("vgpu-shm" in line for line in maps)

    def cycle():
        unplug(pc)
        wait_for("the memory is unmapped", lambda: shm_mappings() == 0)
        m.drop()
        plug(pc)
        m.hello()
        wait_for("BACKEND_UP", pc.dev.up)

    cycle()
    before = descriptors(), shm_mappings()
    for _ in range(10):
        cycle()
    assert (descriptors(), shm_mappings()) == before


def test_the_shared_memory_is_sealed(rig):
    import fcntl

    with open(f"/proc/{rig.vm.process.pid}/maps") as maps:
        assert any("memfd:vgpu-shm" in line for line in maps)
    folder = f"/proc/{rig.vm.process.pid}/fd"
    paths = [f"{folder}/{n}" for n in os.listdir(folder)]
    path = next(p for p in paths if "vgpu-shm" in os.readlink(p))
    fd = os.open(path, os.O_RDWR)
    seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    assert seals & 0x2 and seals & 0x4 and seals & 0x1, "SHRINK, GROW, SEAL"
    assert os.fstat(fd).st_size == P.SHM_SIZE_DEFAULT
    os.close(fd)


def test_migration_is_refused_and_says_why(pc):
    pc.vm.qmp.send('{"execute": "migrate", "arguments": {"uri": "exec:cat >/dev/null"}}')
    answer = pc.vm.qmp.line()
    assert "error" in answer and "vgpu-stub" in answer, answer
    unplug(pc)
    pc.vm.command("migrate", uri="exec:cat >/dev/null")
    wait_for("the migration ends", lambda: pc.vm.command("query-migrate").get("status") == "completed")

# SPDX-License-Identifier: MIT
"""Hot-plug, hot-unplug and migration of the device."""

import json
import os
import resource

import pytest

from stub_rig import *  # noqa: F403
from stub_rig import Rig, rig  # noqa: F401
from fake_mediator import FakeMediator
from qtest import Qemu
from stack import accelerators

EJECT = 0xAE08  # ACPI PCI hot-plug of the "pc" machine: writing a slot's bit ejects its device


@pytest.fixture(params=["shm", "socket"])
def pc(tmp_path, request):
    r = Rig(tmp_path, machine="pc", datapath=request.param)
    yield r
    r.close()


def unplug(rig):
    """device_del, and what the guest's ACPI code does then."""
    rig.vm.events.clear()
    rig.vm.command("device_del", id="vgpu0")
    rig.vm.out(EJECT, 1 << rig.dev.slot)
    wait_for("DEVICE_DELETED", lambda: rig.vm.saw_event("DEVICE_DELETED", device="vgpu0"))


def plug_into(vm, path, datapath, **options):
    vm.command("device_add", driver="vgpu-stub", id="vgpu0", socket=str(path), datapath=datapath,
               **{"reconnect-ms": 100, **options})
    return VgpuDevice(vm)


def plug(rig, **options):
    rig.dev = plug_into(rig.vm, rig.path, rig.datapath, **options)


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
        m.answer(request, outputs={} if pc.shm else {1: b"\xff" * (1 << 20)})  # it is gone
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
    size = 1 << 36  # of BAR 2: nothing else in the process is as large

    def descriptors():
        return len(os.listdir(f"/proc/{pc.vm.process.pid}/fd"))

    def mapped():
        with open(f"/proc/{pc.vm.process.pid}/status") as status:
            line = next(x for x in status if x.startswith("VmSize"))
        return int(line.split()[1]) * 1024 // size

    def cycle():
        unplug(pc)
        wait_for("the memory is unmapped", lambda: mapped() == 0)
        m.drop()
        plug(pc, **{"shm-size": size})
        m.hello()
        wait_for("BACKEND_UP", pc.dev.up)

    cycle()
    before = descriptors()
    for _ in range(10):
        cycle()
    wait_for("QEMU has closed the old ones", lambda: descriptors() <= before)
    assert mapped() == 1


@pytest.mark.parametrize("pc", ["shm"], indirect=True)
def test_a_qemu_without_free_descriptors_refuses_the_device_and_runs_on(pc):
    pid = pc.vm.process.pid
    unplug(pc)
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    wait_for("the memory is closed", lambda: not any(
        "vgpu-shm" in os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")))
    used = max(int(n) for n in os.listdir(f"/proc/{pid}/fd")) + 1
    sentences = set()
    for spare in range(8):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + spare, limits[1]))
        pc.vm.qmp.send(json.dumps({"execute": "device_add", "arguments": {
            "driver": "vgpu-stub", "id": "vgpu0", "socket": str(pc.path), "rings": 64}}))
        answer = json.loads(pc.vm.qmp.line())
        while "event" in answer:
            answer = json.loads(pc.vm.qmp.line())
        sentences.add(answer["error"]["desc"])
    assert all(x.startswith("vgpu-stub: ") for x in sentences), sentences
    assert any("no eventfds" in x for x in sentences), sentences
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    plug(pc)
    pc.connected()


@pytest.mark.parametrize("pc", ["socket"], indirect=True)
def test_the_socket_path_needs_no_memory_from_a_descriptor(pc):
    """As on Xen, and under a limit on the size of files."""
    resource.prlimit(pc.vm.process.pid, resource.RLIMIT_FSIZE, (1 << 18, 1 << 18))
    pc.connected()
    unplug(pc)
    plug(pc)
    m = pc.connected()
    pc.vm.write(pc.dev.arena + (1 << 20), b"private")
    pc.dev.submit(echo_arena(7, source=1 << 20, sink=0))
    m.serve_echo()
    assert pc.dev.wait_end()[0] == 0 and pc.vm.read(pc.dev.arena, 7) == b"private"


@on("shm")
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


def migrate(source, path):
    """To a QEMU that waits at `path`. Both stand still (-S): only the machine's state moves."""
    source.command("migrate", uri=f"unix:{path}")
    wait_for("the migration ends", lambda: source.command("query-migrate").get("status") == "completed")


def test_unplug_migrate_plug_on_the_other_host(pc, tmp_path):
    """Two QEMUs, a mediator each; the guest's memory goes along, the device does not."""
    here = pc.connected()
    pc.vm.write(0x10000, b"memory of the guest")
    pc.dev.submit(echo_arena(4096))
    here.serve_echo()
    assert pc.dev.wait_end()[0] == 0
    pc.dev.submit(echo_arena(4096))
    here.request()
    unplug(pc)
    assert here.closed_by_stub()
    host = tmp_path / "other"
    host.mkdir()
    there = FakeMediator(host / "vgpu.sock")
    pc.mediators.append(there)
    with Qemu(host, ["-uuid", UUID, "-incoming", f"unix:{host}/migrate"], machine="pc") as target:
        migrate(pc.vm, host / "migrate")
        pc.vm.close()
        assert target.read(0x10000, 19) == b"memory of the guest"
        assert target.find_slot() is None
        dev = plug_into(target, there.path, pc.datapath)
        assert there.hello().uuid.hex() == UUID.replace("-", "")
        wait_for("BACKEND_UP", dev.up)
        target.write(dev.arena, b"computed elsewhere")
        dev.submit(echo_arena(18))
        assert there.serve_echo().inputs[0] == b"computed elsewhere"
        assert dev.wait_end()[0] == 0 and target.read(dev.arena + 64, 18) == b"computed elsewhere"


def test_unplug_while_a_process_still_holds_the_memory(tmp_path):
    pc = Rig(tmp_path, machine="pc")
    m = pc.connected()
    old = os.fstat(m.shm_fd).st_ino
    writer = os.dup(m.writers_fd)
    m.hang_up()
    wait_for("BACKEND_UP gone", lambda: not pc.dev.up())
    unplug(pc)
    plug(pc)
    m.arena_write(0, b"\xff" * 4096)  # the old device's memory
    m.let_go()
    m.hello()
    wait_for("BACKEND_UP", pc.dev.up)
    assert os.fstat(m.shm_fd).st_ino != old, "a new device has memory of its own"
    assert pc.vm.read(pc.dev.arena, 4096) == bytes(4096)
    os.close(writer)
    pc.close()


@pytest.mark.skipif("kvm" not in accelerators(), reason="no /dev/kvm")
def test_unplug_with_irqfds_in_use(tmp_path):
    pc = Rig(tmp_path, machine="pc", accel="kvm", env={"VGPU_STUB_TRACE": "vector"})
    m = pc.connected()
    before = None
    for round_ in range(4):
        for vector in range(5):
            pc.dev.set_message(vector, 0x40 + vector)
        pc.dev.msix_on()
        wait_for("four irqfds", lambda: pc.vm.output().count("route=1") == 4 * (round_ + 1))
        for ring in range(4):
            m.call(ring)
        pc.vm.store(pc.dev.BAR0 + P.REG["RING_DOORBELL"] + 4, 1)
        assert m.kicked(1) == 1
        unplug(pc)
        assert m.closed_by_stub()
        m.drop()
        plug(pc)
        m.hello()
        wait_for("BACKEND_UP", pc.dev.up)
        open_now = len(os.listdir(f"/proc/{pc.vm.process.pid}/fd"))
        before = before or open_now
    wait_for("nothing is left open",
             lambda: len(os.listdir(f"/proc/{pc.vm.process.pid}/fd")) <= before)
    pc.close()

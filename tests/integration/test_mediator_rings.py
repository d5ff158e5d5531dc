# SPDX-License-Identifier: MIT
"""The shared-memory path as the operator sees it: vgpuctl, counters, the key `spin`, doorbells in vain."""

import json
import os
import resource
import signal
import subprocess

import pytest
from mediator_rig import BIN, LIMIT_S
from shm_rig import Rig, slow, wait_for

VMS = "tenants:\n  - name: t\nvms:\n  - name: a\n    tenant: t\n  - name: b\n    tenant: t\n"


def pool(**mediator):
    keys = "".join(f"  {key}: {value}\n" for key, value in mediator.items())
    return "version: 1\n" + (f"mediator:\n{keys}" if keys else "") + VMS


@pytest.fixture
def m(tmp_path):
    with Rig(tmp_path, yaml=pool(spin="0us")) as rig:
        rig.start_worker("w0", threads=2)
        yield rig


def row(m, vm="a"):
    return m.view("vms", "vm", vm)


def test_view_of_a_vm(m):
    assert row(m)["datapath"] is None and row(m)["rings"] == 0
    with m.stub("b"):
        wait_for("it is connected", lambda: row(m, "b")["datapath"] == "socket")
        assert row(m, "b")["rings"] == 0
    with m.vm("a", rings=3) as vm:
        assert (row(m)["datapath"], row(m)["rings"], row(m)["in_flight"]) == ("shm", 3, 0)
        work = slow(vm)
        vm.submit(work.request, ring=1)
        m.wait_running()
        assert row(m)["in_flight"] == 1 and row(m)["broken"] is False
        assert m.view("jobs", "state", "running")["request"] == "1:1"
        assert vm.collect(1).error == 0
        assert row(m)["in_flight"] == 0
        vm.driver[2].store(vm.driver[2].SUBMIT_TAIL, 1 << 30)
        vm.kick(2)
        vm.wait_broken()
        assert row(m)["broken"] is True
        vm.reset()
        assert row(m)["broken"] is False and row(m)["reset_epoch"] == vm.epoch


def test_table_of_vms(m):
    with m.vm("a", rings=3):
        table = subprocess.run([BIN / "vgpuctl", "--admin", m.run_dir / "admin.sock", "vms"],
                               capture_output=True, text=True, check=True).stdout
    line = next(line for line in table.splitlines() if line.split()[0] == "a")
    assert "DATA PATH" in table and " shm " in line


def test_bells_are_counted(m):
    """A request that finds everybody asleep costs a kick and a call; a hundred at once do not cost a hundred."""
    with m.vm("a", entries=128) as vm:
        vm.works()
        before = row(m)
        for _ in range(100):
            vm.prepare(vm.echo(b"x" * 16))
        vm.publish()
        assert len(vm.collect_all()) == 100
        after = row(m)
    assert 1 <= after["kicks"] - before["kicks"] <= 3
    assert 1 <= after["calls"] - before["calls"] <= 100


def test_doorbells_in_vain(m):
    """They are left alone for a while, and what the guest submits meanwhile is served all the same."""
    with m.vm("a", rings=2) as vm, m.vm("b") as other:
        def ring():
            for fd in vm.kicks:
                os.eventfd_write(fd, 1)
            return row(m)["storms"] >= 3

        wait_for("its doorbells are left alone", ring)
        assert "vm rings its doorbells in vain" in m.log()
        vm.works()
        other.works()
        assert row(m, "b")["storms"] == 0


def test_no_storm_in_honest_work(m):
    with m.vm("a", rings=2) as vm:
        for i in range(1000):
            vm.submit(vm.echo(b"x"), ring=i % 2)
            vm.wait_any()
        assert row(m)["storms"] == 0


def queues(m):
    return m.ask("queues")["mediator"]


def test_spin_is_configured(m):
    """0us: sleeps at once. A reload changes it; `auto` and wrong values as the documents say."""
    assert queues(m)["spin_us"] == 0
    assert "reloaded" in m.reload(pool(spin="10ms"))
    assert queues(m)["spin_us"] == 10000
    with m.vm("a") as vm:
        before = queues(m)["polls"]
        for _ in range(100):
            vm.works()
        assert queues(m)["polls"] - before > 1000, "it polls while work flows"
        wait_for("it sleeps again", lambda: sleeps_for_good(m))
    assert "refused" in m.reload(pool(spin="20ms"))
    assert queues(m)["spin_us"] == 10000
    assert "reloaded" in m.reload(pool(spin="auto"))
    assert queues(m)["spin_us"] == (50 if len(os.sched_getaffinity(m.process.pid)) >= 4 else 0)


def sleeps_for_good(m):
    """Between two questions it polled only for these."""
    before = queues(m)["polls"]
    return queues(m)["polls"] - before < 20


def test_answers_of_a_mediator_that_stops(m):
    """What it answered is shown to the guest, whether another mediator follows or not."""
    with m.vm("a") as vm:
        work = slow(vm)
        vm.submit(work.request)
        m.wait_running()
        m.process.send_signal(signal.SIGTERM)
        assert m.process.wait(LIMIT_S) == 0
        answer = vm.collect()
        assert answer.error == 0


def test_limit_of_descriptors_is_raised(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        with Rig(tmp_path) as m:
            assert resource.prlimit(m.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_raw_answers_keep_their_schema(m):
    raw = subprocess.run([BIN / "vgpuctl", "--admin", m.run_dir / "admin.sock", "--json", "vms"],
                         capture_output=True, text=True, check=True).stdout
    answer = json.loads(raw)
    assert answer["schema"] == "vgpu.vms/1"
    assert {"datapath", "rings", "in_flight", "broken", "kicks", "calls", "storms"} <= set(answer["vms"][0])

# SPDX-License-Identifier: MIT
"""The multiboot guest of tests/guest against the real device, mediator and worker.

The guest is a driver that uses only what docs/device.md says; here it runs under TCG and,
where /dev/kvm opens, under KVM, on both machine types of QEMU and on both data paths.
"""

import re
import subprocess

import pytest

from stack import (
    BIN, GUEST_FAIL, GUEST_PASS, ROOT, Stack, accelerators, guest_command, missing_programs,
    qemu_under_test,
    run_guest, wait_for,
)

pytestmark = pytest.mark.skipif(
    bool(missing_programs("guest.elf")), reason=f"{BIN}/guest.elf is not built"
)
needs_daemons = pytest.mark.skipif(
    bool(missing_programs("vgpu-mediator", "vgpu-worker")),
    reason=f"vgpu-mediator and vgpu-worker are not in {BIN}",
)


@pytest.fixture(scope="module", autouse=True)
def plugin():
    if not qemu_under_test():
        subprocess.run([ROOT / "stub" / "build-plugin.sh"], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def stack(tmp_path):
    with Stack(tmp_path) as s:
        yield s


def expect_pass(done, least_tests):
    assert done.status == GUEST_PASS, done.output
    assert done.plan == len(done.tap) >= least_tests, done.output
    assert all(ok for ok, _ in done.tap), done.output


@pytest.mark.parametrize("accel", accelerators())
@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_registers_without_a_backend(tmp_path, accel, machine):
    done = run_guest(tmp_path / "nobody.sock", "registers", accel=accel, machine=machine)
    expect_pass(done, 7)


@pytest.mark.parametrize("accel", accelerators())
def test_doorbell_with_no_mediator(tmp_path, accel):
    expect_pass(run_guest(tmp_path / "nobody.sock", "nobackend", accel=accel), 1)


@pytest.mark.parametrize("size", ["1M", "512M"])
def test_other_sizes_of_bar_2(tmp_path, size):
    done = run_guest(tmp_path / "nobody.sock", "registers", options=f",shm-size={size}")
    expect_pass(done, 7)


def test_a_failure_is_seen(tmp_path):
    """The guest's exit status and TAP lines can say that something is wrong."""
    done = run_guest(tmp_path / "nobody.sock", "no-such-mode tsc_khz=1")
    assert done.status == GUEST_FAIL, done.output
    assert "not ok 1 - BACKEND_UP" in done.output


RING_TESTS = {
    "an echo through every ring",
    "REDUCE and GEMM with buffers in the arena",
    "three times around, one at a time",
    "64 in flight: each is answered once, with its own output",
    "as many in flight as the ring has entries",
    "ORDERED waits for every earlier request, and for their success",
    "the vector of a ring reaches the local APIC",
    "a masked vector of a ring becomes pending, and is sent when it is unmasked",
    "submit_tail jumps: BROKEN until a reset",
    "a reset with ring requests in flight",
}


def names_of(done):
    return {name for _, name in done.tap}


@needs_daemons
@pytest.mark.parametrize("accel", accelerators())
def test_selftest_on_shared_memory(stack, accel):
    """Windows, arena and rings. A vector is seen in the local APIC: under KVM an irqfd put it there."""
    stack.start_worker("w0")
    done = run_guest(stack.socket("vm-a"), "selftest", accel=accel, options=",datapath=shm")
    expect_pass(done, 100)
    assert RING_TESTS <= names_of(done), done.output
    assert stack.processes["mediator"].poll() is None, stack.log("mediator")


@needs_daemons
@pytest.mark.parametrize("accel", accelerators())
def test_selftest_on_the_socket(stack, accel):
    """The identical program where the device has no rings."""
    stack.start_worker("w0")
    done = run_guest(stack.socket("vm-a"), "selftest", accel=accel, options=",datapath=socket")
    expect_pass(done, 75)
    assert not RING_TESTS & names_of(done), done.output
    assert stack.processes["mediator"].poll() is None, stack.log("mediator")


@needs_daemons
def test_both_paths_give_the_windows_the_same_results(stack):
    """A driver that knows only BAR 0: the same tests, with the same outcome, on both paths."""
    stack.start_worker("w0")
    seen = []
    for path in ("socket", "shm"):
        done = run_guest(stack.socket("vm-a"), "windows", options=f",datapath={path}")
        expect_pass(done, 75)
        seen.append(done.tap)
    assert seen[0] == seen[1]


@needs_daemons
def test_interrupts_wake_the_cpu(stack):
    """TCG only: the KVM of a machine without VMX or SVM need not know the instruction iret."""
    stack.start_worker("w0")
    done = run_guest(stack.socket("vm-a"), "interrupts", accel="tcg")
    expect_pass(done, 1)
    taken = re.search(r"# 200 requests, (\d+) interrupts", done.output)
    assert taken and int(taken[1]) > 0, done.output


@needs_daemons
@pytest.mark.parametrize("options", [",rings=1,ring-entries=16", ",rings=16,ring-entries=32"])
def test_other_shapes_of_rings(stack, options):
    stack.start_worker("w0")
    done = run_guest(stack.socket("vm-a"), "selftest", options=options)
    expect_pass(done, 95)
    assert "64 in flight: each is answered once, with its own output" in names_of(done)


@needs_daemons
def test_selftest_on_q35_with_a_small_arena(stack):
    stack.start_worker("w0")
    done = run_guest(stack.socket("vm-a"), "selftest", machine="q35", options=",shm-size=4M")
    expect_pass(done, 75)


@needs_daemons
def test_bench_mode(stack):
    stack.start_worker("w0")
    done = run_guest(stack.socket("vm-a"), "bench 200")
    assert done.status == GUEST_PASS, done.output
    for case in ("full", "ring", "read", "write"):
        assert f"BENCH {case} n=200 min_ns=" in done.output
    done = run_guest(stack.socket("vm-a"), "rings 200")
    assert done.status == GUEST_PASS, done.output
    for case in ("rings", "doorbell", "trap"):
        assert f"BENCH {case} n=200 min_ns=" in done.output


@needs_daemons
def test_mediator_starts_after_the_guest(tmp_path):
    """The VM boots with no mediator; its request is answered when one comes."""
    stack = Stack(tmp_path)
    (stack.run_dir / "vm-a").mkdir(mode=0o700)
    console = tmp_path / "console"
    with console.open("wb") as out:
        guest = subprocess.Popen(guest_command(stack.socket("vm-a"), "echo 3"),
                                 stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        wait_for("the guest has found the device", lambda: "# BAR 0" in console.read_text())
        stack.start_mediator()
        stack.start_worker("w0")
        assert guest.wait(90) == GUEST_PASS, console.read_text()
        assert console.read_text().count("error 0") == 3
    finally:
        guest.kill()
        guest.wait()
        stack.close()


@needs_daemons
def test_mediator_killed_between_requests(stack, tmp_path):
    """kill -9 of the mediator and a new one: the guest goes on, it only waits a little."""
    stack.start_worker("w0")
    console = tmp_path / "console"
    with console.open("wb") as out:
        guest = subprocess.Popen(guest_command(stack.socket("vm-a"), "echo 3000"),
                                 stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        wait_for("some echoes", lambda: console.read_text().count("error 0") > 20)
        stack.kill("mediator")
        before = console.read_text().count("error 0")
        stack.start_mediator()
        wait_for("more echoes", lambda: console.read_text().count("error 0") > before + 20)
        assert guest.wait(120) == GUEST_PASS, console.read_text()[-2000:]
        assert console.read_text().count("error 0") == 3000
    finally:
        guest.kill()
        guest.wait()


@needs_daemons
@pytest.mark.parametrize("accel", accelerators())
def test_driver_written_from_the_document_alone(stack, accel):
    """doc_driver.c knows docs/device.md and nothing else: INFO, ECHO, GEMM, SORT, REDUCE, an error."""
    stack.start_worker("w0")
    done = run_guest(stack.socket("vm-a"), "document", accel=accel)
    assert done.status == GUEST_PASS, done.output
    assert done.output.count("ok ") - done.output.count("not ok ") == 8, done.output

# SPDX-License-Identifier: MIT
"""The multiboot guest of tests/guest against the real device, mediator and worker.

The guest is a driver that uses only what docs/device.md says; here it runs under TCG and,
where /dev/kvm opens, under KVM, on both machine types of QEMU.
"""

import subprocess

import pytest

from stack import (
    BIN, GUEST_FAIL, GUEST_PASS, ROOT, Stack, accelerators, guest_command, missing_programs,
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


@needs_daemons
@pytest.mark.parametrize("accel", accelerators())
def test_selftest(stack, accel):
    stack.start_worker("w0")
    done = run_guest(stack.socket("vm-a"), "selftest", accel=accel)
    expect_pass(done, 75)
    assert stack.processes["mediator"].poll() is None, stack.log("mediator")


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

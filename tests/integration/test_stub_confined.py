# SPDX-License-Identifier: MIT
"""QEMU as XCP-ng runs it: in a chroot and a mount namespace of its own, as a user of its own, and with
file sizes limited to 256 KiB. docs/qemu.md, "XCP-ng", says how the socket gets there.

The device is the same with any accelerator; Xen itself is not needed to see that it starts, connects,
works and connects again.
"""

import os
import re
import subprocess

import pytest

from qtest import qemu_binary
from stack import BIN, GUEST_PASS, Stack, guest_command, missing_programs, wait_for

USER = 54321
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts, chroot"),
    pytest.mark.skipif(bool(missing_programs("guest.elf", "vgpu-mediator", "vgpu-worker")),
                       reason=f"the programs are not in {BIN}"),
]
# What the changed qemu-wrapper of XCP-ng does between fork and exec. $1: the VM's directory with its
# socket; $2: where it is to be in the chroot; then QEMU.
CONFINE = """
set -e
mount --make-rprivate /
mount --bind "$1" "$2"
shift 2
exec prlimit --fsize=262144 -- "$@"
"""


def confinement(root):
    """The options that say chroot and user, which have another name since 8.1 and 9.1."""
    said = subprocess.run([qemu_binary(), "--version"], capture_output=True, text=True, check=True)
    version = tuple(int(n) for n in re.search(r"version (\d+)\.(\d+)", said.stdout).groups())
    chroot = ["-run-with", f"chroot={root}"] if version >= (8, 1) else ["-chroot", str(root)]
    user = ["-run-with", f"user={USER}:{USER}"] if version >= (9, 1) else ["-runas", f"{USER}:{USER}"]
    return chroot + user


@pytest.fixture
def stack(tmp_path):
    s = Stack(tmp_path)
    text = s.pool_file.read_text().replace("    tenant: test\n", f"    tenant: test\n    uid: {USER}\n")
    s.pool_file.write_text(text)
    s.run_dir.chmod(0o755)
    try:
        s.start_mediator()
        s.start_worker("w0")
        yield s
    finally:
        s.close()


def start(stack, tmp_path, mode, options=",datapath=socket"):
    root = tmp_path / "root-7"
    (root / "vgpu").mkdir(parents=True)
    command = guest_command("/vgpu/vgpu.sock", mode, options=options) + confinement(root)
    vm = stack.socket("vm-a").parent
    console = tmp_path / "console"
    with console.open("wb") as out:
        guest = subprocess.Popen(
            ["unshare", "--mount", "--ipc", "--net", "bash", "-c", CONFINE, "bash", vm, root / "vgpu", *command],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    return guest, console


def test_a_vm_in_a_chroot_reaches_its_mediator_and_the_next_one(stack, tmp_path):
    guest, console = start(stack, tmp_path, "echo 2000")
    try:
        wait_for("some echoes", lambda: console.read_text().count("error 0") > 20)
        status = open(f"/proc/{guest.pid}/status").read()
        assert re.search(rf"^Uid:\s+{USER}\s+{USER}\s", status, re.M), status
        assert os.readlink(f"/proc/{guest.pid}/root").endswith("root-7")
        stack.kill("mediator")
        stack.start_mediator()
        assert guest.wait(120) == GUEST_PASS, console.read_text()[-2000:]
        assert console.read_text().count("error 0") == 2000
    finally:
        guest.kill()
        guest.wait()


def test_with_limited_files_shared_memory_is_refused_or_fatal(stack, tmp_path):
    """The limit is there: BAR 2 as a memfd is not possible, which is why datapath=socket has none."""
    guest, console = start(stack, tmp_path, "echo 1", options=",datapath=shm")
    try:
        assert guest.wait(60) != GUEST_PASS, console.read_text()
    finally:
        guest.kill()
        guest.wait()

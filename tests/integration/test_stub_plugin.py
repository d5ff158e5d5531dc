# SPDX-License-Identifier: MIT
"""The plug-in refuses a QEMU that it was not built for, and the wrapper starts the VM all the same."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from qtest import Qemu, build_plugin, qemu_binary, run_qemu, wait_for
from local_proto import ROOT

WRAPPER = str(ROOT / "stub" / "qemu-with-vgpu")
BUILD = str(ROOT / "stub" / "build-plugin.sh")
DEVICE = ["-machine", "q35", "-accel", "tcg", "-S", "-device", "vgpu-stub,socket=/nonexistent/vgpu.sock"]


@pytest.fixture(scope="module")
def headers():
    build_plugin()
    done = subprocess.run([str(ROOT / "stub" / "qemu-headers.sh")], capture_output=True, text=True,
                          check=True)
    return Path(done.stdout.strip())


def other_plugin(tmp, headers, edit):
    """A plug-in built with edited headers; its folder."""
    copy = tmp / "headers"
    shutil.copytree(headers, copy)
    edit(copy)
    done = subprocess.run([BUILD, "--headers", str(copy), "--out", str(tmp / "plugin")],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def qemu_version():
    said = subprocess.run([qemu_binary(), "--version"], capture_output=True, text=True, check=True)
    return re.search(r"version (\d+)\.(\d+)", said.stdout).groups()


def test_the_second_build_is_quick_and_changes_nothing():
    plugin = Path(build_plugin())
    before = plugin.stat().st_mtime_ns
    assert build_plugin() == str(plugin) and plugin.stat().st_mtime_ns == before
    assert plugin.name == "vgpu-stub-{}.{}.so".format(*qemu_version())


def test_another_version_is_refused_in_one_sentence(tmp_path, headers):
    """The plug-in takes the two numbers that QEMU says for each other, so they are not its own."""
    major, minor = qemu_version()
    def edit(copy):
        replace(copy / "qapi" / "qapi-types-control.h", "    int64_t major;\n    int64_t minor;\n",
                "    int64_t minor;\n    int64_t major;\n")
    plugin = other_plugin(tmp_path, headers, edit)
    _, said = run_qemu(["-device", "vgpu-stub,help"], [qemu_binary()], {"LD_PRELOAD": str(plugin)})
    first = said.splitlines()[0]
    assert f"plug-in for QEMU {major}.{minor}: refused: this is QEMU {minor}.{major}" in first
    assert "vgpu-stub options" not in said


def test_another_layout_is_refused_and_the_wrapper_starts_without_the_device(tmp_path, headers):
    def edit(copy):
        pci = copy / "include" / "hw" / "pci" / "pci_device.h"
        if not pci.exists():
            pci = copy / "include" / "hw" / "pci" / "pci.h"
        replace(pci, "struct PCIDevice {\n    DeviceState qdev;",
                "struct PCIDevice {\n    DeviceState qdev;\n    char intruder[64];")
    plugin = other_plugin(tmp_path, headers, edit)
    env = {"VGPU_PLUGIN_DIR": str(plugin.parent)}
    code, said = run_qemu(DEVICE, [WRAPPER], dict(env, VGPU_REQUIRE="1"))
    assert code == 3 and "its type pci-device has" in said and "NOT started" in said
    code, said = run_wrapper_until_quit(tmp_path, DEVICE, env)
    assert code == 0 and "WITHOUT its vGPU" in said and "refused" in said


def run_wrapper_until_quit(tmp, args, env):
    """Runs the wrapper with a QMP script on standard input that asks for PCI devices and quits."""
    script = '{"execute":"qmp_capabilities"}{"execute":"query-pci"}{"execute":"quit"}'
    done = subprocess.run([WRAPPER, "-nodefaults", "-display", "none", "-qmp", "stdio"] + args,
                          input=script, env=dict(os.environ, **env), capture_output=True, text=True,
                          timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_wrapper_gives_the_device(tmp_path):
    build_plugin()
    code, said = run_wrapper_until_quit(tmp_path, DEVICE, {})
    assert code == 0 and "WITHOUT" not in said
    assert re.search(r'"vendor": 4660', said) and re.search(r'"device": 22087', said)


@pytest.mark.parametrize("device", [
    ["-device", "vgpu-stub,socket=/x"],
    ["--device", "driver=vgpu-stub,socket=/x"],
    ["-device", "id=a,driver=vgpu-stub,socket=/x"],
    ["-device", '{"driver": "vgpu-stub", "socket": "/x"}'],
    ["-global", "vgpu-stub.shm-size=1M", "-device", "vgpu-stub,socket=/x"],
])
def test_without_a_plugin_only_the_device_is_left_out(tmp_path, device):
    args = ["-machine", "q35", "-accel", "tcg", "-S", "-name", "a b  c", *device, "-device", "pci-testdev"]
    code, said = run_wrapper_until_quit(tmp_path, args, {"VGPU_PLUGIN_DIR": str(tmp_path)})
    assert code == 0 and "1 vgpu-stub device(s) left out" in said and "build-plugin.sh" in said
    assert '"device": 22087' not in said
    assert '"device": 5' in said, "the other device is there"


def test_the_wrapper_takes_the_name_of_a_qemu(tmp_path):
    code, said = run_qemu(["--version"], [WRAPPER, qemu_binary()])
    assert code == 0 and "QEMU emulator version" in said
    code, said = run_qemu([], [WRAPPER, "/nonexistent/qemu"])
    assert code != 0


def test_the_device_goes_into_a_source_tree(tmp_path):
    """What build-intree.sh does before it builds: hooks, files that need nothing from elsewhere."""
    if os.environ.get("VGPU_TEST_QEMU"):
        pytest.skip("the QEMU under test has the device in its tree")
    found = subprocess.run(["bash", "-c", ". deploy/lib/packages.sh && pkg_qemu_source"], cwd=ROOT,
                           capture_output=True, text=True, check=True)
    source, tree = Path(found.stdout.strip()), tmp_path / "qemu"
    hooked = {"meson.build": "'hw/misc/vgpu',", "hw/misc/meson.build": "subdir('vgpu')",
              "hw/misc/Kconfig": "source vgpu/Kconfig"}
    (tree / "hw" / "misc").mkdir(parents=True)
    for name in ("VERSION", *hooked):
        shutil.copy(source / name, tree / name)
    for _ in range(2):  # the second time changes nothing
        done = subprocess.run([str(ROOT / "stub" / "build-intree.sh"), str(tree), "--copy-only"],
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        for name, line in hooked.items():
            assert (tree / name).read_text().count(line) == 1, name
    device = tree / "hw" / "misc" / "vgpu"
    assert not list(device.glob("*.new")) and not list(tree.rglob("*.rej"))
    listed = re.findall(r"'(\w+\.c)'", (device / "meson.build").read_text())
    assert sorted(listed) == sorted(p.name for p in device.glob("*.c"))
    for name in ("names.c", "request.c", "vgpu_bar0.c", "vgpu_layout.c", "vgpu_relay.c"):  # no QEMU types in these
        done = subprocess.run(["gcc", "-std=gnu11", "-fsyntax-only", name], cwd=device,
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def make_tree(tree, objects):
    """The files of a QEMU 4.2 that the device's hooks go into, as far as that matters."""
    files = {"VERSION": "4.2.1", "hw/misc/Kconfig": "source macio/Kconfig",
             "hw/misc/Makefile.objs": "common-obj-$(CONFIG_MACIO) += macio/", "Makefile.objs": objects,
             "default-configs/i386-softmmu.mak": "CONFIG_VGA_PCI=y"}
    for name, text in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text + "\n")
    return lambda: subprocess.run([str(ROOT / "stub" / "build-intree.sh"), str(tree), "--copy-only"],
                                  capture_output=True, text=True, check=False)


def test_the_device_goes_into_a_tree_without_meson(tmp_path):
    put = make_tree(tmp_path, "trace-events-subdirs += hw/misc/macio\ntrace-events-subdirs += hw/net")
    for _ in range(2):
        done = put()
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "Makefile.objs").read_text().splitlines() == [
        f"trace-events-subdirs += hw/{name}" for name in ("misc/macio", "misc/vgpu", "net")]
    assert (tmp_path / "hw/misc/Makefile.objs").read_text().splitlines()[1:] == [
        "common-obj-$(CONFIG_VGPU_STUB) += vgpu/"]
    assert (tmp_path / "hw/misc/Kconfig").read_text().splitlines()[1:] == ["source vgpu/Kconfig"]
    assert "CONFIG_VGPU_STUB=y\n" in (tmp_path / "default-configs/i386-softmmu.mak").read_text()
    device = tmp_path / "hw/misc/vgpu"
    listed = re.findall(r"(\w+)\.o\b", (device / "Makefile.objs").read_text())
    assert sorted(listed) == sorted(p.stem for p in device.glob("*.c"))
    assert not (device / "trace.h").exists(), "QEMU before 5.2 makes a file of that name"


def test_a_tree_that_is_not_understood_is_refused(tmp_path):
    done = make_tree(tmp_path, "nothing that is known")()
    assert done.returncode == 1 and "not understood" in done.stderr


def test_programs_that_qemu_starts_do_not_get_the_plugin(tmp_path):
    out = tmp_path / "environment"
    with Qemu(tmp_path, [], env={"MARK": "here"}) as vm:
        vm.command("migrate", uri=f"exec:env >{out}; cat >/dev/null")
        wait_for("the migration ends",
                 lambda: vm.command("query-migrate").get("status") in ("completed", "failed"))
    text = out.read_text()
    assert "MARK=here" in text and "LD_PRELOAD" not in text


def test_another_program_is_not_disturbed():
    plugin = build_plugin()
    done = subprocess.run(["/bin/sh", "-c", "echo fine; ls / >/dev/null"], capture_output=True,
                          text=True, env={"LD_PRELOAD": plugin, "LD_BIND_NOW": "1"}, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


def test_trace_on_request(tmp_path):
    args = ["-machine", "q35", "-accel", "tcg", "-S", "-device", "vgpu-stub,socket=/nonexistent/s",
            "-qmp", "stdio"]
    plugin = build_plugin()
    for wish, wanted in (("1", True), ("connect", True), ("submit", False), ("", False)):
        done = subprocess.run(
            [qemu_binary(), "-nodefaults", "-display", "none", *args],
            input='{"execute":"qmp_capabilities"}{"execute":"quit"}',
            env=dict(os.environ, LD_PRELOAD=plugin, VGPU_STUB_TRACE=wish), capture_output=True,
            text=True, timeout=60, check=False)
        assert ("vgpu_stub_reset epoch=1" in done.stderr) == (wish == "1"), done.stderr
        assert ("vgpu_stub_connect path=/nonexistent/s" in done.stderr) in (wanted, False)

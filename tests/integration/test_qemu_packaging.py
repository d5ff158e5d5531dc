# SPDX-License-Identifier: MIT
"""deploy/qemu: patches that are made from stub/, and the examples for libvirt and XCP-ng."""

import re
import shutil
import subprocess
import xml.etree.ElementTree as ET

import pytest

from local_proto import ROOT

PATCH = str(ROOT / "deploy" / "qemu" / "device-patch.sh")
QEMU_NS = "{http://libvirt.org/schemas/domain/qemu/1.0}"
MESON = {"VERSION": "10.0.13\n", "meson.build": "  trace = [\n    'hw/misc',\n    'hw/misc/macio',\n    'hw/net',\n]\n",
         "hw/misc/Kconfig": "config A\n    bool\n\nsource macio/Kconfig\n",
         "hw/misc/meson.build": "system_ss.add(when: 'CONFIG_LASI', if_true: files('lasi.c'))\n"}
MAKE = {"VERSION": "4.2.1\n", "Makefile.objs": "trace-events-subdirs += hw/misc/macio\ntrace-events-subdirs += hw/net\n",
        "hw/misc/Kconfig": "source macio/Kconfig\n", "hw/misc/Makefile.objs": "common-obj-$(CONFIG_PVPANIC) += pvpanic.o\n",
        "default-configs/i386-softmmu.mak": "CONFIG_VGA_CIRRUS=y\nCONFIG_VGA_PCI=y\n"}
SPEC = "Name: qemu\nRelease: 4.6.4.2\nPatch86: build-configuration.patch\n\nPatch1000: cve.patch\n\n%prep\n%autosetup -p1\n"


def make_tree(path, files):
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


def make_patch(*args):
    done = subprocess.run([PATCH, *map(str, args)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def apply(tree, patch):
    done = subprocess.run(["patch", "-d", str(tree), "-p1", "--fuzz=0", "-s", "-i", str(patch)],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def contents(tree):
    return {str(p.relative_to(tree)): p.read_text() for p in tree.rglob("*") if p.is_file()}


@pytest.mark.parametrize("files", [MESON, MAKE], ids=["meson", "make"])
def test_the_patch_does_what_build_intree_does(tmp_path, files):
    tree, other = make_tree(tmp_path / "a", files), make_tree(tmp_path / "b", files)
    text = make_patch(tree)
    assert contents(tree) == files, "the tree is not changed"
    assert make_patch(tree) == text, "the same device gives the same patch"
    (tmp_path / "patch").write_text(text)
    apply(tree, tmp_path / "patch")
    subprocess.run([str(ROOT / "stub" / "build-intree.sh"), str(other), "--copy-only"], check=True,
                   capture_output=True)
    assert contents(tree) == contents(other)
    assert len(contents(tree)) > len(files) + 10


def test_quilt_gets_one_entry(tmp_path):
    tree = make_tree(tmp_path, dict(MESON, **{"debian/patches/series": "first.patch\n"}))
    for _ in range(2):
        made = make_patch(tree, "--quilt").strip()
        assert (tree / "debian/patches/series").read_text() == "first.patch\nvgpu-stub.patch\n"
    assert (tree / "debian/patches/vgpu-stub.patch").read_text().startswith("Description: ")
    apply(tree, made)
    done = subprocess.run([PATCH, str(tree), "--quilt"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "has the device already" in done.stderr


def test_a_tree_that_is_no_debian_source(tmp_path):
    tree = make_tree(tmp_path, MESON)
    done = subprocess.run([PATCH, str(tree), "--quilt"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "debian/patches/series" in done.stderr
    done = subprocess.run([PATCH, str(tmp_path / "hw")], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "not the source of QEMU" in done.stderr


@pytest.mark.parametrize("number, want", [((), "Patch1001"), (("1100",), "Patch1100")])
def test_the_rpm_s_spec_gets_one_line(tmp_path, number, want):
    tree = make_tree(tmp_path / "tree", MAKE)
    rpm = make_tree(tmp_path / "rpm", {"SPECS/qemu.spec": SPEC, "SOURCES/cve.patch": ""})
    for _ in range(2):
        make_patch(tree, "--rpm", rpm / "SPECS/qemu.spec", *number)
        lines = (rpm / "SPECS/qemu.spec").read_text().splitlines()
        assert [l for l in lines if "Patch" in l] == ["Patch86: build-configuration.patch",
                                                      "Patch1000: cve.patch", f"{want}: vgpu-stub.patch"]
    apply(tree, rpm / "SOURCES/vgpu-stub.patch")
    assert (tree / "default-configs/i386-softmmu.mak").read_text().endswith("CONFIG_VGPU_STUB=y\n")


def test_the_domain_of_libvirt(tmp_path):
    path = ROOT / "deploy" / "qemu" / "libvirt" / "domain.xml"
    domain = ET.parse(path).getroot()
    args = [a.get("value") for a in domain.iter(QEMU_NS + "arg")]
    assert args[0] == "-device" and args[1].startswith("vgpu-stub,") and len(args) == 2
    assert "socket=/run/vgpu/" in args[1] and "chardev" not in args[1]
    assert domain.findtext("devices/emulator") == "/usr/bin/qemu-with-vgpu"
    known = set(re.findall(r'DEFINE_PROP_\w+\("([\w-]+)"', (ROOT / "stub" / "vgpu_pci.c").read_text()))
    given = {a.split("=")[0] for a in args[1].split(",")[1:]} - {"id", "bus", "addr"}
    assert given <= known
    if shutil.which("virt-xml-validate"):
        subprocess.run(["virt-xml-validate", str(path), "domain"], check=True)


def test_the_rule_of_apparmor(tmp_path):
    """Inside a profile, as libvirt's abstraction includes it."""
    rule = ROOT / "deploy" / "qemu" / "libvirt" / "apparmor-vgpu"
    text = rule.read_text()
    for path in ("/usr/lib/vgpu/vgpu-stub-*.so mr", "/usr/lib/vgpu/source/stub/qemu-with-vgpu rmix",
                 "run/vgpu/** rw"):
        assert path in text
    used = set(re.findall(r"\b(grep|head|logger|readlink|sed|timeout|dirname|awk|cut|tail|cat)\b(?= -|\s+\"|\s+\$)",
                          (ROOT / "stub" / "qemu-with-vgpu").read_text()))
    listed = set(re.search(r"bin/\{([^}]*)\} rmix", text)[1].split(","))
    assert used <= listed, "what the wrapper runs"
    if not shutil.which("apparmor_parser"):
        pytest.skip("apparmor_parser is not installed: the syntax was not looked at")
    profile = tmp_path / "profile"
    profile.write_text(f"profile libvirt-test flags=(attach_disconnected) {{\n{text}\n}}\n")
    subprocess.run(["apparmor_parser", "-Q", "-K", str(profile)], check=True)


def test_the_fragment_of_xcp_ng_s_wrapper(tmp_path):
    """Its three pieces in a wrapper that only has the place for them."""
    text = (ROOT / "deploy" / "qemu" / "xcp-ng" / "qemu-wrapper.fragment").read_text()
    functions, prepare, start = re.split(r"^# [123]\. .*\n", text, flags=re.M)[1:]
    uuid = "5f0c7b1e-3a7d-4c52-9a44-0d3a4c1f6b01"
    script = f"""
import os, sys
calls = []
class pwd: getpwnam = staticmethod(lambda name: type("", (), {{"pw_uid": 1000}}))
class grp: getgrnam = staticmethod(lambda name: type("", (), {{"gr_gid": 1000}}))
class subprocess: call = staticmethod(calls.append)
def xenstore_read(path): return "/vm/{uuid}" if path == "/local/domain/7/vm" else None
{functions}
VGPU_DIRS = {str(tmp_path)!r}
def prepare_exec():
    pass
{prepare}
def main():
    domid, qemu_args, root_dir = 7, [], {str(tmp_path / "root-7")!r}
    if True:
{start}
    print((uid, gid), qemu_args, sep="\\n")
main(); prepare_exec(); print(calls)
"""
    def run():
        done = subprocess.run(["/usr/bin/python3", "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    assert run() == ["(1007, 1007)", "[]", "[]"], "a VM that has none"
    directory = tmp_path / uuid
    directory.mkdir()
    owner = directory.stat().st_uid
    said = run()
    assert said[0] == f"({owner}, {owner})"
    assert "datapath=socket,socket=/vgpu/vgpu.sock" in said[1] and uuid in said[1]
    assert f"['mount', '--bind', '{directory}', '{tmp_path}/root-7/vgpu']" in said[2]
    assert (tmp_path / "root-7/vgpu").is_dir()

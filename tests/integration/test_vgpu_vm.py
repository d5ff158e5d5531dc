# SPDX-License-Identifier: MIT
"""libvgpu and `vgpu` in a booted Linux VM, through sysfs, on both data paths: every operation, several
processes at once, one killed in the middle, an interrupt, a mediator that is killed while tiles are
under way. The same static binary each time: rings on datapath=shm, windows on datapath=socket."""
import io
import json
import os
import re
import subprocess
import tarfile

import numpy as np
import pytest

from stack import BIN, ROOT, Stack, missing_programs, wait_for

BOOT_LIMIT_S = 180
JOB = r"""
cd /job
say() { echo "$*" >/dev/ttyS1; }
check() { "$@" >>out/log 2>&1; status=$?; say "$status $*"; return $status; }

check vgpu info --json
check vgpu info --all
check vgpu run echo --in x.npy --out out/echo.npy
check vgpu run gemm --in a.npy --in b.npy --out out/gemm.npy --trans-b
check vgpu run axpy --in x.npy --in x.npy --out out/axpy.npy --alpha 2
check vgpu run fft --in a.npy --out out/fft.npy
check vgpu run sort --in x.npy --out out/sort.npy --descending
vgpu run reduce --in x.npy --kind argmax >out/argmax 2>>out/log
check vgpu-example-gemm
check vgpu bench --seconds 0.05
check vgpu bench --seconds 0.05 --json --spin 0
check vgpu run echo --in x.npy --out out/echo-windows.npy --path windows

say more processes than rings
for i in 1 2 3 4 5 6; do
    (vgpu denoise in.png out/many$i.png --tile 32 --patch 1 --search 3 >>out/log 2>&1; say "$? background") &
done
wait

say two at once
for i in 1 2 3; do
    (vgpu run echo --in x.npy --out out/echo$i.npy >>out/log 2>&1; say "$? background") &
done
vgpu denoise in.png out/a.png --tile 32 --patch 1 --search 4 >>out/log 2>&1 &
one=$!
check vgpu denoise in.png out/b.png --tile 48 --patch 1 --search 4 --json
wait $one
say "$? first denoise"
wait
cmp out/a.png out/b.png
say "$? equal"

say killed
vgpu denoise in.png out/never.png --tile 16 --patch 8 --search 32 --progress json 2>progress >/dev/null &
one=$!
until grep -qs step progress; do usleep 10000; done
kill -9 $one
check vgpu denoise in.png out/c.png --tile 64 --patch 1 --search 4
cmp out/a.png out/c.png
say "$? equal"
check vgpu info

for i in 1 2 3 4 5 6 7 8; do
    vgpu bench --seconds 9 >/dev/null 2>&1 & one=$!
    vgpu bench --seconds 9 --spin 0 >/dev/null 2>&1 & two=$!
    usleep 200000
    kill -9 $one $two
    check vgpu run echo --in x.npy --out out/after-kill$i.npy
done
vgpu denoise in.png out/never.png --tile 16 --patch 8 --search 32 --progress json 2>progress1 >/dev/null &
one=$!
until grep -qs step progress1; do usleep 10000; done
kill -STOP $one
vgpu reset --deadline 0.3 >>out/log 2>&1
say "reset beside a process that is stopped: $?"
kill -9 $one
check vgpu run echo --in x.npy --out out/after-stop.npy

for device in /sys/bus/pci/devices/*; do grep -q 0x5647 $device/device && break; done
bar() { sed -n "$(($1 + 1))p" $device/resource | cut -d' ' -f1; }
devmem $(printf 0x%x $(($(bar 2) + 0x10000))) 32 0x12345678  # submit_tail of ring 0, or nothing
devmem $(printf 0x%x $(($(bar 0) + 0x100))) 32 1             # its doorbell
if vgpu info | grep -q '^ring .* is this'; then
    until vgpu info 2>/dev/null | grep -q BROKEN; do usleep 10000; done
fi
vgpu run echo --in x.npy --out out/never.npy >>out/log 2>&1
say "after breaking a ring: $?"
check vgpu reset
check vgpu run echo --in x.npy --out out/healed.npy

say interrupted
vgpu denoise in.png out/never.png --tile 16 --patch 8 --search 32 --progress json 2>progress2 >/dev/null &
one=$!
until grep -qs step progress2; do usleep 10000; done
kill -TERM $one
wait $one
say "$? interrupted"

say without mediator
check vgpu denoise in.png out/d.png --tile 16 --patch 8 --search 16 --progress json --progress-fd 3 3>/dev/ttyS1
check vgpu reset
check vgpu info
"""

rng = np.random.default_rng(5)
A = rng.random((20, 30))
B = rng.random((10, 30))
X = rng.random(60000).astype("f4")


def missing():
    if os.environ.get("VGPU_SANITIZE"):
        return "a sanitizer's build of vgpu is not static"
    return ", ".join(missing_programs("vgpu", "vgpu-mediator", "vgpu-worker"))


pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


def deploy(command):
    """Run a function of deploy/lib. Return: what it prints."""
    script = f"""set -euo pipefail
        export VGPU_CACHE=${{VGPU_CACHE:-$HOME/.cache/vgpu}}
        source deploy/lib/ui.sh; source deploy/lib/packages.sh; source deploy/lib/guest-image.sh
        {command}"""
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def make_image(folder):
    from test_vgpu_cmd import noisy, write_png  # the same picture as with the simulated device
    (folder / "run").write_text(JOB)
    write_png(folder / "in.png", noisy(90, 130))
    for name, array in (("a", A), ("b", B), ("x", X)):
        np.save(folder / f"{name}.npy", array)
    files = " ".join(str(folder / f) for f in ("run", "in.png", "a.npy", "b.npy", "x.npy"))
    deploy(f"guest_base {folder}/base deploy/guest/init {BIN}/vgpu {BIN}/vgpu-example-gemm; "
           f"guest_job {folder}/initrd {folder}/base {files}")
    with open(folder / "out.img", "wb") as f:
        f.truncate(16 << 20)


@pytest.fixture(scope="module", params=["shm", "socket"])
def datapath(request):
    return request.param


@pytest.fixture(scope="module")
def done(tmp_path_factory, datapath):
    """Boots the VM, kills the mediator when its last job says that it is under way, and returns
    what the VM said and the files it made."""
    folder = tmp_path_factory.mktemp("vm")
    kernel = deploy("guest_kernel")
    make_image(folder)
    status = folder / "status"
    with Stack(folder) as s:
        s.start_worker("w0", threads=2)
        os.environ["VGPU_REQUIRE"] = "1"
        s.start("qemu", ROOT / "stub" / "qemu-with-vgpu", "-nodefaults", "-no-reboot", "-display", "none",
                "-nic", "none", "-m", "512", "-accel", "tcg,thread=multi", "-smp", "2",
                "-kernel", kernel, "-initrd", folder / "initrd", "-append", "console=ttyS0 quiet panic=-1",
                "-serial", f"file:{folder}/console", "-serial", f"file:{status}", "-serial", "null",
                "-drive", f"file={folder}/out.img,if=none,id=out,format=raw",
                "-device", "nvme,drive=out,serial=out",
                "-device", f"vgpu-stub,socket={s.socket('vm-a')},reconnect-ms=100,datapath={datapath}")
        wait_for("the last job is under way", lambda: s.processes["qemu"].poll() is not None or
                 (status.exists() and '"event": "step"' in status.read_text(errors="replace")), BOOT_LIMIT_S)
        s.kill("mediator")
        (s.run_dir / "worker.sock").unlink(missing_ok=True)
        s.start_mediator()
        wait_for("the VM ends", lambda: s.processes["qemu"].poll() is not None, BOOT_LIMIT_S)
        logs = {name: s.log(name) for name in s.processes}
    files = {}
    with tarfile.open(fileobj=io.BytesIO((folder / "out.img").read_bytes())) as tar:
        for member in tar:
            if member.isfile():
                files[os.path.basename(member.name)] = tar.extractfile(member).read()
    said = status.read_text(errors="replace").replace("\r", "")
    print(said, files.get("log", b"").decode(), *logs.values(), sep="\n")  # shown when a test fails
    return said, files


def array(done, name):
    return np.load(io.BytesIO(done[1][name]))


def test_the_job_ran_to_its_end(done):
    assert re.search(r"^exit 0$", done[0], re.M), done[0]


def test_every_command_succeeded(done):
    failed = [line for line in re.findall(r"^(\d+ .*)$", done[0], re.M) if not line.startswith("0 ")]
    assert failed == ["130 interrupted"], done[0] + done[1]["log"].decode()


def test_results(done):
    np.testing.assert_array_equal(array(done, "echo.npy"), X)
    np.testing.assert_array_equal(array(done, "echo-windows.npy"), X)
    np.testing.assert_allclose(array(done, "gemm.npy"), A @ B.T, rtol=1e-12)
    np.testing.assert_allclose(array(done, "axpy.npy"), 3 * X, rtol=1e-6)
    np.testing.assert_allclose(array(done, "fft.npy"), np.fft.rfft(A), atol=1e-10)
    np.testing.assert_array_equal(array(done, "sort.npy"), np.sort(X)[::-1])
    assert int(done[1]["argmax"]) == X.argmax()


def test_processes_do_not_disturb_each_other(done):
    for i in (1, 2, 3):
        np.testing.assert_array_equal(array(done, f"echo{i}.npy"), X)
    assert len(re.findall(r"^0 equal$", done[0], re.M)) == 2
    assert len(re.findall(r"^0 background$", done[0], re.M)) == 9
    assert len({done[1][f"many{i}.png"] for i in range(1, 7)}) == 1
    assert "never.png" not in done[1]


def test_nothing_is_lost_with_the_mediator(done):
    steps = [json.loads(line) for line in re.findall(r'^(\{"event": "step".*\})$', done[0], re.M)]
    assert sorted(step["index"] for step in steps) == list(range(54))
    assert "d.png" in done[1]


def test_no_process_is_hurt_by_what_others_leave(done, datapath):
    for name in [f"after-kill{i}.npy" for i in range(1, 9)] + ["after-stop.npy", "healed.npy"]:
        np.testing.assert_array_equal(array(done, name), X)
    assert "reset beside a process that is stopped: 5" in done[0]
    assert f"after breaking a ring: {1 if datapath == 'shm' else 0}" in done[0]
    assert ("BROKEN: the device is broken" in done[1]["log"].decode()) == (datapath == "shm")


def objects(done):
    return [json.loads(line) for line in done[1]["log"].decode().splitlines() if line.startswith("{")]


def test_device_is_as_expected(done, datapath):
    info = objects(done)[0]
    device = info["device"]
    if datapath == "shm":
        assert "ring" in device["features"] and device["rings"] == 4
        assert device["ring"] == 0 and device["no_ring"] == "" and device["ring_entries"] == 128
    else:
        assert "ring" not in device["features"] and device["rings"] == 0
        assert device["ring"] == -1 and device["no_ring"] == "the device offers none"
    bench = next(o for o in objects(done) if "echo" in o)
    assert bench["ring"] == device["ring"] and bench["spin_us"] == 0
    assert [row["bytes"] for row in bench["echo"]][:2] == [8, 64]
    assert info["device"]["mapping"] == "resource2_wc (write combining)"
    assert info["vm"] == "vm-a" and "gemm" in info["ops"]

# SPDX-License-Identifier: MIT
"""libvgpu and `vgpu` in a booted Linux VM, through sysfs: every operation, two processes at once, one
killed in the middle, an interrupt, a mediator that is killed while tiles are under way."""
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


@pytest.fixture(scope="module")
def done(tmp_path_factory):
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
                "-nic", "none", "-m", "512", "-accel", "tcg,thread=multi",
                "-kernel", kernel, "-initrd", folder / "initrd", "-append", "console=ttyS0 quiet panic=-1",
                "-serial", f"file:{folder}/console", "-serial", f"file:{status}", "-serial", "null",
                "-drive", f"file={folder}/out.img,if=none,id=out,format=raw",
                "-device", "nvme,drive=out,serial=out",
                "-device", f"vgpu-stub,socket={s.socket('vm-a')},reconnect-ms=100")
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
    np.testing.assert_allclose(array(done, "gemm.npy"), A @ B.T, rtol=1e-12)
    np.testing.assert_allclose(array(done, "axpy.npy"), 3 * X, rtol=1e-6)
    np.testing.assert_allclose(array(done, "fft.npy"), np.fft.rfft(A), atol=1e-10)
    np.testing.assert_array_equal(array(done, "sort.npy"), np.sort(X)[::-1])
    assert int(done[1]["argmax"]) == X.argmax()


def test_processes_do_not_disturb_each_other(done):
    for i in (1, 2, 3):
        np.testing.assert_array_equal(array(done, f"echo{i}.npy"), X)
    assert len(re.findall(r"^0 equal$", done[0], re.M)) == 2
    assert "never.png" not in done[1]


def test_nothing_is_lost_with_the_mediator(done):
    steps = [json.loads(line) for line in re.findall(r'^(\{"event": "step".*\})$', done[0], re.M)]
    assert sorted(step["index"] for step in steps) == list(range(54))
    assert "d.png" in done[1]


def test_device_is_as_expected(done):
    info = json.loads(next(line for line in done[1]["log"].decode().splitlines() if line.startswith("{")))
    assert info["device"]["mapping"] == "resource2_wc (write combining)"
    assert info["vm"] == "vm-a" and "gemm" in info["ops"]

# SPDX-License-Identifier: MIT
"""bench/run.sh works: its help, its list, and a quick round of every benchmark."""

import re
import subprocess

import pytest

from stack import BIN, ROOT, missing_programs

PROGRAMS = ["vgpu-mediator", "vgpu-worker", "guest.elf", "bench-place", "bench-eventfd", "bench-poll",
            "bench-filepoll", "bench-host", "bench-shm", "bench-many", "bench-nuisance",
            "bench-floor"]
NUMBER = r"-?\d+(?:\.\d+)?"
RESULT = re.compile(
    rf"^RESULT (\S+) value=({NUMBER}) unit=(\S+) floor=({NUMBER}|-) ratio=({NUMBER}|-) "
    rf"target=((?:ratio)?[<>]={NUMBER}|-)$"
)
FIGURES = {
    "device": ["device.shm.sleep", "device.shm.sleep.p99", "device.shm.sleep.together",
               "device.socket.host", "device.file-poll"],
    "pipeline": ["pipeline.256B", "pipeline.256B.notifications"],
    "bulk": ["bulk.local", "bulk.socket", "bulk.copies.mediator", "bulk.copies.executor",
             "bulk.copies.io.mediator", "bulk.copies.io.executor"],
    "many": ["many.64.idle", "many.64.memory", "many.64.busy.p99"],
}


def run(*args):
    done = subprocess.run([ROOT / "bench" / "run.sh", *args], capture_output=True, text=True,
                          timeout=300, check=False)
    return done.returncode, done.stdout, done.stderr


def benchmarks():
    return [line.split()[0] for line in run("--list")[1].splitlines()]


def test_help_and_wrong_flags():
    status, out, _ = run("--help")
    assert status == 0 and "usage: bench/run.sh" in out
    assert run()[0] == 2
    assert run("--no-such-flag")[0] == 2
    status, _, err = run("no-such-benchmark")
    assert status == 1 and "no benchmark 'no-such-benchmark'" in err


def test_every_benchmark_is_listed_and_described():
    names = benchmarks()
    assert {"device", "doorbell", "ops"} | set(FIGURES) <= set(names)
    readme = (ROOT / "bench" / "README.md").read_text()
    for name in names:
        assert f"## {name}: " in readme, f"bench/README.md does not describe {name}"


@pytest.mark.skipif(bool(missing_programs(*PROGRAMS)), reason=f"not all programs are in {BIN}")
@pytest.mark.parametrize("name", benchmarks())
def test_quick_round(name):
    status, out, err = run("--quick", "--build", BIN.parent, name)
    assert status == 0, out + err
    lines = [line for line in out.splitlines() if line.startswith("RESULT ")]
    results = {m[1]: m for m in map(RESULT.match, lines) if m}
    assert len(results) == len(lines), f"a figure appears twice or is not well formed:\n{out}"
    skipped = re.findall(r"^SKIPPED (\S+): \S.*$", out, flags=re.M)
    assert results or skipped, out
    assert all(figure.startswith(f"{name}.") for figure in [*results, *skipped])
    assert set(FIGURES.get(name, [])) <= set(results), out
    for figure, exact in (("doorbell.exits", 0), ("bulk.copies.io.mediator", 0)):
        assert figure not in results or float(results[figure][2]) == exact, out


@pytest.mark.skipif(bool(missing_programs(*PROGRAMS)), reason=f"not all programs are in {BIN}")
def test_portable_folder(tmp_path):
    """What portable.sh packs runs from another place."""
    folder = tmp_path / "portable"
    subprocess.run([ROOT / "bench" / "portable.sh", "--build", BIN.parent, folder], check=True,
                   stdout=subprocess.DEVNULL)
    done = subprocess.run([folder / "run.sh", "--quick", "pipeline"], capture_output=True, text=True,
                          timeout=300, check=False, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "RESULT pipeline.256B value=" in done.stdout
    assert sum(f.stat().st_size for f in folder.rglob("*")) < 60 << 20

# SPDX-License-Identifier: MIT
"""bench/run.sh works: its help, its list, and a quick round of every benchmark."""

import re
import subprocess

import pytest

from stack import BIN, ROOT, missing_programs

PROGRAMS = ["vgpu-mediator", "vgpu-worker", "guest.elf", "bench-eventfd", "bench-filepoll",
            "bench-host", "bench-floor"]
RESULT = re.compile(
    r"^RESULT (\S+) value=(\d+\.\d+) unit=(us|ms) floor=(\d+\.\d+) ratio=(\d+\.\d+) target=\S+$"
)


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
    assert {"device", "ops"} <= set(names)
    readme = (ROOT / "bench" / "README.md").read_text()
    for name in names:
        assert f"## {name}: " in readme, f"bench/README.md does not describe {name}"


@pytest.mark.skipif(bool(missing_programs(*PROGRAMS)), reason=f"not all programs are in {BIN}")
@pytest.mark.parametrize("name", benchmarks())
def test_quick_round(name):
    status, out, err = run("--quick", "--build", BIN.parent, name)
    assert status == 0, out + err
    lines = [line for line in out.splitlines() if line.startswith("RESULT ")]
    results = [RESULT.match(line) for line in lines]
    assert results and all(results), out
    assert all(m[1].startswith(f"{name}.") for m in results)
    assert len({m[1] for m in results}) == len(results), "a figure appears twice"

# SPDX-License-Identifier: MIT
"""The `vgpu` command, on a simulated device (tests/lib/fakedev): what it computes, what it prints,
its exit codes, and what it says about bad files and bad command lines."""
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import time
import zlib

import numpy as np
import pytest

BUILD = os.environ["VGPU_BUILD_DIR"]
FAKE = os.path.join(BUILD, "tests", "vgpu-fake")
REAL = os.path.join(os.environ["VGPU_BIN"], "vgpu")
SANITIZED = bool(os.environ.get("VGPU_SANITIZE"))
LIMIT_S = 60


def vgpu(*args, fake="", program=FAKE, **kwargs):
    return subprocess.run([program, *map(str, args)], env={**os.environ, "VGPU_FAKE": fake},
                          capture_output=True, text=True, timeout=LIMIT_S, check=False, **kwargs)


def check(result, code, says=""):
    text = result.stdout + result.stderr
    assert result.returncode == code, text
    assert says in text, text
    return result


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def save(name, array):
    np.save(name, array)
    return name


def write_png(path, a):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    h, w = a.shape[:2]
    kind = 0 if a.ndim == 2 else {3: 2, 4: 6}[a.shape[2]]
    raw = b"".join(b"\0" + a[y].tobytes() for y in range(h))
    with open(path, "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, kind, 0, 0, 0))
                + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b""))


def read_png(path):
    """Only what the command writes: 8 bits, not interlaced, filters 0 and 1."""
    data = open(path, "rb").read()
    at, idat = 8, b""
    while at < len(data):
        n, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + n]
        if kind == b"IHDR":
            w, h, depth, color = struct.unpack(">IIBB", body[:10])
        idat += body if kind == b"IDAT" else b""
        at += 12 + n
    channels = {0: 1, 2: 3}[color]
    assert depth == 8
    rows = np.frombuffer(zlib.decompress(idat), "u1").reshape(h, 1 + w * channels)
    out = np.empty((h, w, channels), "u1")
    for y in range(h):
        row = rows[y, 1:].reshape(w, channels)
        assert rows[y, 0] in (0, 1)
        out[y] = np.cumsum(row, axis=0, dtype="u1") if rows[y, 0] else row
    return out if channels == 3 else out[:, :, 0]


def noisy(h, w, channels=3):
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:h, 0:w]
    a = np.stack([x * 2, y * 3, x + y][:channels], -1) + rng.normal(0, 12, (h, w, channels))
    a = np.clip(a, 0, 255).astype("u1")
    return a if channels == 3 else a[:, :, 0]


# ---- help and command line ----

COMMANDS = ["info", "run", "denoise", "bench", "reset"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_usage_and_examples(command):
    r = check(vgpu(command, "--help"), 0, f"Usage: vgpu {command}")
    assert "Example" in r.stdout and r.stderr == ""
    assert re.search(rf"^  vgpu {command}", r.stdout, re.M)
    assert "--device WHICH" in r.stdout
    assert max(map(len, r.stdout.splitlines())) <= 100


def test_top_help_lists_commands_and_exit_codes():
    r = check(vgpu("--help"), 0)
    assert all(f"  {c} " in r.stdout for c in COMMANDS)
    assert all(f"\n  {c} " in r.stdout for c in (0, 1, 2, 3, 4, 5, 130))
    check(vgpu("--version"), 0, "device ABI 1.0")


@pytest.mark.parametrize("args, says", [
    ([], "Usage: vgpu COMMAND"),
    (["frobnicate"], 'no command "frobnicate"'),
    (["info", "--nonsense"], "info --help"),
    (["info", "x"], 'unexpected argument "x"'),
    (["info", "--band", "express"], "batch, normal, high and realtime"),
    (["info", "--deadline", "soon"], "--deadline soon: it must be a number"),
    (["info", "--pool", "-1"], "--pool -1: it must be a whole number"),
    (["run"], "it takes one operation"),
    (["run", "tan", "--in", "a.npy"], 'no operation "tan"'),
    (["run", "echo"], "echo takes 1 input, not 0"),
    (["run", "axpy", "--in", "a.npy"], "axpy takes 2 inputs, not 1"),
    (["run", "sort", "--in", "a.npy", "--alpha", "2"], "sort has no option --alpha"),
    (["run", "reduce", "--in", "a.npy", "--kind", "mean"], "one of sum, min, max, argmax"),
    (["run", "reduce", "--in", "a.npy", "--stride", "0"], "--stride 0: it must be"),
    (["run", "axpy", "--alpha", "x"], "--alpha x: not a number"),
    (["denoise", "a.png"], "two files"),
    (["denoise", "a.png", "b.png", "--tile", "7"], "from 8 to 4096"),
    (["denoise", "a.png", "b.png", "--search", "33"], "from 1 to 32"),
    (["denoise", "a.png", "b.png", "--progress", "loud"], "auto, always, never and json"),
    (["bench", "--queue", "1025"], "from 1 to 1024"),
    (["bench", "--path", "usb"], "auto, ring and windows"),
    (["bench", "--spin", "-1"], "from 0 to 1000000"),
])
def test_wrong_command_lines(args, says):
    check(vgpu(*args), 2, says)


# ---- devices ----

def test_no_device():
    check(vgpu("info", program=REAL), 3, "vgpu info: this machine has no vGPU (no PCI device 1234:5647)")
    r = check(vgpu("info", "--json", program=REAL), 3)
    assert json.loads(r.stdout) == {"ok": False, "exit": 3, "error": json.loads(r.stdout)["error"]}
    check(vgpu("info", "--all", program=REAL), 3, "no vGPU")


@pytest.mark.parametrize("fake, says", [
    ("abi=0x20000", "version 2.0"),
    ("magic=1", "another device"),
    ("magic=0xffffffff", "does not answer"),
])
def test_unusable_device(fake, says):
    check(vgpu("info", fake=fake), 3, says)


def test_info():
    r = check(vgpu("info"), 0)
    for text in ("vm-fake (number 7)", "pool-fake", "2 workers", "echo axpy reduce gemm fft sort denoise",
                 "BAR 0 windows", "63.9375 MiB"):
        assert text in r.stdout, r.stdout
    j = json.loads(check(vgpu("info", "--json"), 0).stdout)
    assert j["ok"] and j["vm"] == "vm-fake" and j["ops"][0] == "echo" and j["device"]["backend_up"]


def test_info_without_mediator():
    r = check(vgpu("info", "--deadline", "0.2", fake="up_after_ms=60000"), 5, "no mediator serves")
    assert "NO_BACKEND" in r.stderr
    j = json.loads(check(vgpu("info", "--json", "--deadline", "0.2", fake="up_after_ms=60000"), 5).stdout)
    assert not j["ok"] and not j["device"]["backend_up"] and "NO_BACKEND" in j["error"]


def test_list_and_reset():
    assert len(check(vgpu("info", "--all"), 0).stdout.splitlines()) == 2
    assert len(json.loads(vgpu("info", "--all", "--json").stdout)["devices"]) == 2
    check(vgpu("reset"), 0, "was reset")
    check(vgpu("reset", "--deadline", "0.2", fake="deaf=1"), 5, "still resetting after 200 ms")


@pytest.mark.skipif(SANITIZED, reason="a sanitizer's build is not static")
def test_static_binary_runs_alone(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("chroot takes root")
    shutil.copy(REAL, tmp_path / "vgpu")
    r = subprocess.run(["/usr/sbin/chroot", tmp_path, "/vgpu", "--version"], capture_output=True,
                       text=True, check=False)
    check(r, 0, "vgpu ")
    r = subprocess.run(["/usr/sbin/chroot", tmp_path, "/vgpu", "info"], capture_output=True,
                       text=True, check=False)
    check(r, 3, "is /sys mounted?")


# ---- run ----

rng = np.random.default_rng(11)
A = rng.random((5, 7))
B = rng.random((7, 3))
C = rng.random((5, 3))
X = rng.random(1000).astype("f4")


@pytest.mark.parametrize("args, arrays, want", [
    (["gemm"], [A, B], A @ B),
    (["gemm", "--trans-a"], [A.T.copy(), B], A @ B),
    (["gemm", "--trans-b", "--alpha", "2"], [A, B.T.copy()], 2 * A @ B),
    (["gemm", "--trans-a", "--trans-b"], [A.T.copy(), B.T.copy()], A @ B),
    (["gemm"], [A, B, C], A @ B + C),
    (["gemm", "--beta", "-0.5", "--math", "tf32"], [A, B, C], A @ B - 0.5 * C),
    (["axpy", "--alpha", "3"], [X, X[::-1].copy()], 3 * X + X[::-1]),
    (["axpy", "--incx", "4"], [X, X[:250].copy()], X[::4] + X[:250]),
    (["axpy", "--n", "10", "--incy", "2"], [X, X], X[:10] + X[:20:2]),
    (["fft"], [A], np.fft.rfft(A)),
    (["fft", "--rank", "2"], [A], np.fft.rfft2(A)),
    (["fft"], [A + 1j], np.fft.fft(A + 1j)),
    (["fft", "--inverse"], [A + 1j], np.fft.ifft(A + 1j)),
    (["fft", "--c2r", "--n", "7"], [np.fft.rfft(A)], A),
    (["fft", "--c2r", "--rank", "2", "--n", "7"], [np.fft.rfft2(A)], A),
    (["fft", "--c2r"], [np.fft.rfft(A[:, :6])], A[:, :6]),
    (["sort"], [X], np.sort(X)),
    (["sort", "--descending"], [X], np.sort(X)[::-1]),
    (["reduce"], [X], X.astype("f8").sum()),
    (["reduce", "--kind", "argmax"], [X], np.uint64(X.argmax())),
    (["reduce", "--kind", "min", "--stride", "3"], [X], X[::3].min()),
    (["reduce", "--kind", "max", "--n", "5"], [X], X[:5].max()),
    (["echo"], [A], A),
    (["echo"], [np.arange(6, dtype="u2").reshape(1, 2, 3)], np.arange(6).reshape(1, 2, 3)),
    (["echo"], [np.array([True, False])], np.array([True, False])),
    (["echo"], [np.array(4.5)], np.array(4.5)),
    (["echo"], [rng.random(300000)], None),
])
def test_run(args, arrays, want):
    files = [save(f"in{i}.npy", a.copy("C")) for i, a in enumerate(arrays)]
    want = arrays[0] if want is None else want
    check(vgpu("run", *args, *sum((["--in", f] for f in files), []), "--out", "out.npy"), 0, "worker")
    got = np.load("out.npy")
    assert got.shape == want.shape
    assert got.dtype == want.dtype or args == ["echo"] or args[0] == "fft"
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_run_sort_with_values():
    keys = rng.integers(-50, 50, 300).astype("i4")
    values = np.arange(300, dtype="u2")
    r = vgpu("run", "sort", "--in", save("k.npy", keys), "--in", save("v.npy", values), "--out",
             "ks.npy", "--out", "vs.npy", "--json")
    assert json.loads(check(r, 0).stdout)["outputs"] == ["ks.npy", "vs.npy"]
    order = np.argsort(keys, kind="stable")
    np.testing.assert_array_equal(np.load("ks.npy"), keys[order])
    np.testing.assert_array_equal(np.load("vs.npy"), values[order])


def test_run_prints_values():
    save("x.npy", np.array([3, -7, 2], "i1"))
    assert check(vgpu("run", "reduce", "--in", "x.npy"), 0).stdout == "-2\n"
    assert check(vgpu("run", "reduce", "--in", "x.npy", "--kind", "min"), 0).stdout == "-7\n"
    save("x.npy", np.array([0.1, np.inf]))
    assert json.loads(vgpu("run", "reduce", "--in", "x.npy", "--json").stdout)["value"] == "inf"
    save("x.npy", np.array([0.1, 0.2]))
    assert json.loads(vgpu("run", "reduce", "--in", "x.npy", "--json").stdout)["value"] == 0.1 + 0.2


def test_run_denoise_array():
    a = noisy(20, 30, 1)
    save("a.npy", a)
    check(vgpu("run", "denoise", "--in", "a.npy", "--out", "o.npy", "--search", "3", "--patch", "1"), 0)
    got = np.load("o.npy")
    assert got.shape == a.shape and got.astype(float).std() < a.astype(float).std()
    save("f.npy", a.astype("f4"))
    check(vgpu("run", "denoise", "--in", "f.npy", "--out", "o.npy"), 2, "say --sigma")


def bytes_file(name, data):
    with open(name, "wb") as f:
        f.write(data)
    return name


@pytest.mark.parametrize("make, args, says", [
    (lambda: "missing.npy", ["echo"], "cannot open missing.npy: No such file"),
    (lambda: "/", ["echo"], "cannot read /"),
    (lambda: bytes_file("a.npy", b""), ["echo"], "a.npy: not a .npy file"),
    (lambda: bytes_file("a.npy", b"PK\3\4" * 9), ["echo"], "not a .npy file"),
    (lambda: save("a.npy", np.asfortranarray(A)), ["echo"], "np.ascontiguousarray"),
    (lambda: save("a.npy", A.astype(">f8")), ["echo"], "big endian"),
    (lambda: save("a.npy", np.array(["a"])), ["echo"], "not supported"),
    (lambda: save("a.npy", np.zeros(3, "f4,i4")), ["echo"], "named fields"),
    (lambda: save("a.npy", np.zeros((0, 3))), ["echo"], "the array is empty"),
    (lambda: save("a.npy", np.zeros(3, "u2")), ["sort"], "a.npy is uint16 (3,): the pool has no"),
    (lambda: save("a.npy", A + 1j), ["sort"], "complex128 (5, 7): this operation takes real"),
    (lambda: save("a.npy", np.zeros(3, "i8")), ["reduce"], "reduce takes float32"),
    (lambda: save("a.npy", np.zeros(3)), ["reduce", "--n", "4"], "fewer elements than --n"),
    (lambda: save("a.npy", np.zeros(3)), ["fft", "--rank", "2"], "fewer dimensions"),
    (lambda: save("a.npy", np.zeros(3)), ["fft", "--inverse"], "takes complex numbers"),
    (lambda: save("a.npy", np.zeros(3, "c8")), ["fft", "--c2r", "--n", "9"], "belongs to 4 or 5"),
    (lambda: save("a.npy", np.zeros(3, "i4")), ["fft"], "fft takes float32"),
    (lambda: save("a.npy", np.zeros((3, 3, 2), "u1")), ["denoise"], "(height, width, 3)"),
    (lambda: save("a.npy", np.zeros((3, 3), "f8")), ["denoise"], "uint8 and float32"),
])
def test_bad_inputs(make, args, says):
    check(vgpu("run", *args, "--in", make(), "--out", "out.npy"), 4, says)
    assert not os.path.exists("out.npy")


@pytest.mark.parametrize("arrays, args, says", [
    ([A, A], ["gemm"], "op(A) is 5 x 7 and op(B) 5 x 7: the inner sizes"),
    ([A, B[0]], ["gemm"], "two dimensions"),
    ([A, B.astype("f4")], ["gemm"], "float32 (7, 3): it must have the type of the first"),
    ([A, B, B], ["gemm"], "C must have the shape"),
    ([X, X[:3]], ["axpy"], "they must be as many"),
    ([X, X[:3]], ["sort", "--out", "two.npy"], "as many values as keys"),
    ([X, np.zeros(1000, "c16")], ["sort", "--out", "two.npy"], "at most 8 bytes"),
])
def test_inputs_that_do_not_match(arrays, args, says):
    ins = sum((["--in", save(f"{i}.npy", a)] for i, a in enumerate(arrays)), [])
    check(vgpu("run", *args, *ins, "--out", "out.npy"), 4, says)
    assert not os.path.exists("out.npy")


def test_cut_npy():
    save("a.npy", A)
    data = open("a.npy", "rb").read()
    for n in (5, 9, 60, 127, 128, 200, len(data) - 1):
        bytes_file("cut.npy", data[:n])
        check(vgpu("run", "echo", "--in", "cut.npy", "--out", "out.npy"), 4, "cut.npy: ")
    bytes_file("long.npy", data + b"x")
    check(vgpu("run", "echo", "--in", "long.npy", "--out", "out.npy"), 4, "1 bytes follow")


def test_output_problems():
    save("a.npy", A)
    check(vgpu("run", "echo", "--in", "a.npy"), 2, "give one --out")
    check(vgpu("run", "echo", "--in", "a.npy", "--out", "nowhere/x.npy"), 4, "cannot write nowhere/x.npy")
    check(vgpu("run", "echo", "--in", "a.npy", "--out", "/dev/full"), 4, "No space left")
    check(vgpu("run", "gemm", "--in", "a.npy", "--in", "a.npy", "--beta", "1", "--trans-b", "--out",
               "x.npy"), 2, "--beta needs C")


def test_arena_too_small():
    save("a.npy", np.zeros(1 << 17))
    check(vgpu("run", "echo", "--in", "a.npy", "--out", "o.npy", fake="shm_bytes=1048576"), 1,
          "no room for 1048576 bytes in the device's arena")


@pytest.mark.parametrize("fake, args, code, says", [
    ("error=13", [], 1, "UNSUPPORTED: no worker of the pool offers"),
    ("error=24", ["--no-retry"], 1, "WORKER_LOST"),
    ("busy=1000,retry_ms=20", ["--deadline", "0.2"], 5, "BUSY"),
    ("delay_ms=60000", ["--deadline", "0.2"], 5, "DEADLINE"),
    ("up_after_ms=60000", ["--deadline", "0.2"], 5, "NO_BACKEND"),
    ("hang=1,ignore_cancel=1", ["--deadline", "0.2"], 5, "gave it up"),
    ("nonsense=1", [], 1, "EPROTO"),
])
def test_failures_at_the_device(fake, args, code, says):
    save("a.npy", A)
    check(vgpu("run", "echo", "--in", "a.npy", "--out", "o.npy", *args, fake=fake), code, says)
    r = vgpu("run", "echo", "--in", "a.npy", "--out", "o.npy", "--json", *args, fake=fake)
    j = json.loads(r.stdout)
    assert not j["ok"] and j["exit"] == code and says in j["error"]
    assert not os.path.exists("o.npy")


def test_busy_is_retried():
    save("a.npy", A)
    check(vgpu("run", "echo", "--in", "a.npy", "--out", "o.npy", fake="busy=3,retry_ms=10"), 0)


# ---- denoise ----

@pytest.mark.parametrize("channels", [1, 3])
def test_tiles_make_no_difference(channels):
    write_png("in.png", noisy(45, 70, channels))
    results = []
    for tile in (16, 33, 100):
        r = vgpu("denoise", "in.png", "out.png", "--tile", tile, "--patch", 1, "--search", 3, "--json")
        j = json.loads(check(r, 0).stdout)
        assert j["width"] == 70 and j["height"] == 45 and j["channels"] == channels
        assert sum(j["workers"].values()) == j["tiles"] == -(-70 // tile) * -(-45 // tile)
        results.append(read_png("out.png"))
    assert (results[0] == results[1]).all() and (results[0] == results[2]).all()
    assert results[0].astype(float).std() < noisy(45, 70, channels).astype(float).std()


def test_denoise_equals_the_whole_array():
    a = noisy(30, 40)
    write_png("in.png", a)
    save("in.npy", a)
    options = ["--patch", 1, "--search", 4, "--sigma", 12]
    check(vgpu("denoise", "in.png", "out.png", "--tile", 8, *options), 0)
    check(vgpu("run", "denoise", "--in", "in.npy", "--out", "out.npy", *options), 0)
    np.testing.assert_array_equal(read_png("out.png"), np.load("out.npy"))


def test_progress_json():
    write_png("in.png", noisy(40, 40))
    r = check(vgpu("denoise", "in.png", "out.png", "--tile", 16, "--patch", 0, "--search", 1,
                   "--progress", "json"), 0)
    lines = [json.loads(line) for line in r.stderr.splitlines()]
    assert [line["done"] for line in lines[:-1]] == list(range(1, 10))
    assert sorted(line["index"] for line in lines[:-1]) == list(range(9))
    assert all(line["event"] == "step" and line["worker"] in (1, 2) and line["total"] == 9
               and line["ms"] > 0 and line["attempts"] == 1 for line in lines[:-1])
    assert lines[-1]["event"] == "done"
    r, w = os.pipe()
    check(vgpu("denoise", "in.png", "out.png", "--progress", "json", "--progress-fd", w, pass_fds=[w]), 0)
    os.close(w)
    assert b'"event": "done"' in os.read(r, 65536)
    os.close(r)


def test_progress_modes():
    write_png("in.png", noisy(40, 40))
    args = ["denoise", "in.png", "out.png", "--tile", 16, "--patch", 0, "--search", 1]
    assert check(vgpu(*args), 0).stderr == ""
    assert check(vgpu(*args, "--progress", "never"), 0).stderr == ""
    assert "100 %  9/9 tiles" in check(vgpu(*args, "--progress", "always"), 0).stderr
    pid, fd = pty.fork()
    if pid == 0:
        os.environ["VGPU_FAKE"] = ""
        os.execv(FAKE, [FAKE, *map(str, args)])
    text = b""
    try:
        while chunk := os.read(fd, 4096):
            text += chunk
    except OSError:
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(fd)
    assert b"\r[####################] 100 %" in text and b"last: worker" in text


def test_state_is_said():
    write_png("in.png", noisy(16, 16))
    r = check(vgpu("denoise", "in.png", "out.png", "--patch", 0, "--search", 1, fake="up_after_ms=300"), 0)
    assert "no mediator serves the device just now; waiting" in r.stderr
    assert "works again" in r.stderr


@pytest.mark.parametrize("make, says", [
    (lambda: "missing.png", "cannot open missing.png"),
    (lambda: bytes_file("a.png", b"GIF89a....."), "not a PNG picture"),
    (lambda: "/", "a directory"),
])
def test_bad_pictures(make, says):
    check(vgpu("denoise", make(), "out.png"), 4, says)
    assert not os.path.exists("out.png")


def test_cut_png():
    write_png("in.png", noisy(30, 30))
    data = open("in.png", "rb").read()
    for n in (0, 7, 20, 40, len(data) // 2, len(data) - 5):
        check(vgpu("denoise", bytes_file("cut.png", data[:n]), "out.png"), 4, "cut.png: ")
    check(vgpu("denoise", "in.png", "nowhere/out.png", "--patch", 0, "--search", 1), 4,
          "cannot write nowhere/out.png")
    write_png("alpha.png", noisy(9, 9)[:, :, [0, 1, 2, 0]])
    check(vgpu("denoise", "alpha.png", "out.png", "--search", 1), 0, "alpha channel is dropped")
    assert read_png("out.png").shape == (9, 9, 3)


@pytest.mark.parametrize("fake, code, says", [
    ("error=31", 1, "tile 1 of 9 failed, nothing was written: BACKEND_FAULT"),
    ("error=24", 1, "WORKER_LOST"),
    ("error=19", 5, "NO_WORKER"),
])
def test_failing_tiles(fake, code, says):
    write_png("in.png", noisy(40, 40))
    check(vgpu("denoise", "in.png", "out.png", "--tile", 16, fake=fake), code, says)
    assert not os.path.exists("out.png")


def test_small_arena_and_none():
    write_png("in.png", noisy(200, 200))
    args = ["denoise", "in.png", "out.png", "--patch", 0, "--search", 1]
    check(vgpu(*args, "--queue", 64, fake="shm_bytes=1048576"), 0)  # fewer in flight than asked for
    check(vgpu(*args, "--tile", 8, fake="shm_bytes=0"), 0)  # all of it inside the requests
    check(vgpu(*args, "--tile", 64, fake="shm_bytes=0"), 1, "EMSGSIZE")


# ---- Ctrl-C ----

def start(*args, fake):
    return subprocess.Popen([FAKE, *map(str, args)], env={**os.environ, "VGPU_FAKE": fake},
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_denoise(number):
    write_png("in.png", noisy(40, 40))
    p = start("denoise", "in.png", "out.png", "--tile", 8, "--patch", 0, "--search", 1, "--progress",
              "json", fake="delay_ms=100")
    first = p.stderr.readline()
    assert json.loads(first)["done"] == 1
    p.send_signal(number)
    _, err = p.communicate(timeout=LIMIT_S)
    assert p.returncode == 130, err
    assert '"event": "cancelled"' in err and "of 25 tiles were done, nothing was written" in err
    assert os.listdir() == ["in.png"]


def wait_for_text(p, text):
    while text not in p.stderr.readline():
        assert p.poll() is None


def test_interrupted_run_and_second_interrupt():
    save("a.npy", A)
    args = ["run", "echo", "--in", "a.npy", "--out", "o.npy"]
    p = start(*args, fake="up_after_ms=60000")
    wait_for_text(p, "no mediator serves")
    p.send_signal(signal.SIGINT)
    _, err = p.communicate(timeout=LIMIT_S)
    assert p.returncode == 130 and "CANCELLED" in err
    # A device that does not even cancel: the second one leaves at once.
    p = start(*args, fake="hang=1,ignore_cancel=1,up_after_ms=60000")
    wait_for_text(p, "no mediator serves")
    p.send_signal(signal.SIGINT)
    time.sleep(0.3)  # two signals at the same moment would be one
    p.send_signal(signal.SIGINT)
    p.communicate(timeout=LIMIT_S)
    assert p.returncode == 130
    assert not os.path.exists("o.npy")


# ---- bench ----

def test_bench():
    r = check(vgpu("bench", "--seconds", "0.02"), 0, "path: simulated: BAR 0 windows, polled")
    names = re.findall(r"^RESULT (\S+) value=[\d.]+ unit=us floor=[\d.]+ ratio=[\d.]+ target=-$",
                       r.stdout, re.M)
    assert "guest.echo.null" in names and "guest.echo.8MiB.p99" in names
    assert "no ring: the device offers none" in r.stdout and "wait: " in r.stdout
    j = json.loads(check(vgpu("bench", "--seconds", "0.02", "--json"), 0).stdout)
    assert [row["bytes"] for row in j["echo"]] == [8, 64, 512, 4096, 65536, 1 << 20, 8 << 20]
    assert j["ring"] == -1 and j["depth"] == 1 and j["spin_us"] in (0, 50)
    check(vgpu("bench", fake="error=31"), 1, "BACKEND_FAULT")
    check(vgpu("bench", fake="shm_bytes=0"), 1, "no arena")


def test_bench_on_a_ring():
    r = check(vgpu("bench", "--seconds", "0.02", "--spin", "0", fake="rings=2,entries=128"), 0,
              "path: simulated: ring 0 of 2, 126 requests at a time, polled")
    assert "\nwait: nap\n" in r.stdout and "\nlooks without a pause: 0, naps: " in r.stdout
    j = json.loads(check(vgpu("bench", "--seconds", "0.02", "--json", "--queue", 500, "--spin", 20,
                              fake="rings=2,entries=128"), 0).stdout)
    assert j["ring"] == 0 and j["spin_us"] == 20 and j["spins"] + j["naps"] > 0 and j["no_ring"] == ""
    assert j["echo"][0]["in_flight"] == 126 and all(row["per_second"] > 0 for row in j["echo"])
    j = json.loads(check(vgpu("bench", "--seconds", "0.02", "--json", "--path", "windows",
                              fake="rings=2"), 0).stdout)
    assert j["ring"] == -1 and j["no_ring"] == "this program asked for the windows"


# ---- rings ----

def test_info_on_a_ring(monkeypatch):
    r = check(vgpu("info", fake="rings=2"), 0, "ring 0 of 2, 62 requests at a time")
    assert "0 of 2 is this process's, 64 entries of 4096 bytes" in r.stdout and "event-idx" in r.stdout
    monkeypatch.setenv("VGPU_SPIN_US", "30")
    d = json.loads(check(vgpu("info", "--json", fake="rings=2"), 0).stdout)["device"]
    assert (d["rings"], d["ring"], d["ring_entries"], d["slot_bytes"], d["depth"]) == (2, 0, 64, 4096, 62)
    assert d["spin_us"] == 30 and d["no_ring"] == ""
    d = json.loads(check(vgpu("info", "--json", "--spin", "0", "--path", "windows", fake="rings=2"), 0).stdout)
    assert d["device"]["ring"] == -1 and d["device"]["spin_us"] == 0
    check(vgpu("info", "--path", "ring"), 3, "no ring for this process: the device offers none")
    monkeypatch.setenv("VGPU_SPIN_US", "much")
    check(vgpu("info"), 2, "VGPU_SPIN_US much: it must be a whole number")


def test_same_results_on_a_ring():
    write_png("in.png", noisy(90, 130))
    a, b = save("a.npy", A), save("b.npy", B)
    for i, fake in enumerate(("", "rings=1", "rings=1,reverse=1,index_start=0xfffffffa")):
        check(vgpu("run", "gemm", "--in", a, "--in", b, "--out", f"gemm{i}.npy", fake=fake), 0)
        check(vgpu("denoise", "in.png", f"out{i}.png", "--tile", 16, "--patch", 1, "--search", 2, fake=fake), 0)
        assert open(f"gemm{i}.npy", "rb").read() == open("gemm0.npy", "rb").read()
        assert open(f"out{i}.png", "rb").read() == open("out0.png", "rb").read()

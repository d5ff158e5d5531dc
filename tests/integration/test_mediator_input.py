# SPDX-License-Identifier: MIT
"""Bad input on every socket of the mediator: a clear error or a cut connection, and the others go on."""

import os
import socket
import struct
import subprocess

import pytest
from mediator_rig import ARENA, BIN, VERSION, Link, MediatorRig, P, connect, echo, wait_for


@pytest.fixture(scope="module")
def m(tmp_path_factory):
    with MediatorRig(tmp_path_factory.mktemp("m"), vms=["a", "b"]) as rig:
        yield rig


@pytest.fixture
def w(m):
    with m.worker("w0") as worker:
        worker.serve_echo()
        yield worker


@pytest.fixture
def bystander(m, w):
    """After each test another VM must still be served."""
    with m.stub("b") as s:
        yield s
        s.request(*echo(b"still here"))
        assert s.answer().payload == b"still here"


def patch(message, offset, *data):
    changed = bytearray(message)
    changed[offset : offset + len(data)] = bytes(data)
    return bytes(changed)


def hello(**fields):
    values = dict(version_min=VERSION, version_max=VERSION, boot_id=1, arena_size=ARENA)
    values.update(fields)
    return P.message("HELLO", **values)


REQUEST, _ = echo(b"abcd")
FRAME = P.message("REQUEST", tail=REQUEST, seq=1, deadline_left_ms=1000)

BAD_FRAMES = {
    "shorter than a header": FRAME[:15],
    "one byte": b"x",
    "wrong magic": patch(FRAME, 0, 0),
    "length too small": patch(FRAME, 8, 31, 0, 0, 0),
    "length too large": patch(FRAME, 8, 255, 255, 255, 255),
    "reserved in the header": patch(FRAME, 6, 1),
    "unknown type": patch(FRAME, 4, 0xEE, 0),
    "type far out": patch(FRAME, 4, 0xFF, 0xFF),
    "type zero": patch(FRAME, 4, 0, 0),
    "a mediator's message": P.message("HELLO_ACK"),
    "a worker's message": P.message("REGISTER", depth=1),
    "an executor's message": P.message("DETACHED", region=1),
    "a second HELLO": hello(),
    "truncated REQUEST": struct.pack("<IHHII", P.MSG_MAGIC, P.MSG["REQUEST"], 0, 24, 0) + bytes(8),
    "REQUEST without a request": P.message("REQUEST", seq=1),
    "REQUEST too long": P.message("REQUEST", tail=bytes(P.REQ_MAX + 1), seq=1),
    "REQUEST with unknown flags": P.message("REQUEST", tail=REQUEST, seq=1, flags=4),
    "sequence number zero": P.message("REQUEST", tail=REQUEST, seq=0),
    "DATA without bytes": P.message("DATA", seq=1),
    "DATA too long": P.message("DATA", tail=bytes(P.DATA_CHUNK + 1), seq=1),
    "DATA for nothing": P.message("DATA", tail=b"x", seq=9),
    "DATA with reserved": P.message("DATA", tail=b"x", seq=1, reserved=1),
    "WISH with reserved": P.message("WISH", band=1, reserved=b"\0\0\1"),
    "CANCEL with reserved": P.message("CANCEL", seq=1, reserved=1),
    "RESET to the same epoch": P.message("RESET"),
    "RESET with a tail": P.message("RESET", epoch=1, tail=b"x"),
    "longer than any message": bytes(P.MSG_MAX + 1),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_vm_socket_bad_frame(m, bystander, name):
    with m.stub("a") as s:
        s.send_raw(BAD_FRAMES[name])
        s.wait_closed()
    wait_for("it may connect again", lambda: not m.view("vms", "vm", "a")["connected"])


@pytest.mark.parametrize("first", ["REQUEST", "DATA", "CANCEL", "RESET", "WISH"])
def test_vm_socket_hello_must_come_first(m, bystander, first):
    with m.stub("a", hello=False) as s:
        tail = {"REQUEST": REQUEST, "DATA": b"x"}.get(first, b"")
        s.send_raw(P.message(first, tail=tail))
        s.wait_closed()


@pytest.mark.parametrize("name", ["HELLO", "REQUEST", "CANCEL"])
def test_vm_socket_unexpected_descriptors(m, bystander, name):
    frame = {"HELLO": hello(), "REQUEST": FRAME, "CANCEL": P.message("CANCEL", seq=1)}[name]
    files = len(os.listdir(f"/proc/{m.process.pid}/fd"))
    for count in (1, 5, 100):
        with m.stub("a", hello=name != "HELLO") as s, open("/dev/null") as null:
            s.send_raw(frame, [null.fileno()] * count)
            s.wait_closed()
        wait_for("free", lambda: not m.view("vms", "vm", "a")["connected"])
    wait_for("no descriptor stays", lambda: len(os.listdir(f"/proc/{m.process.pid}/fd")) <= files + 1)


REFUSALS = [
    (dict(version_min=VERSION + 1, version_max=VERSION + 2), "REFUSED_VERSION"),
    (dict(version_min=0, version_max=0), "REFUSED_VERSION"),
    (dict(version_min=VERSION, version_max=0), "REFUSED_VERSION"),
    (dict(arena_size=1 << 62), "REFUSED_MALFORMED"),
    (dict(rings=1), "REFUSED_MALFORMED"),
]


@pytest.mark.parametrize("fields, reason", REFUSALS)
def test_hello_refused(m, bystander, fields, reason):
    with m.stub("a", hello=False) as s:
        s.send_hello(**fields)
        refused = s.wait("REFUSED")
        assert refused.fields.reason == getattr(P, reason) and refused.tail
        s.wait_closed()


def test_second_qemu_on_a_connected_socket(m, bystander):
    with m.stub("a") as s:
        for _ in range(3):
            with m.stub("a", hello=False, boot_id=99) as thief:
                thief.send_hello()
                refused = thief.wait("REFUSED")
                assert refused.fields.reason == P.REFUSED_ALREADY_CONNECTED
                assert str(os.getpid()) in refused.tail.decode()
                thief.wait_closed()
        s.request(P.request("INFO"))
        assert s.answer().error == 0


def test_wrong_uuid_and_wrong_uid(tmp_path):
    text = ("version: 1\nvms:\n  - name: a\n    uuid: 11111111-2222-3333-4444-555555555555\n"
            "  - name: c\n    uid: 65534\n")
    with MediatorRig(tmp_path, yaml=text) as m:
        with m.stub("a", hello=False) as s:
            s.send_hello(uuid=bytes(16))
            assert s.wait("REFUSED").fields.reason == P.REFUSED_UNKNOWN_VM
        with m.stub("a", uuid=bytes.fromhex("11111111222233334444555555555555")) as s:
            assert s.ack.version == VERSION
        if os.geteuid() == 0:
            assert os.stat(m.socket("c")).st_uid == 65534
            assert os.stat(m.socket("c")).st_mode & 0o777 == 0o600
            assert os.stat(m.socket("c").parent).st_mode & 0o777 == 0o700
            with m.stub("c", hello=False) as s:  # root may open the socket, but is not that VM
                s.send_hello()
                assert s.wait("REFUSED").fields.reason == P.REFUSED_PEER


# ---- requests: every one of these is answered, and the connection stays ----


def arena(*bufs, op="ECHO", **header):
    return P.request(op, bufs, **header)


BAD_REQUESTS = {
    "size field too small": (patch(REQUEST, 0, 47), "BAD_LENGTH"),
    "size field too large": (patch(REQUEST, 0, 0xff, 0xff), "BAD_LENGTH"),
    "version 2": (P.request("ECHO", version=2), "BAD_VERSION"),
    "unknown flag": (P.request("ECHO", flags=1 << 20), "RESERVED_SET"),
    "reserved in the header": (P.request("ECHO", reserved=(0, 0, 0, 1)), "RESERVED_SET"),
    "too many buffers": (P.request("ECHO", [(P.BUF_ARENA, P.IN, 64 * i, 1) for i in range(17)]),
                         "TOO_MANY_BUFFERS"),
    "unknown kind": (arena((9, P.IN, 0, 4)), "BAD_BUFFER"),
    "unknown direction": (arena((P.BUF_ARENA, 3, 0, 4)), "BAD_BUFFER"),
    "zero length": (arena((P.BUF_ARENA, P.IN, 0, 0)), "BAD_LENGTH"),
    "beyond the arena": (arena((P.BUF_ARENA, P.IN, ARENA, 64)), "BAD_BUFFER"),
    "offset that wraps": (arena((P.BUF_ARENA, P.IN, (1 << 64) - 64, 128)), "BAD_BUFFER"),
    "misaligned": (arena((P.BUF_ARENA, P.IN, 1, 4)), "MISALIGNED"),
    "OUT over IN": (arena((P.BUF_ARENA, P.IN, 0, 128), (P.BUF_ARENA, P.OUT, 64, 64)), "OVERLAP"),
    "OUT over OUT": (arena((P.BUF_ARENA, P.OUT, 0, 128), (P.BUF_ARENA, P.OUT, 64, 64)), "OVERLAP"),
    "unknown op": (P.request(40), "UNSUPPORTED"),
    "op far out": (P.request(65535), "UNSUPPORTED"),
    "no such pool": (P.request("ECHO", pool=4711), "NO_POOL"),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_bad_request_is_answered(m, bystander, name):
    request, error = BAD_REQUESTS[name]
    with m.stub("a") as s:
        s.request(request)
        answer = s.answer(seq=1)
        assert answer.error == P.E[error] and answer.text and not answer.accepted
        s.request(P.request("INFO"))
        assert s.answer(seq=2).error == 0


def test_larger_than_the_window(m, bystander):
    with m.stub("a") as s:
        s.request(P.request("ECHO", inline=bytes(2000)))
        assert s.answer().error != 0


def test_data_of_a_refused_request_is_dropped(m, bystander):
    with m.stub("a") as s:
        request, _ = echo(bytes(200_000), inline=False, pool=4711)
        s.request(request, {0: bytes(200_000)})
        assert s.answer(seq=1).error == P.E["NO_POOL"]
        s.request(P.request("INFO"))
        assert s.answer(seq=2).error == 0


@pytest.mark.parametrize("buffer, offset, size", [(1, 0, 64), (0, 1, 64), (0, 0, 65), (16, 0, 1),
                                                  (2**32 - 1, 2**64 - 1, 1)])
def test_data_out_of_place(m, bystander, buffer, offset, size):
    with m.stub("a") as s:
        request, _ = echo(bytes(64), inline=False)
        s.request(request)
        s.say("DATA", tail=bytes(size), seq=1, buffer=buffer, offset=offset)
        s.wait_closed()
    wait_for("free", lambda: not m.view("vms", "vm", "a")["connected"])


def test_sequence_numbers_do_not_repeat(m, bystander):
    with m.stub("a") as s:
        s.request(P.request("INFO"), seq=5)
        assert s.answer().error == 0
        s.request(P.request("INFO"), seq=5)
        s.wait_closed()
    wait_for("free", lambda: not m.view("vms", "vm", "a")["connected"])


def test_random_frames(m, bystander):
    """Bytes changed at random in valid frames: answered, dropped or cut off, never worse."""
    import random
    rng = random.Random(20)
    for _ in range(60):
        with m.stub("a", hello=False) as s:
            frames = [hello(), FRAME, P.message("WISH", band=3), P.message("CANCEL", seq=1)]
            for frame in frames:
                frame = bytearray(frame)
                for _ in range(rng.choice([0, 0, 1, 3])):
                    frame[rng.randrange(len(frame))] = rng.randrange(256)
                try:
                    s.send_raw(bytes(frame[: rng.randrange(1, len(frame) + 1)
                                           if rng.random() < 0.1 else None]))
                except OSError:
                    break
        wait_for("free", lambda: not m.view("vms", "vm", "a")["connected"])
    wait_for("no job stays", lambda: m.ask("queues")["tenants"][0]["queued"] == 0)
    assert m.process.poll() is None


# ---- the worker socket and executor channels ----


def register(**fields):
    values = dict(version_min=VERSION, version_max=VERSION, depth=1, ops=1 << 16, name="bad", backend="fake")
    values.update(fields)
    return P.message("REGISTER", **values)


@pytest.mark.parametrize("fields, reason", [
    (dict(version_min=VERSION + 1, version_max=VERSION + 1), "REFUSED_VERSION"),
    (dict(depth=0), "REFUSED_MALFORMED"), (dict(depth=1 << 20), "REFUSED_MALFORMED"),
    (dict(flags=1), "REFUSED_MALFORMED"), (dict(name=""), "REFUSED_MALFORMED"),
    (dict(name="a b"), "REFUSED_MALFORMED"), (dict(name="x" * 64), "REFUSED_MALFORMED"),
    (dict(name=b"a\0b"), "REFUSED_MALFORMED"), (dict(device=b"\1"), "REFUSED_MALFORMED"),
    (dict(pool="nowhere"), "REFUSED_POOL"), (dict(name="w0"), "REFUSED_NAME"),
])
def test_worker_refused(m, bystander, fields, reason):
    link = Link(connect(m.run_dir / "worker.sock"))
    link.send_raw(register(**fields))
    refused = link.wait("REFUSED")
    assert refused.fields.reason == getattr(P, reason) and refused.tail
    link.wait_closed()
    link.close()


@pytest.mark.parametrize("frames", [
    [b"x"], [P.message("HEARTBEAT")], [P.message("REGISTER", reserved=b"\1")], [hello()],
    [register(), register(name="bad2")], [register(), P.message("EXECUTOR", executor=1)],
    [register(), P.message("EXECUTOR_GONE", executor=3)], [register(), P.message("DETACHED")],
    [register(), P.message("REGISTER_ACK")], [register(), bytes(70000)],
    [register(), P.message("HEARTBEAT", epoch=1)],
])
def test_worker_socket_bad_frames(m, bystander, frames):
    link = Link(connect(m.run_dir / "worker.sock"))
    for frame in frames:
        link.send_raw(frame)
    link.wait_closed()
    link.close()


def test_executor_with_a_wrong_descriptor(m, bystander):
    with open("/dev/null") as null, socket.socket() as tcp:
        for fd in (null.fileno(), tcp.fileno()):
            link = Link(connect(m.run_dir / "worker.sock"))
            link.send_raw(register())
            link.wait("REGISTER_ACK")
            link.send("EXECUTOR", executor=1, pid=1, fds=[fd])
            link.wait_closed()
            link.close()


@pytest.mark.parametrize("frame", [
    b"x", P.message("HEARTBEAT", epoch=3), P.message("RING"), P.message("JOB_CANCEL"),
    P.message("DETACHED", tail=b"x"), P.message("DETACHED", reserved=1), hello(),
])
def test_executor_channel_bad_frame(m, bystander, frame):
    with m.worker("bad") as bad, m.stub("a") as s:
        bad.channel.send_raw(frame)
        kill = bad.link.wait("KILL_EXECUTOR")
        assert kill.fields.executor == 1
        bad.gone()
        s.request(P.request("INFO"))
        assert s.answer().error == 0


# ---- flags and pool files ----


def check(text, tmp_path, *flags):
    path = tmp_path / "pool.yaml"
    path.write_text(text)
    return subprocess.run([BIN / "vgpu-mediator", "--config", path, "--check", *flags],
                          capture_output=True, text=True, timeout=60)


POOL_FILES = {
    "unknown key": ("version: 1\nvms:\n  - name: a\n    tennant: t\n", 4, "did you mean 'tenant'"),
    "key of a later version": ("version: 1\nhosts: []\n", 2, "unknown key 'hosts'"),
    "wrong type": ("version: 1\nvms: 7\n", 2, "must be a list"),
    "wrong type inside": ("version: 1\nvms:\n  - name: [a]\n", 3, "must be a single value"),
    "not a duration": ("version: 1\nmediator:\n  heartbeat: 5\n", 3, "500ms"),
    "not a size": ("version: 1\ntenants:\n  - name: t\n    max_bytes: lots\n", 4, "256M"),
    "out of bounds": ("version: 1\ntenants:\n  - name: t\n    weight: 0\n", 4, "1 to 10000"),
    "unknown band": ("version: 1\nvms:\n  - name: a\n    band: top\n", 4, "realtime"),
    "band_max below band": ("version: 1\nvms:\n  - {name: a, band: high, band_max: batch}\n", 3, "below"),
    "duplicate VM": ("version: 1\nvms:\n  - name: a\n  - name: a\n", 4, "line 3"),
    "duplicate uuid": ("version: 1\nvms:\n"
                       "  - {name: a, uuid: 11111111-2222-3333-4444-555555555555}\n"
                       "  - {name: b, uuid: 11111111-2222-3333-4444-555555555555}\n", 4, "line 3"),
    "duplicate socket": ("version: 1\nvms:\n  - {name: a, socket: /x/y}\n"
                         "  - {name: b, socket: /x/y}\n", 4, "line 3"),
    "unknown tenant": ("version: 1\ntenants:\n  - name: red\nvms:\n  - name: a\n    tenant: rde\n", 6,
                       "did you mean 'red'"),
    "unknown pool": ("version: 1\nvms:\n  - name: a\n    pools: [x]\n", 4, "no pool 'x'"),
    "bad name": ("version: 1\nvms:\n  - name: ../a\n", 3, "is not a name"),
    "bad uuid": ("version: 1\nvms:\n  - name: a\n    uuid: 12\n", 4, "8-4-4-4-12"),
    "relative socket": ("version: 1\nvms:\n  - name: a\n    socket: x\n", 4, "absolute path"),
    "unknown user": ("version: 1\nvms:\n  - name: a\n    uid: no-such-user\n", 4, "neither a user"),
    "version missing": ("vms: []\n", 1, "'version' is missing"),
    "another version": ("version: 2\n", 1, "version 1"),
    "key twice": ("version: 1\nversion: 1\n", 2, "twice"),
    "not YAML": ("version: 1\nvms: [\n", 3, "not valid YAML"),
    "tabs": ("version: 1\nvms:\n\t- name: a\n", 3, "not valid YAML"),
}


@pytest.mark.parametrize("name", POOL_FILES)
def test_pool_file_error_names_its_line(tmp_path, name):
    text, line, complaint = POOL_FILES[name]
    done = check(text, tmp_path)
    assert done.returncode == 3, done.stderr
    assert f"pool.yaml:{line}: " in done.stderr and complaint in done.stderr, done.stderr


def test_all_errors_are_reported_at_once(tmp_path):
    done = check("version: 1\nvms:\n  - name: a\n    bnad: x\n    uiud: y\n  - nam: b\n", tmp_path)
    assert done.stderr.count("pool.yaml:") == 4


def test_empty_missing_and_unreadable_files(tmp_path):
    assert "empty" in check("", tmp_path).stderr
    for path in (tmp_path / "none.yaml", tmp_path):
        done = subprocess.run([BIN / "vgpu-mediator", "--config", path, "--check"],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 3 and str(path) in done.stderr
    done = check("version: 1\n", tmp_path)
    assert done.returncode == 0 and "ok: 1 pools, 0 tenants, 0 VMs" in done.stdout


def test_many_vms_load_quickly(tmp_path):
    text = "version: 1\nvms:\n" + "".join(f"  - name: vm{i}\n" for i in range(5000))
    done = check(text, tmp_path)
    assert done.returncode == 0 and "5000 VMs" in done.stdout


@pytest.mark.parametrize("arguments, complaint", [
    ([], "--config FILE is missing"), (["--nonsense"], "nonsense"), (["--nonsense"], "see vgpu-mediator --help"),
    (["--config", "x", "extra"], "extra"), (["--config", "x", "--log-level", "loud"], "loud"),
    (["--config", "x", "--log-format", "xml"], "xml"), (["--config", "x", "--run-dir", "rel"], "rel"),
])
def test_wrong_flags(arguments, complaint):
    done = subprocess.run([BIN / "vgpu-mediator", *arguments], capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 2 and complaint in done.stderr


def test_help_and_version():
    for flag, text in (("--help", "Examples:"), ("--version", "vgpu-mediator ")):
        done = subprocess.run([BIN / "vgpu-mediator", flag], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and text in done.stdout


# SPDX-License-Identifier: MIT
"""Life and death of a vgpu-worker: registering, jobs in flight, limits, faults on both sides."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from local_proto import P
from worker_rig import BIN, LIMIT_S, SANITIZED, Gone, Region, WorkerRig

BATCH, NORMAL, HIGH, REALTIME = range(4)


@pytest.fixture
def rig(tmp_path):
    with WorkerRig(tmp_path, "--threads", "2", "--depth", "4") as rig:
        yield rig


def wait_until(condition, what, limit_s=LIMIT_S):
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.01)


def alive(pid):
    """Neither gone nor a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def echo(rig, n=64):
    x = np.random.default_rng().integers(0, 256, n, np.uint8)
    return np.array_equal(rig.run("ECHO", b"", [x], [x])[0], x)


def slow_request(rig, side=512, search=32, beside=False):
    """A DENOISE that takes many seconds; at the start of the region, or beside what is there."""
    image = np.zeros((side, side), np.uint8)
    body = P.pack("vgpu_denoise", dtype=P.DTYPE["U8"], channels=1, patch=2, search=search, sigma=1.0,
                  h=1.0, width=side, height=side, stride=side, w=side, h_out=side)
    return rig.place("DENOISE", body, [image], [image], beside=beside)[0]


def inline_echo(data=b"12345678"):
    at = P.inline_at(2)
    return P.request("ECHO", [(P.BUF_INLINE, P.IN, at, len(data)), (P.BUF_INLINE, P.OUT, 0, len(data))],
                     inline=data)


def queued_echo(rig):
    """An ECHO that is too large to be run between two turns of the executor's loop."""
    x = np.zeros(1 << 16, np.uint8)
    return rig.place("ECHO", b"", [x], [x], beside=True)[0]


# ---- registering ----------------------------------------------------------------------------


def test_register_describes_the_worker(tmp_path):
    with WorkerRig(tmp_path, "--pool", "images", "--depth", "9", "--threads", "1") as rig:
        r = rig.register
        assert r.version_min <= 1 <= r.version_max
        assert r.name.rstrip(b"\0") == b"w0" and r.pool.rstrip(b"\0") == b"images"
        assert r.backend.rstrip(b"\0") == b"cpu" and r.device.rstrip(b"\0")
        assert r.depth == 9 and r.boot_id != 0 and r.memory_bytes == 0 and r.flags == 0
        for op in ("ECHO", "AXPY", "REDUCE", "GEMM", "FFT", "SORT", "DENOISE"):
            assert r.ops >> P.OP[op] & 1, op
        assert not r.ops >> P.OP["LAUNCH"] & 1
        assert r.dtypes == sum(1 << P.DTYPE[d] for d in
                               ("F32", "F64", "U8", "I8", "U32", "I32", "U64", "I64"))
        assert os.readlink(f"/proc/{rig.executor_pid}/exe") == os.readlink(
            f"/proc/{rig.process.pid}/exe")


def test_the_mediator_may_come_later(tmp_path):
    rig = WorkerRig(tmp_path, start=False)
    rig.start()
    wait_until(lambda: "no mediator yet" in rig.log(), "the worker has tried")
    with rig:
        rig.accept()
        rig.new_region()
        assert echo(rig)
    assert rig.log().count("no mediator yet") == 1, "one line, not one per try"


def test_refused_then_registered(tmp_path):
    with WorkerRig(tmp_path, start=False) as rig:
        rig.start()
        link = rig.accept_link()
        link.wait("REGISTER")
        link.send("REFUSED", reason=P.REFUSED_FULL, tail=b"the name is taken")
        link.wait_closed()
        rig.accept()
        assert "the name is taken" in rig.log()


def test_an_unknown_version_is_not_accepted(tmp_path):
    with WorkerRig(tmp_path, start=False) as rig:
        rig.start()
        rig.link = rig.accept_link()
        rig.link.wait("REGISTER")
        rig.acknowledge(version=9)
        rig.link.wait_closed()
        rig.link = None
        rig.accept()


@pytest.mark.parametrize("arguments,text", [
    ([], "--name is missing"), (["--name", "a b"], "letters"), (["--name", "x" * 64], "letters"),
    (["--name", "w", "--threads", "0"], "1 to"), (["--name", "w", "--depth", "-1"], "1 to"),
    (["--name", "w", "--threads", "3x"], "1 to"), (["--name", "w", "--backend", "abacus"], "auto, cpu"),
    (["--name", "w", "--log-level", "loud"], "debug"), (["--name", "w", "--mediator", "/" * 200], "bytes"),
    (["--name", "w", "extra"], "only options"), (["--nonsense"], "--help")])
def test_usage_errors(arguments, text):
    r = subprocess.run([BIN / "vgpu-worker", *arguments], capture_output=True, text=True, timeout=LIMIT_S)
    assert r.returncode == 2 and text in r.stderr


def test_help_and_version():
    r = subprocess.run([BIN / "vgpu-worker", "--help"], capture_output=True, text=True, timeout=LIMIT_S)
    assert r.returncode == 0 and "Examples:" in r.stdout and "--executor" not in r.stdout
    r = subprocess.run([BIN / "vgpu-worker", "--version"], capture_output=True, text=True, timeout=LIMIT_S)
    assert r.returncode == 0 and r.stdout.startswith("vgpu-worker ")


def test_executor_mode_is_of_no_use_by_hand():
    r = subprocess.run([BIN / "vgpu-worker", "--executor", "--name", "w"], capture_output=True,
                       stdin=subprocess.DEVNULL, timeout=LIMIT_S)
    assert r.returncode == 1


def test_heartbeats_on_both_connections(rig):
    rig.new_region()
    first = rig.executor.receive()
    assert first.name == "HEARTBEAT"
    for _ in range(3):
        assert echo(rig)
    beat = rig.executor.receive()
    assert beat.name == "HEARTBEAT" and beat.fields.progress == 3
    beats = [rig.link.receive() for _ in range(3)]
    assert all(b.name == "HEARTBEAT" for b in beats)
    assert beats[0].fields.progress < beats[1].fields.progress < beats[2].fields.progress


# ---- jobs -----------------------------------------------------------------------------------


def test_several_jobs_in_flight(rig):
    rig.new_region()
    jobs = {rig.send_job(slow_request(rig, side=96, search=4, beside=True), rig.region.number)
            for _ in range(5)}
    assert {rig.wait_done().job for _ in range(5)} == jobs


def test_a_tiny_job_passes_a_busy_thread(tmp_path):
    with WorkerRig(tmp_path, "--threads", "1") as rig:
        rig.new_region()
        slow = rig.send_job(slow_request(rig), rig.region.number)
        assert rig.wait_done(rig.send_job(inline_echo())).error == 0
        rig.executor.send("JOB_CANCEL", job=slow, attempt=1)
        assert rig.wait_done(slow).error == P.E["CANCELLED"]


def test_a_short_job_passes_a_long_one(rig):
    rig.new_region()
    slow = rig.send_job(slow_request(rig), rig.region.number)
    quick = rig.send_job(queued_echo(rig), rig.region.number)
    rig.wait_done(quick)
    rig.executor.send("JOB_CANCEL", job=slow, attempt=1)
    assert rig.wait_done(slow).error == P.E["CANCELLED"]


def test_higher_bands_start_first(tmp_path):
    with WorkerRig(tmp_path, "--threads", "1", "--depth", "8") as rig:
        rig.new_region()
        slow = rig.send_job(slow_request(rig), rig.region.number)
        jobs = {band: rig.send_job(queued_echo(rig), rig.region.number, band)
                for band in (BATCH, HIGH, NORMAL, REALTIME)}
        rig.executor.send("JOB_CANCEL", job=slow, attempt=1)
        order = [rig.wait_done().job for _ in range(5)]
        assert order == [slow, jobs[REALTIME], jobs[HIGH], jobs[NORMAL], jobs[BATCH]]


def test_more_jobs_than_credits_are_busy(rig):
    rig.new_region()
    jobs = [rig.send_job(slow_request(rig, beside=True), rig.region.number)
            for _ in range(5)]  # depth 4, one express
    extra = rig.send_job(inline_echo())
    assert rig.wait_done(extra).error == P.E["BUSY"]
    for job in jobs:
        rig.executor.send("JOB_CANCEL", job=job, attempt=1)
    assert {rig.wait_done().job for _ in jobs} == set(jobs)


def test_cancel_a_queued_job(tmp_path):
    with WorkerRig(tmp_path, "--threads", "1") as rig:
        rig.new_region()
        slow = rig.send_job(slow_request(rig), rig.region.number)
        queued = rig.send_job(queued_echo(rig), rig.region.number)
        rig.executor.send("JOB_CANCEL", job=queued, attempt=1)
        assert rig.wait_done(queued).error == P.E["CANCELLED"]
        rig.executor.send("JOB_CANCEL", job=slow, attempt=2)  # another attempt: not this one
        rig.executor.send("JOB_CANCEL", job=99, attempt=1)  # over already
        rig.executor.send("JOB_CANCEL", job=slow, attempt=1)
        assert rig.wait_done(slow).error == P.E["CANCELLED"]


def test_requests_are_validated_again(rig):
    region = rig.new_region(1 << 20)

    def error(request, region=region.number):
        done = rig.wait_done(rig.send_job(request, region))
        assert done.error and done.text, "an error comes with a sentence"
        return next(n for n, v in P.E.items() if v == done.error)

    arena = [(P.BUF_ARENA, P.IN, 0, 64), (P.BUF_ARENA, P.OUT, 64, 64)]
    assert error(P.request("ECHO", [arena[0], (P.BUF_ARENA, P.OUT, 1 << 20, 64)])) == "BAD_BUFFER"
    assert error(P.request("ECHO", [arena[0], (P.BUF_ARENA, P.OUT, 2**64 - 64, 128)])) == "BAD_BUFFER"
    assert error(P.request("ECHO", [arena[0], (P.BUF_ARENA, P.OUT, 0, 64)])) == "OVERLAP"
    assert error(P.request("ECHO", [arena[0], (P.BUF_ARENA, P.OUT, 65, 64)])) == "MISALIGNED"
    assert error(P.request("ECHO", arena), region=0) == "BAD_BUFFER"
    assert error(P.request("ECHO", arena), region=77) == "INTERNAL"
    assert error(P.request("ECHO", arena, version=9)) == "BAD_VERSION"
    assert error(P.request("ECHO", arena, flags=1 << 30)) == "RESERVED_SET"
    assert error(P.request("ECHO", arena, body=bytes(8))) == "BAD_LENGTH"
    assert error(P.request("ECHO", arena[:1])) == "BAD_BUFFER"
    assert error(P.request(63, arena)) == "UNSUPPORTED"
    assert error(P.request(1000, arena)) == "UNSUPPORTED"
    assert error(P.request("LAUNCH", arena)) == "UNSUPPORTED"
    assert error(P.request("ECHO", [(P.BUF_OBJECT, P.IN, 0, 64, 48), arena[1]])) == "UNSUPPORTED"
    assert error(P.request("SORT", arena, P.pack("vgpu_sort", dtype=99, n=1))) == "BAD_DTYPE"
    half = P.pack("vgpu_gemm", dtype=P.DTYPE["F16"], m=1, n=1, k=1, lda=1, ldb=1, alpha=1.0)
    gemm = [(P.BUF_ARENA, P.IN, 0, 2), (P.BUF_ARENA, P.IN, 64, 2), (P.BUF_ARENA, P.OUT, 128, 2)]
    assert error(P.request("GEMM", gemm, half)) == "UNSUPPORTED"
    assert echo(rig)


def test_random_requests_do_no_harm(rig):
    rng = np.random.default_rng()
    region = rig.new_region(1 << 20)
    good = [P.request("ECHO", [(P.BUF_ARENA, P.IN, 0, 64), (P.BUF_ARENA, P.OUT, 64, 64)])]
    for op, body, bufs in [
            ("SORT", P.pack("vgpu_sort", dtype=5, n=64), 2),
            ("REDUCE", P.pack("vgpu_reduce", dtype=1, n=16, stride=1), 2),
            ("FFT", P.pack("vgpu_fft", dtype=1, rank=1, n0=8, batch=1), 2),
            ("GEMM", P.pack("vgpu_gemm", dtype=1, m=4, n=4, k=4, lda=4, ldb=4, alpha=1.0), 3)]:
        kinds = [P.IN] * (bufs - 1) + [P.OUT]
        good.append(P.request(op, [(P.BUF_ARENA, d, i * 64, 64) for i, d in enumerate(kinds)], body))
    for _ in range(300):
        request = bytearray(good[rng.integers(len(good))])
        for at in rng.integers(4, len(request), rng.integers(1, 4)):
            request[at] = rng.choice([0, 1, 0x7f, 0x80, 0xff, rng.integers(256)])
        job = rig.send_job(bytes(request), region.number, max_job_ms=5000)
        rig.wait_done(job)
    assert echo(rig)


# ---- regions --------------------------------------------------------------------------------


@pytest.mark.parametrize("seals,announced", [(0, 1 << 16), (4, 1 << 16), (3, (1 << 16) + 4096), (3, 0),
                                             (3, 2**63)])
def test_bad_regions_are_refused(rig, seals, announced):
    region = Region(5, 1 << 16, seals)
    rig.executor.send("ATTACH", region=5, size=announced, fds=[region.fd])
    assert rig.executor.wait("DETACHED").fields.region == 5
    request = P.request("ECHO", [(P.BUF_ARENA, P.IN, 0, 64), (P.BUF_ARENA, P.OUT, 64, 64)])
    done = rig.wait_done(rig.send_job(request, 5))
    assert done.error == P.E["INTERNAL"] and "region 5" in done.text
    assert "region refused" in rig.log()
    rig.new_region()
    assert echo(rig)


def test_a_pipe_is_no_region(rig):
    r, w = os.pipe()
    rig.executor.send("ATTACH", region=5, size=4096, fds=[r])
    assert rig.executor.wait("DETACHED").fields.region == 5
    os.close(r), os.close(w)


def mapped(rig):
    return Path(f"/proc/{rig.executor_pid}/maps").read_text().count("memfd:region")


def test_detach_waits_for_the_last_job(rig):
    region = rig.new_region()
    slow = rig.send_job(slow_request(rig), region.number)
    rig.executor.send("DETACH", region=region.number)
    echo_request = P.request("ECHO", [(P.BUF_ARENA, P.IN, 0, 64), (P.BUF_ARENA, P.OUT, 64, 64)])
    late = rig.send_job(echo_request, region.number)
    assert rig.wait_done(late).error == P.E["INTERNAL"], "it is being detached"
    assert mapped(rig) == 1
    rig.executor.send("JOB_CANCEL", job=slow, attempt=1)
    assert rig.wait_done(slow).error == P.E["CANCELLED"]
    assert rig.executor.wait("DETACHED").fields.region == region.number
    assert mapped(rig) == 0
    rig.attach(region)  # the number is free again
    assert echo(rig)
    rig.executor.send("DETACH", region=region.number)
    rig.executor.wait("DETACHED")


def test_inputs_that_change_meanwhile(rig):
    """A hostile guest rewrites its inputs while jobs read them: any result, but no harm."""
    region = rig.new_region(4 << 20)
    rng = np.random.default_rng()
    n = 100000
    keys = rng.standard_normal(n, "f4")
    stop = threading.Event()

    def scribble():
        while not stop.is_set():
            region.bytes[: 4 * n] = rng.integers(0, 256, 4 * n, np.uint8)

    thread = threading.Thread(target=scribble)
    thread.start()
    try:
        for value_size in (0, 4, 0, 8):
            body = P.pack("vgpu_sort", dtype=P.DTYPE["F32"], n=n, value_size=value_size)
            values = [np.zeros(n * value_size, np.uint8)] if value_size else []
            assert rig.answer("SORT", body, [keys, *values], [keys, *values]).error == 0
        body = P.pack("vgpu_reduce", dtype=P.DTYPE["F32"], kind=P.REDUCE_ARGMAX, n=n, stride=1)
        assert rig.answer("REDUCE", body, [keys], [np.empty(1, "u8")]).error == 0
    finally:
        stop.set()
        thread.join()
    assert echo(rig)


# ---- time limits ----------------------------------------------------------------------------


def test_a_job_that_runs_too_long_is_stopped(rig):
    rig.new_region()
    start = time.monotonic()
    slow = rig.send_job(slow_request(rig), rig.region.number, max_job_ms=200)
    other = rig.send_job(inline_echo(), max_job_ms=200)
    assert rig.wait_done(other).error == 0
    done = rig.wait_done(slow)
    assert done.error == P.E["JOB_TOO_LONG"] and "200 ms" in done.text
    assert time.monotonic() - start > 0.2
    assert alive(rig.executor_pid), "it could be stopped without ending the executor"


def test_waiting_for_a_thread_is_not_running(tmp_path):
    with WorkerRig(tmp_path, "--threads", "1") as rig:
        rig.new_region()
        slow = rig.send_job(slow_request(rig), rig.region.number, max_job_ms=1000)
        quick = rig.send_job(queued_echo(rig), rig.region.number, max_job_ms=500)
        assert rig.wait_done(slow).error == P.E["JOB_TOO_LONG"]
        assert rig.wait_done(quick).error == 0


def test_a_job_that_cannot_be_stopped_ends_the_executor(rig):
    n = 16777213  # a prime: one long call of the library
    region = rig.new_region(280 << 20)
    body = P.pack("vgpu_fft", dtype=P.DTYPE["F32"], rank=1, n0=n, batch=1)
    request = P.request("FFT", [(P.BUF_ARENA, P.IN, 0, 8 * n), (P.BUF_ARENA, P.OUT, 140 << 20, 8 * n)],
                        body)
    job = rig.send_job(request, region.number, max_job_ms=1)
    gone = rig.link.wait("EXECUTOR_GONE")
    assert os.waitstatus_to_exitcode(gone.fields.status) == 4
    assert f"job {job} " in gone.tail.decode()
    rig.take_executor()
    rig.attach(region)
    assert echo(rig)


# ---- executors ------------------------------------------------------------------------------


def expect_new_executor(rig, number):
    gone = rig.link.wait("EXECUTOR_GONE")
    assert gone.fields.executor == number and not alive(rig.executor_pid)
    rig.take_executor()
    assert rig.executor_number == number + 1
    rig.attach(rig.region)
    assert echo(rig)
    return gone


def test_kill_9_of_the_executor(rig):
    rig.new_region()
    for number in (1, 2, 3):
        rig.send_job(slow_request(rig), rig.region.number)
        os.kill(rig.executor_pid, signal.SIGKILL)
        rig.executor.wait_closed()
        gone = expect_new_executor(rig, number)
        assert gone.fields.status == signal.SIGKILL and gone.tail == b""


def test_a_crash_of_the_executor(rig):
    rig.new_region()
    os.kill(rig.executor_pid, signal.SIGSEGV)
    expect_new_executor(rig, 1)


def test_the_mediator_kills_the_executor(rig):
    rig.new_region()
    rig.link.send("KILL_EXECUTOR", executor=99, reason=P.E["JOB_TOO_LONG"])  # not this one
    assert echo(rig)
    rig.link.send("KILL_EXECUTOR", executor=1, reason=P.E["JOB_TOO_LONG"])
    gone = expect_new_executor(rig, 1)
    assert gone.fields.status == signal.SIGKILL and gone.tail == b"the mediator asked for it"


def test_a_stopped_executor_is_killed(tmp_path):
    """SIGSTOP while it writes: it is reaped before the mediator hears of it, so nothing is written
    after that, SIGCONT or not."""
    with WorkerRig(tmp_path, "--threads", "1", heartbeat_ms=100) as rig:
        region = rig.new_region()
        rig.send_job(slow_request(rig), region.number)
        time.sleep(0.05)
        os.kill(rig.executor_pid, signal.SIGSTOP)
        gone = rig.link.wait("EXECUTOR_GONE")
        assert gone.fields.status == signal.SIGKILL and b"no sign of life" in gone.tail
        region.bytes[:] = 0x5a
        with contextlib.suppress(ProcessLookupError):
            os.kill(rig.executor_pid, signal.SIGCONT)
        assert not alive(rig.executor_pid)
        rig.take_executor()
        rig.attach(region)
        time.sleep(0.3)
        assert np.all(region.bytes == 0x5a)


def test_an_executor_dies_with_its_supervisor(rig):
    rig.process.kill()
    rig.process.wait()
    rig.executor.wait_closed()
    wait_until(lambda: not alive(rig.executor_pid), "the executor is gone")


def test_the_executor_ends_when_its_channel_closes(rig):
    rig.new_region()
    rig.send_job(slow_request(rig), rig.region.number)
    rig.executor.close()
    rig.executor = None
    gone = rig.link.wait("EXECUTOR_GONE")
    assert gone.fields.status == 0


def open_fds(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_restarts_leak_nothing(rig):
    rig.new_region()
    counts = []
    for number in range(1, 9):
        os.kill(rig.executor_pid, signal.SIGKILL)
        expect_new_executor(rig, number)
        counts.append(open_fds(rig.process.pid))
    assert len(set(counts)) == 1, counts


def test_the_executor_inherits_nothing(tmp_path):
    secret = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(secret, True)
    with WorkerRig(tmp_path, start=False) as rig:
        with open(rig.log_path, "ab") as log:
            rig.process = subprocess.Popen([BIN / "vgpu-worker", "--mediator", rig.path, "--name", "w0"],
                                           stdin=subprocess.DEVNULL, stderr=log, pass_fds=[secret])
        rig.accept()
        assert rig.executor.receive().name == "HEARTBEAT"  # it has started
        links = [os.readlink(f"/proc/{rig.executor_pid}/fd/{fd}")
                 for fd in os.listdir(f"/proc/{rig.executor_pid}/fd") if int(fd) > 2]
        assert not any("/dev/null" in link for link in links), links
        status = Path(f"/proc/{rig.executor_pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        if not SANITIZED:
            for task in Path(f"/proc/{rig.executor_pid}/task").iterdir():
                assert "Seccomp:\t2" in (task / "status").read_text(), "a thread is not confined"
    os.close(secret)


# ---- malformed messages ---------------------------------------------------------------------

HEARTBEAT = P.message("HEARTBEAT", progress=1)
MALFORMED = {
    "one byte": b"x",
    "a header cut off": HEARTBEAT[:15],
    "wrong magic": b"\0" + HEARTBEAT[1:],
    "length field too long": P.pack("vgpu_msg", magic=P.MSG_MAGIC, type=P.MSG["HEARTBEAT"], length=999)
    + HEARTBEAT[16:],
    "body cut off": P.pack("vgpu_msg", magic=P.MSG_MAGIC, type=P.MSG["HEARTBEAT"], length=20) + bytes(4),
    "unknown type": P.pack("vgpu_msg", magic=P.MSG_MAGIC, type=0x7777, length=16),
    "a reserved header field": HEARTBEAT[:6] + b"\1" + HEARTBEAT[7:],
    "an epoch": HEARTBEAT[:12] + b"\1" + HEARTBEAT[13:],
    "a message of another sender": P.message("REGISTER"),
    "a message of another connection": P.message("ACCEPT", seq=1),
    "the largest possible": bytes(P.MSG_MAX),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_on_the_worker_socket(rig, what):
    """The connection ends, the executor with it; the worker comes back."""
    pid = rig.executor_pid
    rig.link.send_raw(MALFORMED[what])
    rig.link.wait_closed()
    rig.accept()
    assert not alive(pid), "there is never a second executor beside one that may still write"
    rig.new_region()
    assert echo(rig)


@pytest.mark.parametrize("name", ["REGISTER_ACK"])
def test_a_message_out_of_its_state(rig, name):
    rig.link.send(name, version=1, worker_id=1, heartbeat_ms=500)
    rig.link.wait_closed()
    rig.accept()


def test_kill_before_registered(tmp_path):
    with WorkerRig(tmp_path, start=False) as rig:
        rig.start()
        link = rig.accept_link()
        link.wait("REGISTER")
        link.send("KILL_EXECUTOR", executor=1)
        link.wait_closed()
        rig.accept()


@pytest.mark.parametrize("what", [w for w in MALFORMED if w != "a message of another sender"]
                         + ["descriptor with HEARTBEAT", "ATTACH without descriptor", "DETACH of nothing",
                            "JOB twice", "short request", "reserved field of JOB"])
def test_malformed_on_the_executor_channel(rig, what):
    rig.new_region()
    if what == "descriptor with HEARTBEAT":
        rig.executor.send_raw(HEARTBEAT, [rig.region.fd])
    elif what == "ATTACH without descriptor":
        rig.executor.send("ATTACH", region=3, size=4096)
    elif what == "DETACH of nothing":
        rig.executor.send("DETACH", region=333)
    elif what == "JOB twice":
        rig.send_job(slow_request(rig), rig.region.number)
        rig.next_job -= 1
        rig.send_job(inline_echo())
    elif what == "short request":
        rig.send_job(b"12345678")
    elif what == "reserved field of JOB":
        rig.executor.send("JOB", tail=inline_echo(), job=1, attempt=1, reserved=b"\1")
    else:
        rig.executor.send_raw(MALFORMED[what])
    rig.executor.wait_closed()
    gone = expect_new_executor(rig, 1)
    assert os.waitstatus_to_exitcode(gone.fields.status) == 3
    assert gone.tail == b"the mediator broke the protocol"


# ---- the mediator goes, the worker goes -----------------------------------------------------


def test_the_mediator_restarts(rig):
    rig.new_region()
    rig.send_job(slow_request(rig), rig.region.number)
    pid, boot = rig.executor_pid, rig.register.boot_id
    rig.link.close()
    rig.accept()
    assert not alive(pid)
    assert rig.register.boot_id == boot and rig.executor_number == 2
    rig.attach(rig.region)
    assert echo(rig)


def test_a_silent_mediator_is_lost(tmp_path):
    with WorkerRig(tmp_path, heartbeat_ms=50, beat=False) as rig:
        rig.link.wait_closed()
        assert "the mediator is silent" in rig.log()
        rig.beat = True
        rig.accept()


def test_drain_finishes_what_runs(rig):
    rig.new_region()
    job = rig.send_job(slow_request(rig, side=160, search=12), rig.region.number)
    rig.executor.send("HEARTBEAT", progress=1)
    wait_until(lambda: echo_ran(rig), "the job has started")
    rig.process.send_signal(signal.SIGTERM)
    rig.link.wait("DRAIN")
    late = rig.send_job(inline_echo())  # was on its way
    done = {d.job: d.error for d in (rig.wait_done(), rig.wait_done())}
    assert done == {job: 0, late: 0}
    rig.link.wait("EXECUTOR_GONE")
    assert rig.process.wait(LIMIT_S) == 0
    rig.link.wait_closed()


def echo_ran(rig):
    """An executor that answers an echo has read all that came before it."""
    return rig.wait_done(rig.send_job(inline_echo())).error == 0


def test_drain_asked_by_the_mediator(rig):
    rig.link.send("DRAIN")
    rig.link.wait("DRAIN")
    rig.link.wait("EXECUTOR_GONE")
    assert rig.process.wait(LIMIT_S) == 0


def test_second_signal_ends_now(rig):
    rig.new_region()
    rig.send_job(slow_request(rig), rig.region.number)
    assert echo_ran(rig)
    rig.process.send_signal(signal.SIGTERM)
    rig.link.wait("DRAIN")
    rig.process.send_signal(signal.SIGTERM)
    rig.link.wait("EXECUTOR_GONE")
    assert rig.process.wait(LIMIT_S) == 3
    assert not alive(rig.executor_pid)


def test_signal_without_mediator_ends_at_once(tmp_path):
    rig = WorkerRig(tmp_path, start=False)
    rig.start()
    wait_until(lambda: "no mediator yet" in rig.log(), "the worker runs")
    rig.process.send_signal(signal.SIGINT)
    assert rig.process.wait(LIMIT_S) == 0


def test_sigterm_to_the_whole_group_drains_too(rig):
    """As systemd does it: the executor must leave the decision to its supervisor."""
    rig.new_region()
    job = rig.send_job(slow_request(rig, side=128, search=8), rig.region.number)
    assert echo_ran(rig)
    os.kill(rig.executor_pid, signal.SIGTERM)
    rig.process.send_signal(signal.SIGTERM)
    rig.link.wait("DRAIN")
    assert rig.wait_done(job).error == 0
    assert rig.process.wait(LIMIT_S) == 0


def test_the_mediator_dies_while_draining(rig):
    rig.new_region()
    rig.send_job(slow_request(rig), rig.region.number)
    assert echo_ran(rig)
    rig.process.send_signal(signal.SIGTERM)
    rig.link.wait("DRAIN")
    rig.link.close()
    assert rig.process.wait(LIMIT_S) == 0


def test_idle_worker_sleeps(rig):
    if SANITIZED:
        pytest.skip("sanitizers have background threads")

    def cpu_ticks():
        return sum(sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
                   for pid in (rig.process.pid, rig.executor_pid))

    before = cpu_ticks()
    with contextlib.suppress(Gone, TimeoutError):
        end = time.monotonic() + 2
        while time.monotonic() < end:
            rig.link.receive(end - time.monotonic())
    assert cpu_ticks() - before <= 4, "an idle worker uses processor time"

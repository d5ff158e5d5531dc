# SPDX-License-Identifier: MIT
"""Life and death of a vgpu-worker: registering, jobs in flight, limits, faults on both sides."""

import contextlib
import fcntl
import os
import re
import resource
import select
import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from local_proto import P
from worker_rig import BIN, LIMIT_S, SANITIZED, Gone, JobRing, Region, WorkerRig, make_ring

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
        assert r.version_min <= P.LOCAL_VERSION_MAX <= r.version_max
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
    while (beat := rig.executor.receive()).fields.progress < 3:
        assert beat.name == "HEARTBEAT"
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
        request = slow_request(rig)
        out = P.buffers(request)[1].offset
        slow = rig.send_job(request, rig.region.number)
        wait_until(lambda: rig.region.bytes[out] != 0xa5, "it has written its first bytes")
        jobs = {band: rig.send_job(queued_echo(rig), rig.region.number, band)
                for band in (BATCH, HIGH, NORMAL, REALTIME)}
        assert echo_ran(rig), "all were taken: the ring is not ordered against the channel"
        rig.executor.send("JOB_CANCEL", job=slow, attempt=1)
        order = [rig.wait_done().job for _ in range(5)]
        assert order == [slow, jobs[REALTIME], jobs[HIGH], jobs[NORMAL], jobs[BATCH]]


def test_more_jobs_than_credits_wait(rig):
    rig.new_region()
    jobs = [rig.send_job(slow_request(rig, beside=True), rig.region.number)
            for _ in range(5)]  # depth 4, one express
    extra = [rig.send_job(inline_echo()) for _ in range(2)]
    with pytest.raises(TimeoutError):
        rig.wait_done(limit_s=0.2)
    rig.executor.send("JOB_CANCEL", job=extra[0], attempt=1)
    assert rig.wait_done(extra[0]).error == P.E["CANCELLED"], "also one that waits"
    rig.executor.send("JOB_CANCEL", job=jobs[0], attempt=1)
    assert [rig.wait_done().job for _ in range(2)] == [jobs[0], extra[1]]
    for job in jobs[1:]:
        rig.executor.send("JOB_CANCEL", job=job, attempt=1)
    assert {rig.wait_done().job for _ in jobs[1:]} == set(jobs[1:])


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


# ---- ring and channel -----------------------------------------------------------------------


@contextlib.contextmanager
def stopped(pid):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_job_that_is_seen_before_its_region(rig):
    """More messages than the channel reads at a time stand before ATTACH; the ring is looked at next."""
    region = Region(1, 1 << 20)
    with stopped(rig.executor_pid):
        for _ in range(100):
            rig.executor.send("HEARTBEAT", progress=1)
        rig.attach(region)
        requests = [P.request("ECHO", [(P.BUF_ARENA, P.IN, 0, 64), (P.BUF_ARENA, P.OUT, out, 64)])
                    for out in (64, 128, 192)]
        jobs = [rig.send_job(request, region.number) for request in requests]
    assert [rig.wait_done(job).error for job in jobs] == [0, 0, 0]
    region.close()


def test_a_cancel_that_is_seen_before_its_job(rig):
    rig.new_region()
    assert echo(rig)
    with stopped(rig.executor_pid):
        job = rig.send_job(slow_request(rig), rig.region.number)
        rig.executor.send("JOB_CANCEL", job=job, attempt=1)
        later = rig.send_job(inline_echo())
    done = rig.wait_done(job)
    assert done.error == P.E["CANCELLED"] and done.response.run_ns == 0, "it never ran"
    assert rig.wait_done(later).error == 0


def test_a_cancel_that_is_seen_before_a_hundred_jobs(tmp_path):
    """The job that it means is the last of more than are taken at a time."""
    with WorkerRig(tmp_path, "--threads", "1", ring=dict(entries=128)) as rig:
        rig.new_region()
        with stopped(rig.executor_pid):
            for _ in range(100):
                rig.send_job(inline_echo(), ring=False)
            last = rig.send_job(slow_request(rig), rig.region.number)
            rig.executor.send("JOB_CANCEL", job=last, attempt=1)
        errors = {done.job: done.error for done in (rig.wait_done() for _ in range(101))}
        assert errors.pop(last) == P.E["CANCELLED"] and set(errors.values()) == {0}


def test_a_full_ring_wraps_many_times(rig):
    rig.new_region()
    for turn in range(40):
        with stopped(rig.executor_pid) if turn % 8 == 0 else contextlib.nullcontext():
            jobs = {rig.send_job(inline_echo(), ring=False) for _ in range(16)}
            assert rig.jobs.ring.take() is None
            rig.jobs.publish()
        assert {rig.wait_done().job for _ in range(16)} == jobs


def test_the_mediator_is_called_only_if_it_waits(rig):
    """Fifteen more jobs after the one that was armed for: no write to the eventfd for them."""
    ring = rig.jobs.ring
    assert not ring.arm()
    jobs = [rig.send_job(inline_echo(), ring=False) for _ in range(16)]
    rig.jobs.publish()
    wait_until(lambda: ring.load(ring.COMPLETE_TAIL) == 16, "all are completed")
    assert os.eventfd_read(rig.jobs.call) == 1
    assert [rig.wait_done().job for _ in range(16)] == jobs
    rig.send_job(inline_echo())
    wait_until(lambda: ring.load(ring.COMPLETE_TAIL) == 17, "it is completed")
    assert rig.wait_done().error == 0
    with pytest.raises(BlockingIOError):
        os.eventfd_read(rig.jobs.call)


def test_polling(tmp_path):
    """The same results, and asleep when nothing comes."""
    with WorkerRig(tmp_path, "--threads", "2", ring=dict(spin_us=200)) as rig:
        rig.new_region()
        for _ in range(50):
            assert echo(rig)
            assert rig.wait_done(rig.send_job(queued_echo(rig), rig.region.number)).error == 0
        os.kill(rig.executor_pid, 0)
        if not SANITIZED:
            wait_until(lambda: Path(f"/proc/{rig.executor_pid}/stat").read_text().split()[2] == "S",
                       "it sleeps")


# ---- bulk in place --------------------------------------------------------------------------


def status_kib(pid, field):
    return int(re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)[1])


def io_bytes(pid):
    io = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(io["rchar"]) + int(io["wchar"])


@pytest.mark.skipif(SANITIZED, reason="sanitizers keep memory of their own")
@pytest.mark.parametrize("op", ["ECHO", "REDUCE", "AXPY"])
def test_bulk_is_used_in_place(rig, op):
    """No copy: private memory stays as it is, and nothing goes through descriptors."""
    mib, n = 1 << 20, 16 << 20
    region = rig.new_region(200 * mib)
    x = region.bytes[: 4 * n].view("f4")
    x[:] = 0.5
    assert echo_ran(rig)
    spans = {"ECHO": [(P.BUF_ARENA, P.IN, 0, 4 * n), (P.BUF_ARENA, P.OUT, 64 * mib, 4 * n)],
             "REDUCE": [(P.BUF_ARENA, P.IN, 0, 4 * n), (P.BUF_ARENA, P.OUT, 64 * mib, 8)],
             "AXPY": [(P.BUF_ARENA, P.IN, 0, 4 * n), (P.BUF_ARENA, P.IN, 0, 4 * n),
                      (P.BUF_ARENA, P.OUT, 64 * mib, 4 * n)]}
    bodies = {"ECHO": b"", "REDUCE": P.pack("vgpu_reduce", dtype=P.DTYPE["F32"], n=n, stride=1),
              "AXPY": P.pack("vgpu_axpy", dtype=P.DTYPE["F32"], n=n, alpha=2.0, incx=1, incy=1)}
    request = P.request(op, spans[op], bodies[op])
    assert rig.wait_done(rig.send_job(request, region.number)).error == 0
    anon, io = status_kib(rig.executor_pid, "RssAnon"), io_bytes(rig.executor_pid)
    for _ in range(5):
        done = rig.wait_done(rig.send_job(request, region.number))
        assert done.error == 0, done.text
    assert status_kib(rig.executor_pid, "RssAnon") - anon < 1024
    assert io_bytes(rig.executor_pid) - io < 5 * 64 * mib / 100
    out = region.bytes[64 * mib : 64 * mib + 8]
    want = {"ECHO": 0.5, "REDUCE": 0.5 * n, "AXPY": 1.5}[op]
    assert out.view("f8")[0] == want if op == "REDUCE" else out.view("f4")[0] == want


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


def test_a_detach_that_crosses_the_refusal(rig):
    """The mediator sends it before it reads DETACHED; there is one answer to both, and nobody ends."""
    region = Region(5, 1 << 16, 0)
    with stopped(rig.executor_pid):
        rig.executor.send("ATTACH", region=5, size=region.size, fds=[region.fd])
        rig.executor.send("DETACH", region=5)
        rig.attach(Region(5, 1 << 16))
    assert rig.executor.wait("DETACHED").fields.region == 5
    request = P.request("ECHO", [(P.BUF_ARENA, P.IN, 0, 64), (P.BUF_ARENA, P.OUT, 64, 64)])
    assert rig.wait_done(rig.send_job(request, 5)).error == 0
    rig.executor.send("DETACH", region=5)
    assert rig.executor.wait("DETACHED").fields.region == 5


def test_a_pipe_is_no_region(rig):
    r, w = os.pipe()
    rig.executor.send("ATTACH", region=5, size=4096, fds=[r])
    assert rig.executor.wait("DETACHED").fields.region == 5
    os.close(r), os.close(w)


def test_offset_and_writers_pipe(rig):
    """Jobs see the memory from the offset on; the pipe's end is closed with the mapping."""
    region = Region(9, 1 << 20)
    r, w = os.pipe()
    rig.executor.send("ATTACH", region=9, offset=65536, size=65536, fds=[region.fd, w])
    os.close(w)
    region.bytes[65536 : 65536 + 64] = 7
    request = P.request("ECHO", [(P.BUF_ARENA, P.IN, 0, 64), (P.BUF_ARENA, P.OUT, 64, 64)])
    assert rig.wait_done(rig.send_job(request, 9)).error == 0
    assert np.all(region.bytes[65536 + 64 : 65536 + 128] == 7)
    outside = P.request("ECHO", [(P.BUF_ARENA, P.IN, 0, 64), (P.BUF_ARENA, P.OUT, 65536, 64)])
    assert rig.wait_done(rig.send_job(outside, 9)).error == P.E["BAD_BUFFER"]
    assert not select.select([r], [], [], 0)[0], "it is held open"
    rig.executor.send("DETACH", region=9)
    rig.executor.wait("DETACHED")
    assert os.read(r, 1) == b"", "nobody writes any more"
    os.close(r)


def test_writers_pipe_of_a_refused_region_is_closed(rig):
    region = Region(9, 1 << 16)
    for fields in (dict(offset=100, size=4096), dict(offset=1 << 16, size=4096), dict(size=1 << 20)):
        r, w = os.pipe()
        rig.executor.send("ATTACH", region=9, fds=[region.fd, w], **fields)
        os.close(w)
        assert rig.executor.wait("DETACHED").fields.region == 9
        assert os.read(r, 1) == b""
        os.close(r)


def test_writers_pipe_ends_with_the_executor(rig):
    region = Region(9, 1 << 16)
    r, w = os.pipe()
    rig.executor.send("ATTACH", region=9, size=4096, fds=[region.fd, w])
    os.close(w)
    assert echo_ran(rig) and echo_ran(rig)
    os.kill(rig.executor_pid, signal.SIGKILL)
    assert os.read(r, 1) == b""
    os.close(r)
    rig.link.wait("EXECUTOR_GONE")


def test_more_regions_than_descriptors_by_default(rig):
    """Each brings a pipe's end; the soft limit of descriptors is often 1024."""
    region = Region(1, 1 << 16)
    r, w = os.pipe()
    for number in range(1, 2001):
        rig.executor.send("ATTACH", region=number, size=4096, fds=[region.fd, w])
    request = P.request("ECHO", [(P.BUF_ARENA, P.IN, 0, 64), (P.BUF_ARENA, P.OUT, 64, 64)])
    for number in (1, 1000, 2000):
        assert rig.wait_done(rig.send_job(request, number)).error == 0
    assert open_fds(rig.executor_pid) > 2000
    os.close(r), os.close(w)


def test_fewer_descriptors_than_regions(tmp_path):
    """A low hard limit: what does not fit is refused, the executor lives."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    with WorkerRig(tmp_path, "--threads", "1", preexec_fn=limit) as rig:
        region = Region(1, 1 << 16)
        r, w = os.pipe()
        for number in range(1, 301):
            rig.executor.send("ATTACH", region=number, size=4096, fds=[region.fd, w])
        refused = {rig.executor.wait("DETACHED").fields.region for _ in range(300 - 192)}
        assert refused == set(range(193, 301))
        request = P.request("ECHO", [(P.BUF_ARENA, P.IN, 0, 64), (P.BUF_ARENA, P.OUT, 64, 64)])
        assert rig.wait_done(rig.send_job(request, 192)).error == 0
        assert "LimitNOFILE" in rig.log()
        os.close(r), os.close(w)


def mapped(rig):
    return Path(f"/proc/{rig.executor_pid}/maps").read_text().count("memfd:region")


def test_detach_waits_for_the_last_job(rig):
    region = rig.new_region()
    slow = rig.send_job(slow_request(rig), region.number)
    assert echo_ran(rig), "the slow job has its region: ring and channel are not ordered"
    rig.executor.send("DETACH", region=region.number)
    assert echo_ran(rig) and echo_ran(rig), "DETACH was read"
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
        assert echo_ran(rig), "it has started"
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
                            "RING twice", "RING with two descriptors"])
def test_malformed_on_the_executor_channel(rig, what):
    rig.new_region()
    if what == "descriptor with HEARTBEAT":
        rig.executor.send_raw(HEARTBEAT, [rig.region.fd])
    elif what == "ATTACH without descriptor":
        rig.executor.send("ATTACH", region=3, size=4096)
    elif what == "DETACH of nothing":
        rig.executor.send("DETACH", region=333)
    elif what == "RING twice":
        JobRing(rig.executor).close()
    elif what == "RING with two descriptors":
        rig.executor.send("RING", entries=16, fds=[rig.region.fd] * 2)
    else:
        rig.executor.send_raw(MALFORMED[what])
    rig.executor.wait_closed()
    gone = expect_new_executor(rig, 1)
    assert os.waitstatus_to_exitcode(gone.fields.status) == 3
    assert gone.tail == b"the mediator broke the protocol"


def break_ring(rig, what):
    ring = rig.jobs.ring
    if what == "submit_tail jumps":
        ring.store(ring.SUBMIT_TAIL, ring.submit_tail + ring.entries + 1)
        os.eventfd_write(rig.jobs.kick, 1)
    elif what == "a slot that does not exist":
        ring.submit(ring.entries, 100)
        rig.jobs.publish()
    elif what == "a slot in use":
        rig.send_job(slow_request(rig), rig.region.number)
        ring.free.append(next(iter(ring.busy)))
        rig.send_job(inline_echo())
    elif what == "another tag":
        rig.send_job(inline_echo(), tag=99)
    elif what == "a short job":
        rig.send_job(b"12345678")
    elif what == "a length of nothing":
        rig.send_job(inline_echo(), length=0)
    elif what == "a reserved field of the job":
        rig.send_job(inline_echo(), reserved=b"\1")
    elif what == "a reserved field of the descriptor":
        rig.jobs.ring.submit(rig.jobs.ring.take(), 100, reserved=b"\1")
        rig.jobs.publish()


@pytest.mark.parametrize("what", ["submit_tail jumps", "a slot that does not exist", "a slot in use",
                                  "another tag", "a short job", "a length of nothing",
                                  "a reserved field of the job", "a reserved field of the descriptor"])
def test_a_broken_job_ring(rig, what):
    rig.new_region()
    break_ring(rig, what)
    rig.executor.wait_closed()
    gone = expect_new_executor(rig, 1)
    assert os.waitstatus_to_exitcode(gone.fields.status) == 3
    assert gone.tail == b"the mediator broke the protocol"


@pytest.mark.parametrize("wrong", [dict(entries=15), dict(entries=8192), dict(slot_bytes=4096),
                                   dict(size=4096), dict(entries=32), "not sealed", "too small", "not first"])
def test_a_bad_ring_message(tmp_path, wrong):
    with WorkerRig(tmp_path, start=False) as rig:
        rig.start()
        rig.link = rig.accept_link()
        rig.link.wait("REGISTER")
        rig.acknowledge()
        rig.take_executor(ring=False)
        fields, fds, _ = make_ring(16)
        if wrong == "not first":
            rig.executor.send("JOB_CANCEL", job=1, attempt=1)
        elif wrong in ("not sealed", "too small"):
            with os.fdopen(os.memfd_create("bad", os.MFD_ALLOW_SEALING)) as bad:
                os.ftruncate(bad.fileno(), fields["size"] - 4096 * (wrong == "too small"))
                if wrong == "too small":
                    fcntl.fcntl(bad.fileno(), 1033, 2)
                rig.executor.send("RING", fds=[bad.fileno(), *fds[1:]], **fields)
        else:
            rig.executor.send("RING", fds=fds, **{**fields, **wrong})
        for fd in fds:
            os.close(fd)
        rig.executor.wait_closed()
        assert os.waitstatus_to_exitcode(rig.link.wait("EXECUTOR_GONE").fields.status) == 3
        rig.take_executor()
        assert rig.wait_done(rig.send_job(inline_echo())).error == 0


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

# SPDX-License-Identifier: MIT
"""One request through a real mediator: what stub and worker see, and what the mediator answers itself."""

import os
import socket

import pytest
from mediator_rig import ARENA, VERSION, MediatorRig, P, echo, wait_for


@pytest.fixture
def m(tmp_path):
    with MediatorRig(tmp_path, vms=["a", "b"]) as rig:
        yield rig


def test_handshake_gives_identity_and_limits(m):
    with m.stub("a") as a, m.stub("b") as b:
        assert (a.ack.version, a.ack.pool_id, a.ack.band, a.ack.up) == (VERSION, 7, P.BAND_NORMAL, 1)
        assert (a.ack.vm_id, b.ack.vm_id) == (1, 2)
        assert a.ack.mediator_gen == b.ack.mediator_gen != 0
        assert a.ack.deadline_ms == 60000 and a.ack.max_bytes == 2 * ARENA


@pytest.mark.parametrize("size", [1, 64, 800])
def test_inline_echo(m, size):
    data = os.urandom(size)
    with m.worker("w0") as w, m.stub("a") as s:
        s.request(*echo(data, tag=99))
        job = w.job()
        assert (job.region, job.fields.tenant, job.fields.band, job.hdr.tag) == (0, 1, 1, 99)
        w.do_echo(job)
        answer = s.answer(seq=1)
        assert answer.accepted and answer.error == 0 and answer.payload == data
        assert (answer.hdr.tag, answer.hdr.worker, answer.hdr.attempts) == (99, w.ack.worker_id, 1)
        assert answer.hdr.run_ns == 1000 and answer.hdr.queued_ns > 0


@pytest.mark.parametrize("size", [1, 61440, 61441, 3_000_000])
def test_arena_echo(m, size):
    data = os.urandom(size)
    with m.worker("w0") as w, m.stub("a") as s:
        for _ in range(3):
            request, inputs = echo(data, inline=False)
            s.request(request, inputs)
            job = w.job()
            assert job.region and w.input(job, 0) == data
            w.do_echo(job)
            answer = s.answer()
            assert answer.error == 0 and bytes(answer.outputs[1]) == data


def test_vms_never_share_memory(m):
    with m.worker("w0", depth=2) as w, m.stub("a") as a, m.stub("b") as b:
        a.request(*echo(b"A" * 100, inline=False))
        b.request(*echo(b"B" * 100, inline=False))
        first, second = w.job(), w.job()
        assert first.region != second.region
        w.do_echo(first)
        w.do_echo(second)
        assert bytes(a.answer().outputs[1]) == b"A" * 100
        assert bytes(b.answer().outputs[1]) == b"B" * 100


def test_an_error_of_the_worker_is_passed_on(m):
    with m.worker("w0") as w, m.stub("a") as s:
        s.request(*echo(b"x" * 64, inline=False))
        w.done(w.job(), error=P.E["BAD_SHAPE"], payload=b"no such shape")
        answer = s.answer()
        assert (answer.error, answer.text, answer.outputs) == (P.E["BAD_SHAPE"], "no such shape", {})


def test_credits_bound_what_a_worker_holds(m):
    with m.worker("w0", depth=1) as w, m.stub("a") as a, m.stub("b") as b:
        a.request(*echo(b"1"))
        first = w.job()
        b.request(*echo(b"2"))
        wait_for("the second waits", lambda: m.view("vms", "vm", "b")["queued"] == 1)
        with pytest.raises(TimeoutError):
            w.job(limit_s=0.1)
        w.do_echo(first)
        w.do_echo(w.job())
        assert a.answer().payload == b"1" and b.answer().payload == b"2"


def test_work_is_spread_over_workers(m):
    with m.worker("w0") as w0, m.worker("w1") as w1, m.stub("a") as a, m.stub("b") as b:
        a.request(*echo(b"1"))
        b.request(*echo(b"2"))
        first, second = w0.job(), w1.job()  # both, before one has room again
        w0.do_echo(first)
        w1.do_echo(second)
        assert {a.answer().hdr.worker, b.answer().hdr.worker} == {1, 2}


def test_info_is_answered_without_a_worker(m):
    with m.stub("a") as s:
        s.request(P.request("INFO", tag=5))
        answer = s.answer()
        assert answer.error == 0 and answer.hdr.payload == P.PAYLOAD_INFO and answer.hdr.tag == 5
        info = P.unpack("vgpu_info", answer.payload)
        assert (info.vm_id, info.pool_id, info.workers, info.band_max) == (1, 7, 0, 1)
        assert info.vm.rstrip(b"\0") == b"a" and info.tenant.rstrip(b"\0") == b"t"
        assert info.pool.rstrip(b"\0") == b"main" and info.max_job_ms == 60000
        with m.worker("w0"), m.worker("w1"):
            s.request(P.request("INFO"))
            info = P.unpack("vgpu_info", s.answer().payload)
            assert info.workers == 2 and info.backends.rstrip(b"\0") == b"fake"
            assert info.ops >> P.OP["GEMM"] & 1 and not info.ops >> P.OP["PROGRAM"] & 1


def test_cancel_by_tag(m):
    with m.worker("w0") as w, m.stub("a") as s:
        s.request(*echo(b"x", tag=77))
        job = w.job()
        s.request(P.request("CANCEL", body=P.pack("vgpu_cancel", tag=77)))
        assert s.wait("ACCEPT").fields.seq == 1
        answers = {a.seq: a for a in (s.answer(), s.answer())}
        assert answers[1].error == P.E["CANCELLED"] and answers[2].error == 0
        w.cancelled(job)
        w.done(job, error=P.E["CANCELLED"])
        s.request(P.request("CANCEL", body=P.pack("vgpu_cancel", tag=77)))
        assert s.answer().error == P.E["NOT_FOUND"]


def test_cancel_from_the_stub(m):
    with m.worker("w0") as w, m.stub("a") as s:
        seq = s.request(*echo(b"x"))
        job = w.job()
        s.say("CANCEL", seq=seq, reason=P.E["CANCELLED"])
        w.cancelled(job)
        s.request(*echo(b"next"))  # waits for the credit that the cancelled one still holds
        w.done(job, payload=b"x")  # late: nobody wants it
        w.do_echo(w.job())
        assert s.wait("ACCEPT").fields.seq == 1
        assert s.answer(seq=2).payload == b"next"


def test_a_wish_is_clamped(tmp_path):
    pool = MediatorRig.plain_pool(["a"], vm="band: normal\nband_max: high")
    with MediatorRig(tmp_path, yaml=pool) as m, m.worker("w0") as w:
        with m.stub("a", band_wish=P.BAND_REALTIME) as s:
            assert s.ack.band == P.BAND_HIGH
            s.say("WISH", band=P.BAND_BATCH)
            assert s.wait("STATE").fields.band == P.BAND_BATCH
            for wish, got in ((P.BAND_REALTIME, P.BAND_HIGH), (P.BAND_DEFAULT, P.BAND_BATCH),
                              (P.BAND_NORMAL, P.BAND_NORMAL)):
                s.request(*echo(b"x", band=wish))
                job = w.job()
                assert job.fields.band == got
                w.do_echo(job)
                assert s.answer().error == 0


def test_a_higher_band_goes_first(tmp_path):
    text = ("version: 1\nmediator: {heartbeat: 100ms}\nvms:\n  - {name: a, band: batch}\n"
            "  - {name: b, band: realtime}\n  - {name: c}\n")
    with MediatorRig(tmp_path, yaml=text) as m, m.worker("w0") as w, \
            m.stub("a") as a, m.stub("b") as b, m.stub("c") as c:
        c.request(*echo(b"c"))
        first = w.job()
        a.request(*echo(b"a"))
        wait_for("a waits", lambda: m.view("vms", "vm", "a")["queued"] == 1)
        b.request(*echo(b"b"))
        wait_for("b waits", lambda: m.view("vms", "vm", "b")["queued"] == 1)
        w.do_echo(first)
        order = []
        for _ in range(2):
            job = w.job()
            order.append(w.input(job, 0))
            w.do_echo(job)
        assert order == [b"b", b"a"]


def test_pools(tmp_path):
    text = ("version: 1\npools:\n  - {name: main, id: 7}\n  - {name: other, id: 9}\n"
            "  - {name: closed, id: 11}\nvms:\n  - {name: a, pools: [main, other]}\n")
    with MediatorRig(tmp_path, yaml=text) as m, m.worker("w0") as w0, \
            m.worker("w1", pool="other") as w1, m.stub("a") as s:
        s.request(*echo(b"main"))
        w0.do_echo(w0.job())
        assert s.answer().error == 0
        s.request(*echo(b"other", pool=9))
        w1.do_echo(w1.job())
        assert s.answer().error == 0
        s.request(*echo(b"x", pool=11))
        assert s.answer().error == P.E["DENIED"]
        s.request(*echo(b"x", pool=8))
        assert s.answer().error == P.E["NO_POOL"]
    with MediatorRig(tmp_path, yaml=text) as m:
        with m.stub("a", pool_wish=9) as s:
            assert s.ack.pool_id == 9
        with m.stub("a", pool_wish=11) as s:
            assert s.ack.pool_id == 7


def test_a_stub_that_reads_slowly_gets_everything(m):
    data = os.urandom(8_000_000)
    with m.worker("w0") as w, m.stub("a") as slow, m.stub("b") as quick:
        slow.request(*echo(data, inline=False))
        w.do_echo(w.job())
        for _ in range(20):  # the other VM is not held up by a neighbour that does not read
            quick.request(*echo(b"x"))
            w.do_echo(w.job())
            assert quick.answer().error == 0
        assert bytes(slow.answer().outputs[1]) == data


def test_memory_is_given_back_when_idle(tmp_path):
    pool = MediatorRig.plain_pool(["a"], "heartbeat: 100ms\nidle_memory: 0ms")
    with MediatorRig(tmp_path, yaml=pool) as m, m.worker("w0") as w, m.stub("a") as s:
        s.request(*echo(os.urandom(4_000_000), inline=False))
        job = w.job()
        fd = next(f for f in os.listdir(f"/proc/{m.process.pid}/fd")
                  if "vgpu-staging-a" in os.readlink(f"/proc/{m.process.pid}/fd/{f}"))

        def pages():
            return os.stat(f"/proc/{m.process.pid}/fd/{fd}").st_blocks * 512

        assert pages() >= 4_000_000
        w.do_echo(job)
        assert s.answer().error == 0
        wait_for("the pages are gone", lambda: pages() == 0)


def test_admin_socket_shows_what_happened(m):
    with m.worker("w0") as w, m.stub("a") as s:
        s.request(*echo(b"x"))
        job = w.job()
        live = m.ask("jobs")["jobs"][0]
        assert (live["vm"], live["op"], live["state"], live["worker"]) == ("a", "echo", "running", "w0")
        w.do_echo(job)
        assert s.answer().error == 0
        ended = m.ask("jobs", limit=1)["jobs"][0]
        assert ended["state"] == "done" and ended["attempts"] == 1 and ended["error"] is None
        queues = m.ask("queues")
        assert queues["schema"] == "vgpu.queues/1" and queues["pools"][0]["workers"] == 1
        assert queues["tenants"][0]["done"] == 1
        assert [b["done"] for b in queues["bands"]] == [0, 0, 1, 0]
        worker = m.view("workers", "worker", "w0")
        assert worker["state"] == "up" and worker["done"] == 1 and "gemm" in worker["ops"]
        vm = m.view("vms", "vm", "a")
        assert vm["connected"] and vm["done"] == 1


@pytest.mark.parametrize("line, complaint", [
    (b"nonsense\n", "one JSON object"), (b"[]\n", "one JSON object"), (b"{}\n", "no 'command'"),
    (b'{"command": "format"}\n', "unknown command"), (b'{"command": "jobs", "limit": 0}\n', "limit"),
    (b"x" * 70000, "longer than 64 KiB"),
])
def test_admin_socket_refuses_nonsense(m, line, complaint):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(m.run_dir / "admin.sock"))
        sock.sendall(line)
        answer = sock.makefile("rb").readline()
        assert b"vgpu.error/1" in answer and complaint.encode() in answer


def test_admin_question_cut_off(m):
    """Half a question gets no answer, and the next client is served."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(m.run_dir / "admin.sock"))
        sock.sendall(b'{"command": "queu')
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
    assert m.ask("queues")["schema"] == "vgpu.queues/1"

# SPDX-License-Identifier: MIT
"""Workers that die, hang, lie or come late; VMs that vanish, reset and come back. Nothing is lost."""

import contextlib
import os
import signal
import threading
import time

import pytest
from mediator_rig import FakeStub, Gone, MediatorRig, P, echo, wait_for

QUICK = "heartbeat: 50ms\nreconnect: 10s\ncancel_grace: 200ms\nkill_grace: 100ms"


@pytest.fixture
def m(tmp_path):
    with MediatorRig(tmp_path, vms=["a", "b"], mediator=QUICK) as rig:
        yield rig


def lingering(m, vm="a"):
    return m.view("vms", "vm", vm)["lingering"]


# ---- workers that die ----


def test_executor_dies_and_its_job_runs_elsewhere(m):
    data = os.urandom(100_000)
    with m.worker("w0") as w0, m.stub("a") as s:
        s.request(*echo(data, inline=False))
        first = w0.job()
        with m.worker("w1") as w1:
            w0.gone()
            again = w1.job()
            assert (again.id, again.attempt) == (first.id, 2)
            assert again.bufs[1].offset != first.bufs[1].offset, "each try has its own OUT ranges"
            assert w1.input(again, 0) == data
            w1.do_echo(again)
            answer = s.answer()
            assert answer.error == 0 and bytes(answer.outputs[1]) == data
            assert (answer.hdr.attempts, answer.hdr.worker) == (2, w1.ack.worker_id)


def test_supervisor_and_executor_die_together(m):
    with m.worker("w0") as w0, m.stub("a") as s:
        s.request(*echo(b"x" * 64, inline=False))
        w0.job()
        with m.worker("w1") as w1:
            w0.close()
            w1.do_echo(w1.job())
            assert s.answer().error == 0
            assert lingering(m) == 0, "both are gone: nothing can write any more"


def test_results_sent_before_the_end_still_count(m):
    with m.worker("w0") as w, m.stub("a") as s:
        s.request(*echo(b"last words"))
        w.done(w.job(), payload=b"last words")
        w.gone()
        assert s.answer().payload == b"last words"


def test_gone_while_its_channel_is_open(m):
    """A supervisor that says so of an executor that it left running: what it had runs elsewhere."""
    with m.worker("w0") as w0, m.stub("a") as s:
        s.request(*echo(b"1" * 64, inline=False))
        s.request(*echo(b"2" * 64, inline=False))
        w0.job()
        w0.link.send("EXECUTOR_GONE", executor=w0.executors, status=9)
        w0.channel.wait_closed()
        with m.worker("w1") as w1:
            w1.serve_echo()
            assert [s.answer().error, s.answer().error] == [0, 0]
        assert lingering(m) == 0


def test_refused_region_is_attached_again(m):
    """DETACHED without DETACH: the executor could not map it; the next job tries once more."""
    with m.worker("w0") as w, m.stub("a") as s:
        for _ in range(2):
            s.request(*echo(b"x" * 64, inline=False))
            w.refuse_region()
            w.done(w.job(), error=P.E["INTERNAL"])
            assert s.answer().error == P.E["INTERNAL"]
        s.close()
        m.reload(MediatorRig.plain_pool(["b"], QUICK))
        with pytest.raises(TimeoutError):
            w.channel.wait("DETACH", limit_s=1)


def test_workers_that_leave_their_executors_behind(m):
    """Channels without a supervisor and without a job are closed."""
    before = len(os.listdir(f"/proc/{m.process.pid}/fd"))
    channels = []
    for i in range(20):
        w = m.worker(f"w{i}")
        for _ in range(10):
            channels.append(w.new_executor())
        w.ended.set()
        w.link.close()
    wait_for("their channels are closed",
             lambda: len(os.listdir(f"/proc/{m.process.pid}/fd")) <= before + 1)
    for channel in channels:
        channel.close()


def test_quarantined_after_three_tries(m):
    with m.worker("w0") as w, m.stub("a") as s:
        s.request(*echo(b"killer"))
        for attempt in (1, 2, 3):
            assert w.job().attempt == attempt
            w.gone()
            w.new_executor()
        answer = s.answer()
        assert answer.error == P.E["QUARANTINED"] and answer.hdr.attempts == 3
        s.request(*echo(b"harmless"))
        w.do_echo(w.job())
        assert s.answer().payload == b"harmless"


def test_no_retry_is_not_run_again(m):
    with m.worker("w0") as w, m.stub("a") as s:
        s.request(*echo(b"once", flags=P.REQ_NO_RETRY))
        w.job()
        w.gone()
        answer = s.answer()
        assert answer.error == P.E["WORKER_LOST"] and answer.hdr.attempts == 1


def test_the_job_that_ran_too_long_is_told_from_its_neighbours(tmp_path):
    pool = MediatorRig.plain_pool(["a", "b"], QUICK, pool="bands:\n  normal: {max_job: 200ms}")
    with MediatorRig(tmp_path, yaml=pool) as m, m.worker("w0", depth=2) as w, \
            m.stub("a") as a, m.stub("b") as b:
        a.request(*echo(b"long"))
        long = w.job()
        assert long.fields.max_job_ms == 200
        time.sleep(0.25)  # this is how long it runs
        b.request(*echo(b"short"))
        w.job()
        w.gone(text=b"a job ran longer than it may")
        assert a.answer().error == P.E["JOB_TOO_LONG"]
        w.new_executor()
        short = w.job()
        assert short.attempt == 2
        w.do_echo(short)
        assert b.answer().error == 0


def test_mediator_ends_a_job_that_nobody_else_ended(tmp_path):
    pool = MediatorRig.plain_pool(["a"], QUICK, pool="bands:\n  normal: {max_job: 50ms}")
    with MediatorRig(tmp_path, yaml=pool) as m, m.worker("w0") as w, m.stub("a") as s:
        s.request(*echo(b"x"))
        w.job()
        kill = w.link.wait("KILL_EXECUTOR").fields
        assert (kill.executor, kill.reason) == (1, P.E["JOB_TOO_LONG"])
        w.gone()
        assert s.answer().error == P.E["JOB_TOO_LONG"]


def test_supervisor_that_does_not_act(tmp_path):
    pool = MediatorRig.plain_pool(["a"], QUICK, pool="bands:\n  normal: {max_job: 50ms}")
    with MediatorRig(tmp_path, yaml=pool) as m, m.worker("w0") as w, m.stub("a") as s:
        s.request(*echo(b"x" * 64, inline=False))
        job = w.job()
        w.link.wait("KILL_EXECUTOR")
        assert s.answer().error == P.E["JOB_TOO_LONG"]
        assert lingering(m) == 1, "its ranges stay apart: it may still write"
        w.do_echo(job)
        wait_for("the late end frees them", lambda: lingering(m) == 0)


# ---- workers that hang ----


def test_hung_worker_is_answered_elsewhere_and_its_late_result_changes_nothing(m):
    data = os.urandom(5000)
    with m.worker("w0") as w0, m.stub("a") as s:
        s.request(*echo(data, inline=False))
        stale = w0.job()
        w0.silent.set()  # SIGSTOP
        m.wait_log("executor liveness worker=w0 executor=1 now=torpid")
        with m.worker("w1") as w1:
            w1.do_echo(w1.job())
            assert bytes(s.answer().outputs[1]) == data
            assert lingering(m) == 1
            s.request(*echo(b"\x11" * 5000, inline=False))
            fresh = w1.job()
            # The guest reuses its memory; the old writer wakes up in the middle.
            w0.write(stale, 1, b"\xee" * 5000)
            w1.do_echo(fresh)
            w0.write(stale, 1, b"\xdd" * 5000)
            assert bytes(s.answer().outputs[1]) == b"\x11" * 5000
            w0.silent.clear()  # SIGCONT
            w0.do_echo(stale)
            wait_for("the late result is dropped", lambda: lingering(m) == 0)
            assert m.log().count("late result dropped") == 1
            assert m.view("workers", "worker", "w0")["late"] == 1


def test_torpid_worker_gets_no_new_work_and_recovers(m):
    with m.worker("w0") as w, m.stub("a") as s:
        w.silent.set()
        m.wait_log("executor liveness worker=w0 executor=1 now=torpid")
        s.request(*echo(b"x"))
        wait_for("it waits", lambda: m.view("vms", "vm", "a")["queued"] == 1)
        assert m.view("workers", "worker", "w0")["state"] == "torpid"
        w.silent.clear()
        w.do_echo(w.job())
        assert s.answer().error == 0


def test_lost_executor_is_ended(m):
    with m.worker("w0") as w, m.stub("a") as s:
        s.request(*echo(b"x"))
        w.job()
        w.silent.set()
        assert w.link.wait("KILL_EXECUTOR").fields.reason == P.E["WORKER_LOST"]
        w.silent.clear()
        w.gone()
        w.new_executor()
        w.do_echo(w.job())
        assert s.answer().hdr.attempts == 2


def test_a_mediator_that_was_stopped_blames_nobody(m):
    with m.worker("w0") as w, m.stub("a") as s:
        s.request(*echo(b"x"))
        job = w.job()
        m.process.send_signal(signal.SIGSTOP)
        time.sleep(0.6)  # 12 periods: by its clock everybody was silent
        m.process.send_signal(signal.SIGCONT)
        m.wait_log("the mediator was held up")
        w.do_echo(job)
        answer = s.answer()
        assert answer.error == 0 and answer.hdr.attempts == 1
        assert "now=lost" not in m.log()


def test_detached_region_frees_what_a_lost_writer_held(m):
    with m.worker("w0") as w0, m.worker("w1") as w1, m.stub("a") as s:
        s.request(*echo(b"x" * 64, inline=False))
        job = w0.job()
        w0.silent.set()
        w1.do_echo(w1.job())
        assert s.answer().error == 0 and lingering(m) == 1
        w0.channel.send("DETACHED", region=job.region)
        wait_for("it is free", lambda: lingering(m) == 0)


def test_stuck_cancelled_job_ends_its_executor(m):
    with m.worker("w0") as w, m.stub("a") as s:
        seq = s.request(*echo(b"x"))
        job = w.job()
        s.say("CANCEL", seq=seq, reason=P.E["CANCELLED"])
        w.cancelled(job)
        assert w.link.wait("KILL_EXECUTOR").fields.reason == P.E["CANCELLED"]


# ---- workers that lie ----


@pytest.mark.parametrize("lie", [
    dict(tag=1234), dict(op=20), dict(size=9999), dict(version=3), dict(kind=77),
])
def test_bad_response_is_an_internal_error(m, lie):
    with m.worker("w0") as w, m.stub("a") as s:
        s.request(*echo(b"x", tag=5))
        w.done(w.job(), payload=b"x", **lie)
        assert s.answer().error == P.E["INTERNAL"]


def break_ring(w, job, what):
    """What an executor must not do with its job ring; `job` is in flight."""
    ring = job.ring.ring
    good = P.response(job.request, 0)
    if what == "complete_tail jumps":
        ring.store(ring.COMPLETE_TAIL, ring.entries + 1)
    elif what == "complete_tail goes back":
        ring.store(ring.COMPLETE_TAIL, 2**32 - 1)
    elif what == "a slot that does not exist":
        w.complete(job, good, slot=ring.entries)
    elif what == "a slot that is not in flight":
        w.complete(job, good, slot=(job.desc.slot + 1) % ring.entries)
    elif what == "another job's number":
        w.complete(job, good, job_id=job.id + 1)
    elif what == "another tag":
        w.complete(job, good, tag=job.id + 1)
    elif what == "another attempt":
        w.complete(job, good, attempt=2)
    elif what == "a response larger than its slot":
        w.complete(job, good, length=P.EXEC_SLOT_BYTES + 1)
    elif what == "a response larger than any":
        w.complete(job, good, length=P.size("vgpu_done") + P.REQ_MAX + 1)
    elif what == "a response that is no response":
        w.complete(job, b"", length=20)
    elif what == "a reserved field":
        w.complete(job, good, reserved=1)
    os.eventfd_write(job.ring.call, 1)


@pytest.mark.parametrize("what", [
    "complete_tail jumps", "complete_tail goes back", "a slot that does not exist",
    "a slot that is not in flight", "another job's number", "another tag", "another attempt",
    "a response larger than its slot", "a response larger than any", "a response that is no response",
    "a reserved field"])
def test_a_broken_job_ring_ends_the_executor(m, what):
    """Its job runs elsewhere; nobody else notices."""
    with m.worker("w0") as w0, m.stub("a") as s:
        s.request(*echo(b"x" * 64, inline=False))
        job = w0.job()
        break_ring(w0, job, what)
        kill = w0.link.wait("KILL_EXECUTOR")
        assert kill.fields.executor == 1 and kill.fields.reason == P.E["INTERNAL"]
        with m.worker("w1") as w1:
            w0.gone()
            w1.do_echo(w1.job())
            answer = s.answer()
            assert answer.error == 0 and answer.hdr.attempts == 2
            wait_for("nothing lingers", lambda: lingering(m) == 0)


def test_an_executor_that_outlives_its_channel(m):
    """It may still write: its supervisor is asked to end it, and the VM's reset waits for that."""
    with m.worker("w0") as w, m.stub("a") as s:
        s.request(*echo(b"x" * 64, inline=False))
        w.job()
        channel, w.channel = w.channel, None
        channel.close()
        kill = w.link.wait("KILL_EXECUTOR").fields
        assert (kill.executor, kill.reason) == (1, P.E["WORKER_LOST"])
        assert lingering(m) == 1
        w.link.send("EXECUTOR_GONE", executor=1, status=9)
        wait_for("nothing lingers", lambda: lingering(m) == 0)


def test_a_job_is_completed_once(m):
    with m.worker("w0") as w, m.stub("a") as s:
        s.request(*echo(b"x"))
        job = w.job()
        w.do_echo(job)
        assert s.answer().error == 0
        w.do_echo(job)
        s.request(*echo(b"y"))  # an idle executor's ring is not looked at
        assert w.link.wait("KILL_EXECUTOR").fields.executor == 1


def test_bytes_that_change_after_completion(m):
    """A response is checked on a private copy: what the executor writes later is nothing."""
    with m.worker("w0") as w, m.stub("a") as s:
        stop = threading.Event()

        def scribble(job):
            at = job.ring.ring.response_at(job.desc.slot) + P.size("vgpu_done")
            lie = P.response(job.request, 0, payload=b"y" * 8, size=9999, tag=3)
            while not stop.is_set():
                job.ring.ring.bytes[at : at + len(lie)] = lie

        for i in range(50):
            s.request(*echo(b"x" * 8))
            job = w.job()
            stop.clear()
            thread = threading.Thread(target=scribble, args=(job,))
            thread.start()
            w.do_echo(job)
            answer = s.answer()
            stop.set()
            thread.join()
            assert answer.error in (0, P.E["INTERNAL"])
            assert answer.hdr.size == P.size("vgpu_resp_hdr") + len(answer.payload)


def test_eventfds_that_an_executor_made_block(m):
    """The flags of an eventfd are shared: a full one that blocks must not hold the mediator up."""
    with m.worker("w0") as w, m.stub("a") as s:
        for _ in range(3):
            os.set_blocking(w.ring.kick, False)
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(w.ring.kick)
            os.eventfd_write(w.ring.kick, 2**64 - 2)
            os.set_blocking(w.ring.kick, True)
            os.set_blocking(w.ring.call, True)
            s.request(*echo(b"x"))
            w.do_echo(w.job())
            assert s.answer().error == 0
        s.request(P.request("INFO"))
        assert s.answer().error == 0


def test_results_in_the_ring_of_a_dead_executor_count(m):
    """It completed and was killed before it could ring."""
    with m.worker("w0") as w, m.stub("a") as s:
        s.request(*echo(b"last words"))
        job = w.job()
        response = P.response(job.request, 0, payload=b"last words")
        w.complete(job, response, ring=False)
        job.ring.ring.publish()
        w.gone()
        assert s.answer().payload == b"last words"


def test_long_jobs_keep_to_the_credits_quick_ones_do_not(tmp_path):
    with MediatorRig(tmp_path) as m, m.worker("w0", depth=3) as w, m.stub("a") as s:
        assert w.ring.fields.entries == 128

        def bound(run_ns, count):
            """How many of `count` requests the worker holds before it completes one."""
            for i in range(count):
                s.request(*echo(b"%3d" % i))
            jobs = [w.job() for _ in range(3)]
            with contextlib.suppress(TimeoutError):
                while len(jobs) < count:
                    jobs.append(w.job(limit_s=0.2))
            held = len(jobs)
            for i in range(count):
                w.done(jobs[i] if i < held else w.job(), payload=b"abc", run_ns=run_ns)
            assert all(s.answer().error == 0 for _ in range(count))
            return held

        assert bound(1000, 40) == 3
        assert bound(1000, 40) == 3  # 80 quick ones by now
        assert bound(10**6, 40) == 32
        assert bound(1000, 40) == 3, "one that took long ended it"


# ---- no worker, deadlines, full queues ----


def test_no_worker_before_the_deadline(m):
    with m.stub("a") as s:
        s.request(*echo(b"x"), deadline_ms=100)
        answer = s.answer()
        assert answer.error == P.E["NO_WORKER"] and "pool main" in answer.text


def test_worker_that_comes_in_time(m):
    with m.stub("a") as s:
        s.request(*echo(b"x"))
        assert s.wait("ACCEPT")
        with m.worker("w0") as w:
            w.do_echo(w.job())
            assert s.answer().error == 0


def test_deadline_while_all_workers_are_busy(m):
    with m.worker("w0") as w, m.stub("a") as a, m.stub("b") as b:
        a.request(*echo(b"x"))
        busy = w.job()
        b.request(*echo(b"y"), deadline_ms=100)
        assert b.answer().error == P.E["DEADLINE"]
        w.do_echo(busy)
        assert a.answer().error == 0


def test_deadline_of_a_running_job_cancels_it(m):
    with m.worker("w0") as w, m.stub("a") as s:
        s.request(*echo(b"x"), deadline_ms=150)
        job = w.job()
        assert s.answer().error == P.E["DEADLINE"]
        w.cancelled(job)


def test_op_or_dtype_that_nobody_offers(m):
    reduce = P.request("REDUCE", [(P.BUF_ARENA, P.IN, 0, 8), (P.BUF_ARENA, P.OUT, 64, 8)],
                       P.pack("vgpu_reduce", dtype=P.DTYPE["F64"], n=1, stride=1))
    with m.worker("w0", ops=1 << P.OP["REDUCE"], dtypes=1 << P.DTYPE["F32"]), m.stub("a") as s:
        s.request(*echo(b"x"))
        answer = s.answer()
        assert answer.error == P.E["UNSUPPORTED"] and "echo" in answer.text
        s.request(reduce, {0: b"\0" * 8})
        assert s.answer().error == P.E["UNSUPPORTED"]
        for op in (63, 64, 65535):
            s.request(P.request(op))
            assert s.answer().error == P.E["UNSUPPORTED"]
        with m.worker("w1") as w1:
            s.request(reduce, {0: b"\0" * 8})
            w1.done(w1.job(), outputs={1: b"\0" * 8})
            assert s.answer().error == 0


def test_full_queue_says_busy_and_when_to_come_back(tmp_path):
    pool = MediatorRig.plain_pool(["a", "b"], QUICK, tenant="max_queued: 2")
    with MediatorRig(tmp_path, yaml=pool) as m, m.worker("w0") as w, \
            m.stub("a") as a, m.stub("b") as b:
        a.request(*echo(b"1"))
        first = w.job()
        a.request(*echo(b"2"))
        wait_for("it waits", lambda: m.view("vms", "vm", "a")["queued"] == 1)
        b.request(*echo(b"3"))
        answer = b.answer()
        assert answer.error == P.E["BUSY"] and answer.hdr.retry_after_ms > 0 and "tenant t" in answer.text
        assert m.ask("queues")["tenants"][0]["refused"] == 1
        w.do_echo(first)
        assert a.answer().error == 0
        w.do_echo(w.job())
        assert a.answer().error == 0
        b.request(*echo(b"4"))
        w.do_echo(w.job())
        assert b.answer().error == 0


def test_byte_limits(tmp_path):
    pool = MediatorRig.plain_pool(["a", "b"], QUICK, tenant="max_bytes: 64K\nmax_request: 48K")
    with MediatorRig(tmp_path, yaml=pool) as m, m.worker("w0") as w, \
            m.stub("a") as a, m.stub("b") as b:
        a.request(*echo(b"x" * 40000, inline=False))  # and as much of output
        assert a.answer().error == P.E["TOO_LARGE"]
        a.request(*echo(b"x" * 20000, inline=False))
        job = w.job()
        b.request(*echo(b"x" * 20000, inline=False))
        assert b.answer().error == P.E["BUSY"]
        w.do_echo(job)
        assert len(a.answer().outputs[1]) == 20000


def test_pool_limit(tmp_path):
    pool = MediatorRig.plain_pool(["a", "b"], QUICK, pool="max_queued: 1")
    with MediatorRig(tmp_path, yaml=pool) as m, m.worker("w0") as w, \
            m.stub("a") as a, m.stub("b") as b:
        a.request(*echo(b"1"))
        job = w.job()
        b.request(*echo(b"2"))
        answer = b.answer()
        assert answer.error == P.E["BUSY"] and "pool" in answer.text
        w.do_echo(job)
        assert a.answer().error == 0


def test_accept_that_leaves_late_meets_a_full_pool(tmp_path):
    """The socket drains; one request is refused only now, behind the answer of another."""
    pool = MediatorRig.plain_pool(["a", "b"], QUICK, pool="max_queued: 1")
    with MediatorRig(tmp_path, yaml=pool) as m, m.stub("a") as a, m.stub("b") as b:
        b.request(*echo(b"fills the pool"))
        assert b.wait("ACCEPT")
        for _ in range(600):
            a.say("WISH", band=P.BAND_BATCH)
        a.request(*echo(b"waits for its ACCEPT to leave"))
        a.request(P.request("ECHO", version=99))
        m.wait_log("error=BAD_VERSION")
        assert {a.answer().error, a.answer().error} == {P.E["BUSY"], P.E["BAD_VERSION"]}
        a.request(P.request("INFO"))
        assert a.answer().error == 0


# ---- VMs that vanish, come back, reset ----


def test_connection_breaks_and_the_running_job_is_adopted(m):
    data = os.urandom(70000)
    with m.worker("w0") as w:
        s = m.stub("a", boot_id=5)
        request, inputs = echo(data, inline=False, flags=P.REQ_NO_RETRY)
        s.request(request, inputs)
        job = w.job()
        s.wait("ACCEPT")
        s.close()
        wait_for("the mediator saw it", lambda: not m.view("vms", "vm", "a")["connected"])
        with m.stub("a", boot_id=5) as again:
            again.request(request, inputs, seq=1, flags=P.REQUEST_AGAIN | P.REQUEST_ACCEPTED)
            again.wait("ACCEPT")
            w.do_echo(job)
            answer = again.answer(seq=1)
            assert answer.error == 0 and bytes(answer.outputs[1]) == data
            assert answer.hdr.attempts == 1
            again.request(*echo(b"next"))
            w.do_echo(w.job())
            assert again.answer().payload == b"next"


def test_job_that_ends_while_its_vm_is_away(m):
    with m.worker("w0") as w:
        s = m.stub("a", boot_id=5)
        request, inputs = echo(b"z" * 100, inline=False)
        s.request(request, inputs)
        job = w.job()
        s.close()
        wait_for("the mediator saw it", lambda: not m.view("vms", "vm", "a")["connected"])
        w.do_echo(job)
        m.wait_log("job answered")
        with m.stub("a", boot_id=5) as again:
            again.request(request, inputs, seq=1, flags=P.REQUEST_AGAIN | P.REQUEST_ACCEPTED)
            answer = again.answer(seq=1)
            assert answer.accepted and bytes(answer.outputs[1]) == b"z" * 100


def test_vm_that_does_not_come_back(tmp_path):
    with MediatorRig(tmp_path, mediator="heartbeat: 50ms\nreconnect: 100ms") as m, \
            m.worker("w0") as w:
        s = m.stub("a")
        s.request(*echo(b"x"))
        job = w.job()
        s.close()
        w.cancelled(job)
        w.done(job, error=P.E["CANCELLED"])
        wait_for("nothing lingers", lambda: lingering(m) == 0)


def test_queued_jobs_of_a_broken_connection_are_dropped(m):
    with m.worker("w0") as w, m.stub("b") as b:
        b.request(*echo(b"busy"))
        busy = w.job()
        with m.stub("a") as a:
            a.request(*echo(b"x"))
            wait_for("it waits", lambda: m.view("vms", "vm", "a")["queued"] == 1)
        wait_for("it is dropped", lambda: m.view("vms", "vm", "a")["queued"] == 0)
        w.do_echo(busy)
        assert b.answer().error == 0


def test_another_boot_drops_the_old_lifes_jobs(m):
    with m.worker("w0") as w:
        s = m.stub("a", boot_id=5)
        s.request(*echo(b"x"))
        job = w.job()
        s.close()
        wait_for("the mediator saw it", lambda: not m.view("vms", "vm", "a")["connected"])
        with m.stub("a", boot_id=6) as again:
            w.cancelled(job)
            again.request(*echo(b"new"))
            w.done(job, error=P.E["CANCELLED"])
            w.do_echo(w.job())
            assert again.answer().payload == b"new"


def test_mediator_restart(m):
    request, inputs = echo(b"r" * 100, inline=False)
    s = m.stub("a", boot_id=5)
    old = s.ack.mediator_gen
    with m.worker("w0") as w:
        s.request(request, inputs)
        w.job()
        m.kill()
    with pytest.raises((Gone, OSError)):
        s.wait_closed()
        raise Gone
    s.close()
    m.start()
    with m.worker("w0") as w, m.stub("a", boot_id=5) as again:
        assert again.ack.mediator_gen != old
        again.request(request, inputs, seq=1, flags=P.REQUEST_AGAIN | P.REQUEST_ACCEPTED)
        w.do_echo(w.job())
        assert bytes(again.answer(seq=1).outputs[1]) == b"r" * 100
        once, _ = echo(b"once", flags=P.REQ_NO_RETRY)
        again.request(once, seq=2, flags=P.REQUEST_AGAIN | P.REQUEST_ACCEPTED)
        assert again.answer(seq=2).error == P.E["BACKEND_RESTARTED"]
        again.request(once, seq=3, flags=P.REQUEST_AGAIN)  # never accepted: it never ran
        w.do_echo(w.job())
        assert again.answer(seq=3).error == 0


def test_reset_waits_for_the_last_writer(m):
    with m.worker("w0") as w, m.stub("a") as s:
        s.request(*echo(b"x" * 64, inline=False))
        job = w.job()
        s.wait("ACCEPT")
        s.epoch = 1
        s.say("RESET")
        w.cancelled(job)
        with pytest.raises(TimeoutError):
            s.wait("RESET_ACK", limit_s=0.2)
        w.done(job, error=P.E["CANCELLED"])
        assert s.wait("RESET_ACK")
        s.seq = 0
        s.request(*echo(b"new life"))
        w.do_echo(w.job())
        assert s.answer(seq=1).payload == b"new life"


def test_reset_with_a_writer_that_must_be_killed(m):
    with m.worker("w0") as w, m.stub("a") as s:
        s.request(*echo(b"x" * 64, inline=False))
        w.job()
        s.wait("ACCEPT")
        s.epoch = 1
        s.say("RESET")
        w.link.wait("KILL_EXECUTOR")
        w.gone()
        assert s.wait("RESET_ACK")


def test_messages_of_an_old_life_are_dropped_silently(m):
    with m.worker("w0") as w, m.stub("a") as s:
        s.epoch = 1
        s.say("RESET")
        s.wait("RESET_ACK")
        s.epoch = 0
        s.request(*echo(b"late"), seq=4)
        s.say("CANCEL", seq=4, reason=P.E["CANCELLED"])
        s.epoch = 1
        s.request(*echo(b"now"), seq=1)
        w.do_echo(w.job())
        assert s.answer(seq=1).payload == b"now"


def test_vm_that_does_not_read_harms_nobody(m):
    """Its answers are made as its socket drains, and its requests wait for their ACCEPT to leave."""
    sent = [os.urandom(100_000) for _ in range(40)]
    with m.worker("w0") as w, m.stub("a") as a, m.stub("b") as b:
        w.serve_echo()
        for data in sent:
            a.request(*echo(data, inline=False))
        for _ in range(20):
            b.request(*echo(b"fine"))
            assert b.answer().payload == b"fine"
        outputs = {}
        while len(outputs) < len(sent):
            answer = a.answer()
            assert answer.error == 0
            outputs[answer.seq] = bytes(answer.outputs[1])
        assert [outputs[i + 1] for i in range(len(sent))] == sent


def test_resets_do_not_fill_the_log(m):
    with m.stub("a") as s:
        for _ in range(500):
            s.epoch += 1
            s.say("RESET")
            s.wait("RESET_ACK")
        assert m.log().count("vm reset") < 250


def test_vm_that_floods_is_cut_off(m):
    with m.worker("w0") as w, m.stub("a") as a, m.stub("b") as b:
        w.serve_echo()
        with pytest.raises(OSError):
            for _ in range(10000):
                a.request(*echo(b"x" * 50_000, inline=False))
        m.wait_log("more unanswered requests than a VM may have")
        b.request(*echo(b"fine"))
        assert b.answer().payload == b"fine"


def test_kill_9_of_a_vm_again_and_again_leaks_nothing(m):
    def open_files():
        return len(os.listdir(f"/proc/{m.process.pid}/fd"))

    with m.worker("w0") as w:
        for round_ in range(15):
            s = FakeStub(m.socket("a"), boot_id=round_)
            s.request(*echo(os.urandom(50_000), inline=False))
            job = w.job()
            s.close()
            wait_for("it is gone", lambda: not m.view("vms", "vm", "a")["connected"])
            w.do_echo(job)
            if round_ == 0:
                first = open_files()
        assert open_files() <= first + 1

# SPDX-License-Identifier: MIT
"""Requests through rings, a real mediator and a real worker: every operation on every path, order,
cancelling, deadlines, limits, wrapping entries, and signals that are asked for."""

import os
import select
import signal

import numpy as np
import pytest
from mediator_rig import FakeStub
from ring import round_up
from shm_rig import LIMIT_S, P, Rig, case, private_kib, slow, wait_for
from worker_rig import SANITIZED

OPS = ["ECHO", "AXPY", "REDUCE", "GEMM", "FFT", "SORT", "DENOISE"]


@pytest.fixture(scope="module")
def m(tmp_path_factory):
    with Rig(tmp_path_factory.mktemp("m")) as rig:
        rig.start_worker("w0", threads=2)
        yield rig


@pytest.fixture
def vm(m):
    with m.vm("a") as v:
        yield v
        assert v.in_flight() == 0 and not any(ring.broken for ring in v.driver)
    wait_for("it is gone", lambda: not m.connected("a") and m.lingering("a") == 0)


@pytest.fixture
def held(tmp_path):
    """A mediator whose only worker is held up by another VM, until release() is called."""
    with Rig(tmp_path) as m:
        m.start_worker("w0", threads=1, depth=1)
        with m.vm("b") as other, m.vm("a") as vm:
            work = slow(other, side=700, search=12)
            tag = other.submit(work.request)
            m.wait_running()
            vm.release = lambda: other.submit(P.request("CANCEL", body=P.pack("vgpu_cancel", tag=tag)))
            yield m, vm
            vm.release()
            other.collect_all()


# ---- every operation on every path ----


def raw(array):
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).tobytes()


def inline_request(op, body, inputs, outputs):
    bufs, data, at = [], b"", 0
    start = P.inline_at(len(inputs) + len(outputs), len(body))
    for x in inputs:
        bufs.append((P.BUF_INLINE, P.IN, start + len(data), len(x)))
        data += x + bytes(-len(x) % 8)
    for size in outputs:
        bufs.append((P.BUF_INLINE, P.OUT, at, size))
        at += round_up(size, 8)
    return P.request(op, bufs, body, data)


def split(payload, outputs):
    parts, at = [], 0
    for size in outputs:
        parts.append(payload[at : at + size])
        at += round_up(size, 8)
    return parts


def arena_request(vm, op, body, inputs, outputs):
    bufs, at = [], 128
    for x in inputs:
        vm.put(at, x)
        bufs.append((P.BUF_ARENA, P.IN, at, len(x)))
        at += round_up(len(x), 64) + 64
    for size in outputs:
        vm.put(at - 64, b"\xa5" * (round_up(size, 64) + 128))
        bufs.append((P.BUF_ARENA, P.OUT, at, size))
        at += round_up(size, 64) + 64
    return P.request(op, bufs, body)


def arena_results(vm, request, inputs):
    """Outputs; inputs and the bytes around outputs are as they were."""
    results = []
    bufs = P.buffers(request)
    for buf, x in zip(bufs, inputs):
        assert vm.get(buf.offset, buf.length) == x, "an input changed"
    for buf in bufs[len(inputs) :]:
        results.append(vm.get(buf.offset, buf.length))
        end = buf.offset + buf.length
        assert set(vm.get(buf.offset - 64, 64) + vm.get(end, 64)) == {0xA5}, "written beside an output"
    return results


def socket_results(m, op, body, inputs, outputs):
    """On the socket path: inline, and through the arena."""
    with FakeStub(m.socket("b")) as s:
        s.request(inline_request(op, body, inputs, outputs))
        inline = split(s.answer().payload, outputs)
        bufs, at = [], 0
        for x in inputs:
            bufs.append((P.BUF_ARENA, P.IN, at, len(x)))
            at += round_up(len(x), 64)
        for size in outputs:
            bufs.append((P.BUF_ARENA, P.OUT, at, size))
            at += round_up(size, 64)
        s.request(P.request(op, bufs, body), dict(enumerate(inputs)))
        answer = s.answer()
        assert answer.error == 0, answer.text
    wait_for("it is gone", lambda: not m.connected("b"))
    return inline, [bytes(answer.outputs[len(inputs) + i]) for i in range(len(outputs))]


@pytest.mark.parametrize("op", OPS)
def test_every_operation_gives_the_same_bytes_on_every_path(m, vm, op):
    """Rings with inline and arena buffers, the windows over the same connection, the socket path. (Inline
    data are less aligned, for which FFTW takes other instructions: the last bit may differ from arena's.)"""
    body, inputs, wanted = case(op)
    inputs = [raw(x) for x in inputs]
    sizes = [len(inputs[0]) if w is None else w.nbytes for w in wanted]
    results = {}
    results["socket, inline"], results["socket, arena"] = socket_results(m, op, body, inputs, sizes)
    request = inline_request(op, body, inputs, sizes)
    answer = vm.call(request)
    assert answer.error == 0, answer.text
    assert answer.hdr.attempts == 1 and answer.hdr.worker and answer.hdr.run_ns > 0
    results["ring, inline"] = split(answer.payload, sizes)
    seq = vm.window(request)
    results["window, inline"] = split(vm.window_answer(seq).payload, sizes)
    request = arena_request(vm, op, body, inputs, sizes)
    answer = vm.call(request)
    assert answer.error == 0 and not answer.payload, answer.text
    results["ring, arena"] = arena_results(vm, request, inputs)
    request = arena_request(vm, op, body, inputs, sizes)
    seq = vm.window(request)
    assert vm.window_answer(seq).error == 0
    results["window, arena"] = arena_results(vm, request, inputs)
    for path, result in results.items():
        assert result == results["socket, " + path.split()[-1]], path
        for want, got in zip(wanted, result):
            if want is not None:
                got = np.frombuffer(got, want.dtype)
                assert np.allclose(got, want.reshape(-1), rtol=1e-5, atol=1e-5), path


def test_info(vm):
    info = P.unpack("vgpu_info", vm.call(P.request("INFO")).payload)
    assert (info.vm_id, info.pool_id, info.workers) == (1, 7, 1)
    assert info.vm.rstrip(b"\0") == b"a" and info.backends.rstrip(b"\0") == b"cpu"


def test_bulk_is_used_in_place(m, vm):
    """64 MiB through the arena: neither mediator nor executor makes a copy of it."""
    with m.vm("b", shm_size=256 << 20) as big:
        big.works()
        pids = (m.process.pid, m.executor_pid())
        before = [private_kib(pid) for pid in pids]
        block = os.urandom(1 << 20)
        data = b"".join(block[i:] + block[:i] for i in range(64))
        assert big.call(big.echo(data, at=1 << 20)).error == 0
        assert big.get((1 << 20) + len(data), len(data)) == data
        grown = [private_kib(pid) - kib for pid, kib in zip(pids, before)]
        assert max(grown) < 1024 or SANITIZED, f"KiB of mediator, executor: {grown}"
    wait_for("it is gone", lambda: not m.connected("b"))


@pytest.mark.parametrize("size", [4096, 4095, 48 + 48 + 1])
def test_requests_as_large_as_a_slot(vm, size):
    data = os.urandom(size - P.inline_at(2))
    answer = vm.call(vm.echo(data))
    assert answer.error == 0 and answer.payload == data


# ---- order ----


def test_completions_in_any_order(m, vm):
    work = slow(vm, side=500)
    long = vm.submit(work.request)
    m.wait_running()
    for i in range(20):
        answer = vm.call(vm.echo(bytes([i]) * 9))
        assert answer.payload == bytes([i]) * 9, "a small one overtakes"
    assert vm.collect().tag == long and work.done()


def test_ordered_waits_for_all_before_it(m, vm):
    works = [slow(vm, at=i << 20, side=200 + 100 * i) for i in range(3)]
    first = [vm.prepare(w.request) for w in works]
    last = vm.prepare(vm.echo(b"last", flags=P.REQ_ORDERED))
    vm.publish()
    order = [vm.collect().tag for _ in range(4)]
    assert set(order[:3]) == set(first) and order[3] == last
    assert all(w.done() for w in works)


def test_ordered_in_a_chain(vm):
    """Each reads what the one before wrote."""
    data = os.urandom(4096)
    vm.put(0, data)
    tags = []
    for i in range(30):
        bufs = [(P.BUF_ARENA, P.IN, i * 4096, 4096), (P.BUF_ARENA, P.OUT, (i + 1) * 4096, 4096)]
        vm.put((i + 1) * 4096, bytes(4096))
        tags.append(vm.prepare(P.request("ECHO", bufs, flags=P.REQ_ORDERED)))
    vm.publish()
    assert [vm.collect().tag for _ in tags] == tags
    assert vm.get(30 * 4096, 4096) == data


def failing(**header):
    """A request that the worker refuses."""
    body = P.pack("vgpu_reduce", dtype=P.DTYPE["F64"], n=3, stride=1)
    bufs = [(P.BUF_ARENA, P.IN, 0, 8), (P.BUF_ARENA, P.OUT, 64, 8)]
    return P.request("REDUCE", bufs, body, **header)


@pytest.mark.parametrize("bad, error", [
    (failing(), "BAD_SHAPE"), (P.request("ECHO", version=9), "BAD_VERSION"), (P.request(60), "UNSUPPORTED"),
])
def test_ordered_behind_a_failure(vm, bad, error):
    """DEPENDENCY for the ordered ones, until the ring was empty; the others are not concerned."""
    ordered = vm.echo(b"ordered", flags=P.REQ_ORDERED)
    for _ in range(2):
        tags = [vm.prepare(r) for r in (vm.echo(b"before"), bad, vm.echo(b"beside"), ordered, ordered,
                                        vm.echo(b"after"))]
        vm.publish()
        answers = vm.collect_all()
        errors = [answers[tag].error for tag in tags]
        assert errors == [0, P.E[error], 0, P.E["DEPENDENCY"], P.E["DEPENDENCY"], 0]
        assert answers[tags[3]].text
        assert vm.call(ordered).payload == b"ordered", "the ring was empty: a new start"


def test_order_counts_for_one_ring(m):
    with m.vm("b", rings=2) as vm:
        work = slow(vm)
        vm.submit(work.request, 0)
        m.wait_running()
        assert vm.call(vm.echo(b"other ring", flags=P.REQ_ORDERED), 1).payload == b"other ring"
        vm.submit(failing(), 0)
        same = vm.submit(vm.echo(b"same ring", flags=P.REQ_ORDERED), 0)
        other = vm.submit(vm.echo(b"other ring", flags=P.REQ_ORDERED), 1)
        answers = vm.collect_all()
        assert (answers[same].error, answers[other].error) == (P.E["DEPENDENCY"], 0) and work.done()
    wait_for("it is gone", lambda: not m.connected("b"))


# ---- cancel, deadline, limits ----


def cancel(tag):
    return P.request("CANCEL", body=P.pack("vgpu_cancel", tag=tag))


def test_cancel_what_runs(m, vm):
    work = slow(vm, side=900, search=12)
    tag = vm.submit(work.request)
    m.wait_running()
    asked = vm.submit(cancel(tag))
    answers = vm.collect_all()
    assert (answers[tag].error, answers[asked].error) == (P.E["CANCELLED"], 0)
    vm.put(work.out, b"\x5a" * work.size)
    assert vm.call(cancel(tag)).error == P.E["NOT_FOUND"]
    assert vm.call(vm.echo(b"go on")).error == 0
    assert vm.get(work.out, work.size) == b"\x5a" * work.size, "written after the completion"


def test_cancel_what_waits(held):
    _, vm = held
    tag = vm.submit(vm.echo(b"waits"))
    asked = vm.submit(cancel(tag))
    answers = vm.collect_all()
    assert (answers[tag].error, answers[asked].error) == (P.E["CANCELLED"], 0)


def test_deadline_while_it_waits(held):
    _, vm = held
    answer = vm.call(vm.echo(b"late", deadline_ms=100))
    assert answer.error == P.E["DEADLINE"] and answer.text


@pytest.mark.parametrize("op", ["INFO", "CANCEL"])
def test_deadline_of_what_the_mediator_answers(m, vm, op):
    """It waits only for those before it, and no longer than it may."""
    work = vm.submit(slow(vm, side=900, search=12).request)
    m.wait_running()
    body = P.pack("vgpu_cancel", tag=work) if op == "CANCEL" else b""
    answer = vm.call(P.request(op, body=body, flags=P.REQ_ORDERED, deadline_ms=100))
    assert answer.error == P.E["DEADLINE"] and answer.text
    vm.submit(cancel(work))
    assert vm.collect_all()[work].error == P.E["CANCELLED"]


def test_deadline_while_it_runs(m, vm):
    """The answer comes when the job can write no more."""
    work = slow(vm, side=900, search=12, deadline_ms=300)
    answer = vm.call(work.request)
    assert answer.error == P.E["DEADLINE"]
    vm.put(work.out, b"\x5a" * work.size)
    vm.works()
    assert vm.get(work.out, work.size) == b"\x5a" * work.size, "written after the completion"


def test_no_worker(tmp_path):
    with Rig(tmp_path) as m, m.vm("a") as vm:
        answer = vm.call(vm.echo(b"nobody there", deadline_ms=100))
        assert answer.error == P.E["NO_WORKER"] and "pool main" in answer.text
        tag = vm.submit(vm.echo(b"somebody comes"))
        m.start_worker("w0")
        assert vm.collect().tag == tag


def test_busy_and_when_to_come_back(tmp_path):
    pool = Rig.plain_pool(["a"], "heartbeat: 100ms", tenant="max_queued: 4")
    with Rig(tmp_path, yaml=pool) as m, m.vm("a") as vm:
        tags = [vm.prepare(vm.echo(bytes([i]))) for i in range(10)]
        vm.publish()
        refused = [vm.collect() for _ in range(6)]
        assert {a.error for a in refused} == {P.E["BUSY"]}
        assert all(a.hdr.retry_after_ms > 0 and "tenant t" in a.text for a in refused)
        m.start_worker("w0")
        answers = vm.collect_all()
        assert len(answers) == 4 and all(a.error == 0 for a in answers.values())
        assert {a.tag for a in refused} | set(answers) == set(tags)
        vm.works()


def test_a_whole_ring_at_once(vm):
    """As many as there are entries, again and again, each with its own bytes."""
    for _ in range(5):
        tags = {}
        while (slot := vm.prepare(vm.echo(data := os.urandom(40)))) is not None:
            tags[slot] = data
        assert len(tags) == vm.entries
        vm.publish()
        answers = vm.collect_all()
        assert {tag: a.payload for tag, a in answers.items()} == tags


def test_pools(tmp_path):
    text = ("version: 1\npools:\n  - {name: main, id: 7}\n  - {name: other, id: 9}\n"
            "  - {name: closed, id: 11}\nvms:\n  - {name: a, pools: [main, other]}\n")
    with Rig(tmp_path, yaml=text) as m:
        m.start_worker("w0")
        m.start_worker("w1", pool="other")
        with m.vm("a") as vm:
            ran = {pool: vm.call(vm.echo(b"x", pool=pool)).hdr.worker for pool in (0, 7, 9)}
            assert ran[0] == ran[7] != ran[9]
            assert vm.call(vm.echo(b"x", pool=11)).error == P.E["DENIED"]
            assert vm.call(vm.echo(b"x", pool=8)).error == P.E["NO_POOL"]
        wait_for("it is gone", lambda: not m.connected("a"))
        with m.vm("a", pool_wish=9) as vm:
            assert vm.ack.pool_id == 9 and vm.call(vm.echo(b"x")).hdr.worker == ran[9]


def test_bands_are_clamped(tmp_path):
    pool = Rig.plain_pool(["a"], vm="band: normal\nband_max: high")
    with Rig(tmp_path, yaml=pool) as m:
        m.start_worker("w0")
        with m.vm("a", band_wish=P.BAND_REALTIME) as vm:
            assert vm.ack.band == P.BAND_HIGH
            for wish, got in ((P.BAND_REALTIME, "high"), (P.BAND_DEFAULT, "high"),
                              (P.BAND_BATCH, "batch"), (P.BAND_NORMAL, "normal")):
                assert vm.call(vm.echo(b"x", band=wish)).error == 0
                assert m.ask("jobs", limit=1)["jobs"][0]["band"] == got
            vm.link.send("WISH", epoch=0, band=P.BAND_BATCH)
            assert vm.wait_message("STATE").fields.band == P.BAND_BATCH
            assert vm.call(vm.echo(b"x")).error == 0
            assert m.ask("jobs", limit=1)["jobs"][0]["band"] == "batch"


MALFORMED = {
    "version": (dict(version=2), "BAD_VERSION"),
    "reserved": (dict(reserved=(0, 0, 0, 1)), "RESERVED_SET"),
    "flags": (dict(flags=1 << 20), "RESERVED_SET"),
    "band": (dict(band=7), "BAD_PARAM"),
    "buffers": (dict(nbufs=17), "TOO_MANY_BUFFERS"),
    "body": (dict(body_len=4), "BAD_LENGTH"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_requests_are_answered(vm, name):
    fields, error = MALFORMED[name]
    answer = vm.call(vm.echo(b"x" * 16, **fields))
    assert answer.error == P.E[error] and answer.text
    assert vm.call(vm.echo(b"next")).payload == b"next"


ARENA_IN, ARENA_OUT = (P.BUF_ARENA, P.IN), (P.BUF_ARENA, P.OUT)


@pytest.mark.parametrize("bufs, error", [
    ([(*ARENA_IN, 0, 128), (*ARENA_OUT, 64, 128)], "OVERLAP"),
    ([(*ARENA_IN, 0, 128), (*ARENA_OUT, 0, 128)], "OVERLAP"),
    ([(*ARENA_IN, 0, 128), (*ARENA_OUT, 256, 128), (*ARENA_OUT, 320, 128)], "OVERLAP"),
    ([(*ARENA_IN, 0, 128), (*ARENA_OUT, 1 << 40, 128)], "BAD_BUFFER"),
    ([(*ARENA_IN, 0, 128), (*ARENA_OUT, (1 << 64) - 64, 128)], "BAD_BUFFER"),
    ([(*ARENA_IN, 0, (1 << 64) - 64), (*ARENA_OUT, 64, 128)], "BAD_BUFFER"),
    ([(*ARENA_IN, 32, 128), (*ARENA_OUT, 256, 128)], "MISALIGNED"),
    ([(*ARENA_IN, 0, 0), (*ARENA_OUT, 256, 128)], "BAD_LENGTH"),
    ([(P.BUF_GPA, P.IN, 0, 128), (*ARENA_OUT, 256, 128)], "BAD_BUFFER"),
    ([(P.BUF_OBJECT, P.IN, 0, 128), (*ARENA_OUT, 256, 128)], "UNSUPPORTED"),
])
def test_buffers_outside_their_space(vm, bufs, error):
    answer = vm.call(P.request("ECHO", bufs))
    assert answer.error == P.E[error] and answer.text


def test_the_last_bytes_of_the_arena(vm):
    """The end of the arena can be used, one byte behind it not."""
    at = vm.arena_size - 128
    vm.put(at, b"t" * 64)
    last = P.request("ECHO", [(*ARENA_IN, at, 64), (*ARENA_OUT, at + 64, 64)])
    assert vm.call(last).error == 0 and vm.get(at + 64, 64) == b"t" * 64
    over = P.request("ECHO", [(*ARENA_IN, at, 65), (*ARENA_OUT, 0, 65)])
    assert vm.call(over).error == 0
    over = P.request("ECHO", [(*ARENA_IN, 0, 65), (*ARENA_OUT, at + 64, 65)])
    assert vm.call(over).error == P.E["BAD_BUFFER"]


# ---- indices and signals ----


def test_indices_run_far_past_the_entries(m):
    """Ring of 16 entries, 8,000 requests, three rings: each answered once with its own bytes."""
    with m.vm("b", rings=3, entries=16) as vm:
        sent, got, each = {}, {}, 2700
        while len(got) < 3 * each:
            for ring in range(vm.rings):
                while vm.driver[ring].count < each and vm.driver[ring].free:
                    data = len(sent).to_bytes(8, "little") * 3
                    sent[vm.prepare(vm.echo(data), ring)] = data
                vm.publish(ring)
            _, answer = vm.wait_any()
            got[answer.tag] = answer.payload
        assert got == sent
        assert all(d.submit_tail == each > 100 * vm.entries for d in vm.driver)
    wait_for("it is gone", lambda: not m.connected("b"))


def test_who_polls_is_not_signalled(vm):
    """complete_event stays where it is: at most the first completion signals."""
    for _ in range(300):
        vm.submit(vm.echo(b"x"))
        wait_for("the answer", vm.poll)
    try:
        assert os.eventfd_read(vm.calls[0]) <= 1
    except BlockingIOError:
        pass


def test_signals_come_when_asked_for(vm):
    """Also for a later completion than the next."""
    driver = vm.driver[0]
    for i in range(50):
        count = 1 + i % 5
        tags = {vm.prepare(vm.echo(b"x")) for _ in range(count)}
        driver.store(driver.COMPLETE_EVENT, driver.complete_head + count - 1)
        vm.publish()
        assert select.select(vm.calls, [], [], LIMIT_S)[0], "no signal"
        os.eventfd_read(vm.calls[0])
        assert {vm.poll().tag for _ in range(count)} == tags, "signalled too early"


def test_what_was_submitted_while_asleep_is_served(m, vm):
    """A bell that rang while the mediator was stopped counts."""
    m.process.send_signal(signal.SIGSTOP)
    try:
        tags = {vm.submit(vm.echo(bytes([i]))) for i in range(20)}
    finally:
        m.process.send_signal(signal.SIGCONT)
    assert set(vm.collect_all()) == tags


def test_windows_and_rings_at_the_same_time(m, vm):
    seq = vm.window(vm.echo(b"window"))
    tag = vm.submit(vm.echo(b"ring"))
    assert vm.collect().tag == tag
    assert vm.window_answer(seq).payload == b"window"


def test_a_window_request_given_up_is_answered(m, vm):
    """On this path CANCEL is answered, when nobody writes any more."""
    work = slow(vm, side=900, search=12)
    seq = vm.window(work.request)
    m.wait_running()
    vm.link.send("CANCEL", seq=seq, reason=P.E["CANCELLED"])
    assert vm.window_answer(seq, LIMIT_S).error == P.E["CANCELLED"]
    vm.put(work.out, b"\x5a" * work.size)
    vm.works()
    assert vm.get(work.out, work.size) == b"\x5a" * work.size, "written after the answer"

# SPDX-License-Identifier: MIT
"""The ends and beginnings of the shared-memory path: resets, connections, mediators that die and are
started again, reloads. Who may write to a VM's memory is asked of the writers' pipe and of /proc."""

import os
import random
import signal

import pytest
from mediator_rig import FakeStub
from shm_rig import P, Rig, alive, mappings, slow, wait_for

SCRIBBLE = b"\x5a"


@pytest.fixture
def m(tmp_path):
    with Rig(tmp_path) as rig:
        rig.start_worker("w0", threads=1, depth=2)
        yield rig


@pytest.fixture
def vm(m):
    with m.vm("a", rings=2) as v:
        yield v


def stays(vm, work, doing):
    """Nothing is written to the output range of `work` while `doing` happens."""
    vm.put(work.out, SCRIBBLE * work.size)
    doing()
    assert vm.get(work.out, work.size) == SCRIBBLE * work.size, "somebody still writes"


# ---- resets ----


def test_reset_of_an_idle_device(vm):
    for _ in range(50):
        vm.reset()
    vm.works()


def test_reset_with_requests_in_flight(m, vm):
    """What ran and what waited is dropped: no completion, no write, and the numbers start again."""
    for round_ in range(5):
        work = slow(vm)
        vm.submit(work.request, ring=round_ % 2)
        for i in range(40):
            vm.submit(vm.echo(b"x" * 100, at=(4 << 20) + 4096 * i), ring=i % 2)
        if round_ % 2:
            m.wait_running()
        vm.reset()
        assert mappings(m.executor_pid()) <= 1
        stays(vm, work, lambda: [vm.works() for _ in range(10)])
        assert vm.driver[0].count == 20 and vm.driver[0].load(vm.driver[0].COMPLETE_TAIL) == 20


def test_reset_waits_for_a_writer_that_is_stopped(m, vm):
    work = slow(vm)
    vm.submit(work.request)
    m.wait_running()
    m.signal_worker("w0", signal.SIGSTOP)
    vm.start_reset()
    with pytest.raises(TimeoutError):
        vm.wait_reset(limit_s=2)
    m.signal_worker("w0", signal.SIGCONT)
    vm.wait_reset()
    stays(vm, work, lambda: (m.wait_worker(), vm.works()))


def zero_rings(m, vm, work=True):
    """The first half of a reset; the mediator looks at the rings before it hears of the other half."""
    if work:
        vm.works()
    before = m.view("vms", "vm", "a")["kicks"]
    vm.epoch += 1
    for ring in vm.driver:
        ring.zero()
        ring.restart()
    vm.kick()
    wait_for("it has looked", lambda: m.view("vms", "vm", "a")["kicks"] > before)


def test_rings_are_zero_before_reset_is_heard(m, vm):
    """Nobody broke anything."""
    for _ in range(5):
        zero_rings(m, vm)
        vm.link.send("RESET", epoch=vm.epoch)
        vm.wait_reset()
        assert "broke a ring" not in m.log()
    vm.works()


def test_rings_are_zero_before_a_reset_that_takes_long(m, vm):
    vm.works()
    vm.submit(slow(vm).request, ring=1)
    m.wait_running()
    m.signal_worker("w0", signal.SIGSTOP)
    vm.sent[1].clear()
    zero_rings(m, vm, work=False)
    vm.link.send("RESET", epoch=vm.epoch)
    with pytest.raises(TimeoutError):
        vm.wait_reset(limit_s=2)
    m.signal_worker("w0", signal.SIGCONT)
    vm.wait_reset()
    m.wait_worker()
    vm.works()
    assert "broke a ring" not in m.log()


def test_rings_are_zero_and_no_reset_comes(m, vm):
    """It was the guest itself."""
    zero_rings(m, vm)
    vm.epoch -= 1
    vm.wait_broken()
    vm.reset()
    vm.works()


def test_reset_of_a_broken_device_waits_for_a_writer(m, vm):
    """Nothing that is said meanwhile calls the new life broken."""
    vm.submit(slow(vm).request)
    m.wait_running()
    m.signal_worker("w0", signal.SIGSTOP)
    vm.driver[1].store(vm.driver[1].SUBMIT_TAIL, 1 << 30)
    vm.kick(1)
    vm.wait_broken()
    vm.start_reset()
    vm.link.send("WISH", epoch=vm.epoch, band=P.BAND_BATCH)
    state = vm.wait_message("STATE", lambda fields: fields.msg.epoch == vm.epoch)
    assert state.fields.broken == 0
    assert m.lingering() == 1, "the reset was over before the question"
    m.signal_worker("w0", signal.SIGCONT)
    vm.wait_reset()
    m.wait_worker()
    vm.works()


def test_reset_while_only_the_executor_is_stopped(m, vm):
    """Its supervisor ends it; the acknowledgement comes after that, not before."""
    work = slow(vm)
    vm.submit(work.request)
    m.wait_running()
    pid = m.executor_pid()
    os.kill(pid, signal.SIGSTOP)
    vm.start_reset()
    vm.wait_reset()
    assert not alive(pid), "acknowledged while the writer exists"
    stays(vm, work, lambda: (m.wait_worker(), vm.works()))


def test_many_resets_under_load(m, vm):
    """Each life's requests are numbered from 1, and none answers in another life."""
    noise = random.Random(1)
    before = m.descriptors()
    for _ in range(60):
        count = noise.randrange(1, 60)
        for i in range(count):
            vm.submit(vm.echo(os.urandom(64), at=4096 * i), ring=i % 2)
        for _ in range(noise.randrange(count)):
            vm.wait_any()
        vm.reset()
        assert vm.call(vm.echo(b"new life")).seq == 1 << 48 | 1
    m.wait_descriptors(before)


# ---- the writers' pipe ----


def test_pipe_hangs_up_after_the_connection(m, vm):
    vm.works()
    assert not vm.pipe_hung_up()
    vm.disconnect()
    vm.wait_hung_up()
    assert mappings(m.process.pid) == 0 and mappings(m.executor_pid()) == 0


def test_pipe_stays_up_while_a_job_may_write(m, vm):
    """The stub went away in the middle of a job; the pipe hangs up when the executor let go."""
    work = slow(vm)
    vm.submit(work.request)
    m.wait_running()
    m.signal_worker("w0", signal.SIGSTOP)
    executor = m.executor_pid()
    vm.disconnect()
    wait_for("the mediator saw it", lambda: not m.connected("a"))
    with pytest.raises(AssertionError):
        vm.wait_hung_up(limit_s=1.5)
    m.signal_worker("w0", signal.SIGCONT)
    vm.wait_hung_up()
    assert mappings(m.process.pid) == 0 and mappings(executor) == 0
    stays(vm, work, m.wait_worker)
    vm.connect()
    vm.collect_all()  # it went on from the in-flight area
    vm.works()


def test_a_stub_that_does_not_wait_for_the_pipe(m, vm):
    """It connects again and again while a stopped worker holds the memory of every connection: each costs
    the mediator that memory and its pipe, not its eventfds, and all of it is let go in the end."""
    before = m.descriptors()
    work = slow(vm, flags=P.REQ_NO_RETRY)
    for _ in range(6):
        tag = vm.submit(work.request)
        wait_for("it was started", lambda: P.INFLIGHT_STARTED in vm.inflight[64 + 64 * 2 :: 64])
        m.signal_worker("w0", signal.SIGSTOP)
        vm.disconnect()
        wait_for("the mediator saw it", lambda: not m.connected("a"))
        vm.connect()
        answer = vm.collect()
        assert (answer.tag, answer.error) == (tag, P.E["BACKEND_RESTARTED"])
        assert sum("eventfd" in d for d in m.descriptors()) <= sum("eventfd" in d for d in before)
        m.signal_worker("w0", signal.SIGCONT)
        m.wait_worker()
    wait_for("nothing lingers", lambda: m.lingering() == 0)
    m.wait_descriptors(before)
    vm.works()


def test_a_connection_that_breaks_is_taken_up(m, vm):
    """Queued and running requests survive a break of the socket: they are answered once, afterwards."""
    works = [slow(vm, at=i << 20, side=200) for i in range(3)]
    tags = {vm.submit(w.request, ring=i % 2) for i, w in enumerate(works)}
    m.wait_running()
    vm.reconnect()
    answers = vm.collect_all()
    assert set(answers) == tags and all(a.error == 0 for a in answers.values())
    assert all(w.done() for w in works)
    vm.works()


def test_no_retry_when_the_connection_breaks(m, vm):
    """It may have run: it is not run again, through a ring or the windows."""
    once = slow(vm, flags=P.REQ_NO_RETRY)
    window = slow(vm, at=2 << 20, flags=P.REQ_NO_RETRY)
    tag = vm.submit(once.request)
    seq = vm.window(window.request)
    wait_for("both run", lambda: m.view("vms", "vm", "a")["running"] == 2)
    vm.reconnect()
    vm.window(window.request, flags=P.REQUEST_AGAIN | P.REQUEST_ACCEPTED, seq=seq)
    answer = vm.collect()
    assert (answer.tag, answer.error) == (tag, P.E["BACKEND_RESTARTED"])
    assert vm.window_answer(seq).error == P.E["BACKEND_RESTARTED"]
    for work in (once, window):
        stays(vm, work, vm.works)


def test_window_request_when_the_connection_breaks(m, vm):
    """The stub sends it again when no writer is left; it runs again."""
    work = slow(vm)
    seq = vm.window(work.request)
    m.wait_running()
    vm.reconnect()
    vm.window(work.request, flags=P.REQUEST_AGAIN | P.REQUEST_ACCEPTED, seq=seq)
    assert vm.window_answer(seq).error == 0 and work.done()


def test_descriptors_of_a_vm_that_comes_and_goes(m, vm):
    vm.works()
    before = m.descriptors()
    for _ in range(25):
        vm.submit(slow(vm, side=100).request)
        vm.reconnect()
        vm.collect_all()
    m.wait_descriptors(before)


# ---- mediators that die ----


def start_again(m, vm):
    """Another mediator takes over; its VM comes when no writer is left."""
    m.start()
    vm.disconnect()
    vm.wait_hung_up()
    generation = vm.ack.mediator_gen
    vm.connect()
    assert vm.ack.mediator_gen != generation


def test_pipe_hangs_up_when_mediator_and_executor_have_ended(m, vm):
    work = slow(vm, side=700)
    vm.submit(work.request)
    m.wait_running()
    executor = m.executor_pid()
    m.signal_worker("w0", signal.SIGSTOP)
    m.kill()
    with pytest.raises(AssertionError):
        vm.wait_hung_up(limit_s=1)
    m.signal_worker("w0", signal.SIGCONT)
    vm.wait_hung_up()
    assert mappings(executor) == 0, "the pipe hung up before the writer was gone"
    stays(vm, work, lambda: wait_for("the executor has ended", lambda: not alive(executor)))


def test_next_mediator_goes_on(m, vm):
    """What waited runs, what ran runs again, what was not seen yet is taken; each is answered once."""
    works = [slow(vm, at=i << 20, side=300) for i in range(2)]
    running = [vm.submit(w.request) for w in works]
    m.wait_running()
    waiting = [vm.submit(vm.echo(bytes([i]) * 20), ring=i % 2) for i in range(20)]
    wait_for("they were taken", lambda: m.view("vms", "vm", "a")["queued"] >= 1)
    m.kill()
    new = [vm.submit(vm.echo(bytes([i]) * 20), ring=i % 2) for i in range(20)]
    start_again(m, vm)
    m.wait_worker()
    answers = vm.collect_all()
    assert set(answers) == {*running, *waiting, *new}
    assert all(a.error == 0 for a in answers.values())
    assert all(w.done() for w in works)
    for tags in (waiting, new):
        assert [answers[tag].payload for tag in tags] == [bytes([i]) * 20 for i in range(20)]
    vm.works()


def test_no_retry_across_mediators(tmp_path):
    """What may have run ends with BACKEND_RESTARTED; what cannot have runs."""
    with Rig(tmp_path) as m, m.vm("a", rings=2) as vm:
        m.start_worker("w0", threads=1, depth=1)
        work = slow(vm, flags=P.REQ_NO_RETRY)
        started = vm.submit(work.request)
        m.wait_running()
        waiting = vm.submit(vm.echo(b"waits", flags=P.REQ_NO_RETRY), ring=1)
        wait_for("it waits", lambda: m.view("vms", "vm", "a")["queued"] == 1)
        m.kill()
        start_again(m, vm)
        answer = vm.collect_all()
        assert answer[started].error == P.E["BACKEND_RESTARTED"] and answer[started].text
        assert (answer[waiting].error, answer[waiting].payload) == (0, b"waits")


def test_deadlines_go_on_across_mediators(tmp_path):
    with Rig(tmp_path) as m, m.vm("a") as vm:
        tag = vm.submit(vm.echo(b"x", deadline_ms=300))
        wait_for("it waits", lambda: m.view("vms", "vm", "a")["queued"] == 1)
        m.kill()
        start_again(m, vm)
        answer = vm.collect()
        assert answer.tag == tag and answer.error in (P.E["NO_WORKER"], P.E["DEADLINE"])


def test_ordered_across_mediators(m, vm):
    work = slow(vm)
    first = vm.prepare(work.request)
    last = vm.prepare(vm.echo(b"last", flags=P.REQ_ORDERED))
    vm.publish()
    m.wait_running()
    m.kill()
    start_again(m, vm)
    m.wait_worker()
    assert [vm.collect().tag, vm.collect().tag] == [first, last] and work.done()


def test_dependency_across_mediators(m, vm):
    """A failure that comes of the restart counts for those behind it, and only until the ring is empty."""
    ordered = vm.echo(b"ordered", flags=P.REQ_ORDERED)
    started = vm.prepare(slow(vm, flags=P.REQ_NO_RETRY).request)
    behind = [vm.prepare(ordered) for _ in range(2)]
    vm.publish()
    m.wait_running()
    m.kill()
    start_again(m, vm)
    m.wait_worker()
    answers = vm.collect_all()
    assert answers[started].error == P.E["BACKEND_RESTARTED"]
    assert [answers[tag].error for tag in behind] == [P.E["DEPENDENCY"]] * 2
    assert vm.call(ordered).payload == b"ordered"


def test_a_failure_that_a_dead_mediator_could_not_forget(vm):
    """It was killed between the last completion of a ring and the note that the ring is empty."""
    vm.works()
    vm.disconnect()
    vm.wait_hung_up()
    failed = P.size("vgpu_inflight") + P.offset("vgpu_inflight_ring", "failed")
    vm.inflight[failed : failed + 4] = (1).to_bytes(4, "little")
    vm.connect()
    assert vm.call(vm.echo(b"ordered", flags=P.REQ_ORDERED)).payload == b"ordered"


def test_a_reset_while_there_is_no_mediator(m, vm):
    """The in-flight area speaks of another life then: nothing of it is taken up."""
    work = slow(vm)
    vm.submit(work.request)
    m.wait_running()
    m.kill()
    vm.disconnect()
    vm.wait_hung_up()
    vm.epoch += 1
    for i, ring in enumerate(vm.driver):
        ring.zero()
        ring.restart()
        vm.sent[i].clear()
    m.start()
    vm.connect()
    m.wait_worker()
    stays(vm, work, vm.works)


def test_mediators_killed_again_and_again(m, vm):
    """At random moments of a stream of small requests: nothing is lost, nothing comes twice."""
    noise = random.Random(5)
    sent, got = {}, {}
    for _ in range(6):
        for _ in range(noise.randrange(50, 400)):
            for ring in range(2):
                while vm.driver[ring].free and noise.random() < 0.9:
                    data = os.urandom(24)
                    sent[vm.prepare(vm.echo(data), ring)] = data
                vm.publish(ring)
            while (answer := vm.poll(0) or vm.poll(1)) is not None:
                got[answer.tag] = answer.payload
                assert answer.error == 0
        m.kill()
        start_again(m, vm)
    m.wait_worker()
    got.update({tag: a.payload for tag, a in vm.collect_all().items()})
    assert got == sent
    assert vm.inflight[64 + 64 * 2 :: 64].strip(bytes([P.INFLIGHT_FREE, P.INFLIGHT_COMPLETING])) == b""
    vm.works()


@pytest.mark.parametrize("seed", range(12))
def test_an_in_flight_area_full_of_nonsense(m, vm, seed):
    """It is the stub's memory: the mediator refuses it or makes the best of it, and serves on."""
    vm.submit(slow(vm).request)
    m.wait_running()
    m.kill()
    noise = random.Random(seed)
    if seed % 3 == 0:
        vm.inflight[:] = noise.randbytes(len(vm.inflight))
    else:
        for _ in range(1 + 40 * (seed % 3)):
            at = noise.randrange(len(vm.inflight) // 4 if seed % 2 else 4) * 4
            vm.inflight[at : at + 4] = noise.choice([noise.randbytes(4), b"\xff" * 4, b"\1\0\0\0"])
    m.start()
    with m.vm("b") as bystander:
        m.wait_worker()
        bystander.works()
        vm.disconnect()
        vm.wait_hung_up()
        vm.send_hello()
        message = vm.link.wait("HELLO_ACK", "REFUSED")
        if message.name == "HELLO_ACK":
            vm.reset()
            vm.works()
        bystander.works()
    assert m.process.poll() is None and "fault:" not in m.log()


def test_a_broken_device_stays_broken(m, vm):
    """Whoever serves it: only a reset heals."""
    vm.works()
    ring = vm.driver[0]
    ring.store(ring.SUBMIT_TAIL, ring.submit_tail + 1000)
    vm.kick()
    vm.wait_broken()
    ring.store(ring.SUBMIT_TAIL, ring.submit_tail)  # as if nothing had been
    vm.reconnect()
    vm.wait_broken()
    m.kill()
    start_again(m, vm)
    vm.wait_broken()
    vm.reset()
    m.wait_worker()
    vm.works()


def test_many_vms_are_taken_over(tmp_path):
    names = [f"v{i}" for i in range(12)]
    with Rig(tmp_path, vms=names) as m:
        m.start_worker("w0", threads=1)
        vms = [m.vm(name, rings=1 + i % 3, entries=16) for i, name in enumerate(names)]
        sent = []
        for vm in vms:
            work = slow(vm, side=100)
            tags = {vm.submit(work.request)}
            tags |= {vm.submit(vm.echo(b"x" * 50), ring=i % vm.rings) for i in range(10)}
            sent.append((tags, work))
        m.kill()
        m.start()
        for vm, (tags, work) in zip(vms, sent):
            vm.disconnect()
            vm.wait_hung_up()
            vm.connect()
        m.wait_worker()
        for vm, (tags, work) in zip(vms, sent):
            answers = vm.collect_all()
            assert set(answers) == tags and not any(a.error for a in answers.values()) and work.done()
            vm.close()


def test_stopped_at_once(m, vm):
    """A second SIGTERM: what runs is cut off, the next mediator runs it again."""
    work = slow(vm)
    tag = vm.submit(work.request)
    m.wait_running()
    m.process.send_signal(signal.SIGTERM)
    assert vm.wait_message("STATE").fields.up == 0
    m.process.send_signal(signal.SIGTERM)
    m.process.wait(60)
    start_again(m, vm)
    m.wait_worker()
    assert vm.collect().tag == tag and work.done()


# ---- reload, removal, drain ----


def pool_of(vms):
    return Rig.plain_pool(vms, "heartbeat: 100ms\ncancel_grace: 500ms\nkill_grace: 300ms")


def test_reload_keeps_what_is_in_flight(m, vm):
    work = slow(vm)
    tag = vm.submit(work.request)
    m.wait_running()
    m.reload(pool_of(["a", "b", "c"]))
    assert vm.collect().tag == tag and work.done()
    with m.vm("c") as new:
        new.works()


def test_a_vm_is_removed(m, vm):
    """Its connection ends, its jobs are cancelled, its memory is let go."""
    before = m.descriptors()
    work = slow(vm)
    vm.submit(work.request)
    m.wait_running()
    with m.vm("b") as bystander:
        m.reload(pool_of(["b"]))
        vm.gone()
        vm.disconnect()
        vm.wait_hung_up()
        stays(vm, work, bystander.works)
    wait_for("its memory is let go", lambda: mappings(m.process.pid) == 0)
    assert len(m.descriptors()) < len(before)
    m.reload(pool_of(["a", "b"]))
    vm.connect()
    vm.collect_all()
    vm.works()


def test_drain(m, vm):
    """What runs is answered, what waits is left to the next mediator."""
    works = [slow(vm, at=i << 20, side=300) for i in range(3)]
    tags = [vm.submit(w.request) for w in works]
    m.wait_running()
    m.process.send_signal(signal.SIGTERM)
    assert vm.wait_message("STATE").fields.up == 0
    late = vm.submit(vm.echo(b"late"), ring=1)
    vm.gone()
    assert m.process.wait(60) == 0
    start_again(m, vm)
    m.wait_worker()
    answers = vm.collect_all()
    assert set(answers) == {*tags, late} and all(a.error == 0 for a in answers.values())
    assert all(w.done() for w in works)


def test_a_stub_that_changes_its_path(m, vm):
    """A VM that comes back on the socket path, and again with shared memory."""
    vm.works()
    vm.disconnect()
    vm.wait_hung_up()
    with FakeStub(m.socket("a"), boot_id=vm.boot_id) as s:
        s.request(P.request("INFO"))
        assert s.answer().error == 0
    wait_for("it is gone", lambda: not m.connected("a"))
    vm.boot_id += 1
    vm.inflight[:] = bytes(len(vm.inflight))
    for i, ring in enumerate(vm.driver):
        ring.zero()
        ring.restart()
        vm.sent[i].clear()
    vm.connect()
    vm.works()

# SPDX-License-Identifier: MIT
"""Start, reload, drain, stop of a real mediator, and sockets that are in the way."""

import json
import os
import signal
import socket
import subprocess
import time

import pytest
from mediator_rig import BIN, FakeStub, Gone, Link, MediatorRig, P, connect, echo, wait_for


@pytest.fixture
def m(tmp_path):
    with MediatorRig(tmp_path, vms=["a", "b"]) as rig:
        yield rig


def start_again(m, *arguments):
    return subprocess.run([BIN / "vgpu-mediator", "--config", m.pool_file, "--run-dir", m.run_dir,
                           *arguments], capture_output=True, text=True, timeout=60)


# ---- sockets ----


def test_a_live_socket_is_not_taken_over(m):
    done = start_again(m)
    assert done.returncode == 4 and f"socket in use by pid {m.process.pid}" in done.stderr
    with m.stub("a") as s:
        s.request(P.request("INFO"))
        assert s.answer().error == 0


def test_stale_sockets_of_a_dead_mediator_are_replaced(m):
    m.kill()
    assert m.socket("a").exists()
    m.start()
    with m.stub("a") as s:
        assert s.ack.up == 1


def test_sockets_are_removed_at_the_end(m):
    assert m.stop() == 0
    assert not m.socket("a").exists() and not (m.run_dir / "worker.sock").exists()


def test_modes(m):
    for path, mode in ((m.socket("a"), 0o600), (m.socket("a").parent, 0o700),
                       (m.run_dir / "worker.sock", 0o600), (m.run_dir / "admin.sock", 0o600)):
        assert os.stat(path).st_mode & 0o777 == mode, path


@pytest.mark.parametrize("prepare, complaint", [
    (lambda d: (d / "a").mkdir(mode=0o755), "may be entered by others"),
    (lambda d: (d / "a").write_text(""), "is not a directory"),
    (lambda d: ((d / "a").mkdir(mode=0o700), (d / "a" / "vgpu.sock").write_text("")), "not a socket"),
    (lambda d: (d / "a").symlink_to("/tmp"), "not a directory"),
    (lambda d: os.chmod(d, 0o777), "written to by others"),
])
def test_what_is_in_the_way(tmp_path, prepare, complaint):
    rig = MediatorRig(tmp_path, start=False)
    with rig:
        prepare(rig.run_dir)
        done = start_again(rig)
        assert done.returncode == 1 and complaint in done.stderr


def test_another_kind_of_socket_is_in_the_way(tmp_path):
    rig = MediatorRig(tmp_path, start=False)
    with rig, socket.socket(socket.AF_UNIX) as other:
        rig.socket("a").parent.mkdir(mode=0o700)
        other.bind(str(rig.socket("a")))
        other.listen()
        done = start_again(rig)
        assert done.returncode == 4 and "socket in use" in done.stderr


def test_invalid_pool_file_does_not_start(tmp_path):
    rig = MediatorRig(tmp_path, yaml="version: 1\nvms: 3\n", start=False)
    with rig:
        done = start_again(rig)
        assert done.returncode == 3 and "pool.yaml:2" in done.stderr


def test_json_log(tmp_path):
    with MediatorRig(tmp_path, arguments=("--log-format", "json")) as m:
        with m.stub("a"):
            pass
        wait_for("the end is logged", lambda: "vm connection ended" in m.log())
        events = [json.loads(line) for line in m.log().splitlines()]
        connected = next(e for e in events if e["message"] == "vm connected")
        assert connected["vm"] == "a" and connected["level"] == "info" and connected["pid"] == os.getpid()


def test_systemd_is_told(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "n"))
        notify.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
        with MediatorRig(tmp_path) as m:
            assert notify.recv(100) == b"READY=1"
            m.stop()
            assert notify.recv(100) == b"STOPPING=1"


# ---- reload ----


def test_reload_adds_and_removes_vms_and_keeps_what_runs(m):
    with m.worker("w0") as w, m.stub("a") as a, m.stub("b") as b:
        a.request(*echo(b"running"))
        job = w.job()
        log = m.reload(MediatorRig.plain_pool(["a", "c"]))
        assert "vm removed vm=b" in log
        b.wait_closed()
        assert not m.socket("b").exists()
        with m.stub("c") as c:
            assert c.ack.vm_id == 3, "numbers are not used again"
            w.do_echo(job)
            assert a.answer().payload == b"running"
            c.request(*echo(b"new"))
            w.do_echo(w.job())
            assert c.answer().error == 0


def test_reload_removes_a_vm_with_a_running_job(m):
    with m.worker("w0") as w, m.stub("a") as a, m.stub("b") as b:
        a.request(*echo(b"x" * 64, inline=False))
        job = w.job()
        m.reload(MediatorRig.plain_pool(["b"]))
        w.cancelled(job)
        a.wait_closed()
        w.done(job, error=P.E["CANCELLED"])
        b.request(*echo(b"fine"))
        w.do_echo(w.job())
        assert b.answer().error == 0
        m.reload(MediatorRig.plain_pool(["a", "b"]))
        with m.stub("a") as again:
            assert again.ack.vm_id == 3


def test_invalid_reload_keeps_the_old_configuration(m):
    with m.stub("a") as s:
        log = m.reload("version: 1\nvms:\n  - name: a\n    bnad: x\n")
        assert "did you mean 'band'" in log and "the old configuration stays" in log
        s.request(P.request("INFO"))
        assert s.answer().error == 0
        m.pool_file.unlink()
        before = len(m.log())
        m.process.send_signal(signal.SIGHUP)
        wait_for("it is refused", lambda: "reload refused" in m.log()[before:])
        s.request(P.request("INFO"))
        assert s.answer().error == 0


def test_reload_changes_limits_and_bands(m):
    with m.worker("w0") as w, m.stub("a") as s:
        m.reload(MediatorRig.plain_pool(["a"], vm="band: realtime", tenant="max_request: 4K",
                                        pool="bands:\n  realtime: {max_job: 123ms}"))
        state = s.wait("STATE").fields
        assert (state.band, state.up) == (P.BAND_REALTIME, 1)
        s.request(*echo(b"x"))
        job = w.job()
        assert (job.fields.band, job.fields.max_job_ms) == (P.BAND_REALTIME, 123)
        w.do_echo(job)
        assert s.answer().error == 0
        s.request(*echo(b"x" * 5000, inline=False))
        assert s.answer().error == P.E["TOO_LARGE"]


def test_reload_with_another_uuid_disconnects(m):
    with m.stub("a") as s:
        m.reload("version: 1\nvms:\n  - name: a\n"
                 "    uuid: 11111111-2222-3333-4444-555555555555\n")
        s.wait_closed()
    with m.stub("a", hello=False) as s:
        s.send_hello()
        assert s.wait("REFUSED").fields.reason == P.REFUSED_UNKNOWN_VM


def test_reload_moves_a_socket_to_where_another_was(m, tmp_path):
    def text(sockets):
        return "version: 1\nvms:\n" + "".join(
            f"  - name: {vm}\n    socket: {m.run_dir}/{place}/s\n" for vm, place in sockets)

    m.reload(text([("a", "x"), ("b", "y")]))
    log = m.reload(text([("a", "y"), ("b", "x")]))
    assert "refused" not in log and "result=ok" in log
    for place in ("x", "y"):
        with FakeStub(m.run_dir / place / "s") as s:
            s.request(P.request("INFO"))
            assert s.answer().error == 0


def test_a_long_reload_blames_nobody(tmp_path):
    """What workers sent while the pool file was read is read before they are judged."""
    quick = "heartbeat: 50ms"
    with MediatorRig(tmp_path, mediator=quick) as m, m.worker("w0") as w, m.stub("a") as s:
        s.request(*echo(b"running"))
        job = w.job()
        m.reload(MediatorRig.plain_pool(["a", *(f"v{i}" for i in range(3000))], quick))
        time.sleep(0.5)
        w.do_echo(job)
        answer = s.answer()
        assert answer.payload == b"running" and answer.hdr.attempts == 1
        assert "liveness" not in m.log()


def test_more_pools_than_there_is_room_for_change_nothing(m):
    """Removed pools keep their place; a file that does not fit is refused as a whole."""
    def text(round_):
        return ("version: 1\npools: [" +
                ", ".join(f"{{name: p{round_}-{i}, id: {i + 1}}}" for i in range(40)) +
                "]\nvms:\n  - name: a\n")

    m.reload(text(0))
    assert "too many pools" in m.reload(text(1))
    with m.worker("w0", pool="p0-0") as w, m.stub("a") as s:
        s.request(*echo(b"as before"))
        w.do_echo(w.job())
        assert s.answer().payload == b"as before"


def test_removed_pool_still_runs_what_it_has(tmp_path):
    def text(pools):
        return ("version: 1\npools: [" + ", ".join(f"{{name: {p}, id: {i}}}" for p, i in pools) +
                "]\nvms:\n  - name: a\n")

    with MediatorRig(tmp_path, yaml=text([("old", 1)])) as m, m.worker("w0", pool="old") as w, \
            m.stub("a") as s:
        s.request(*echo(b"1"))
        first = w.job()
        s.request(*echo(b"2"))
        wait_for("it waits", lambda: m.view("vms", "vm", "a")["queued"] == 1)
        m.reload(text([("new", 2)]))
        assert s.wait("ACCEPT", "STATE")
        w.do_echo(first)
        w.do_echo(w.job())
        assert [s.answer().error, s.answer().error] == [0, 0]
        with m.worker("w1", pool="new") as w1:
            s.request(*echo(b"3"))
            w1.do_echo(w1.job())
            assert s.answer().error == 0


# ---- the end ----


def test_drain_answers_what_runs(m):
    with m.worker("w0") as w, m.stub("a") as a, m.stub("b") as b:
        a.request(*echo(os.urandom(500_000), inline=False))
        job = w.job()
        b.request(*echo(b"waits"))
        wait_for("it waits", lambda: m.view("vms", "vm", "b")["queued"] == 1)
        m.process.send_signal(signal.SIGTERM)
        a.wait("ACCEPT")
        assert a.wait("STATE").fields.up == 0
        a.request(*echo(b"too late"))
        assert a.answer().error == P.E["BUSY"]
        w.do_echo(job)
        assert len(a.answer().outputs[1]) == 500_000
        assert m.process.wait(30) == 0
        b.wait("ACCEPT")
        assert b.wait("STATE").fields.up == 0
        b.wait_closed()  # not answered: the VM sends it to the next mediator


def test_drain_tells_what_may_not_be_sent_again(m):
    with m.worker("w0") as w, m.stub("a") as a, m.stub("b") as b:
        a.request(*echo(b"x"))
        job = w.job()
        b.request(*echo(b"once", flags=P.REQ_NO_RETRY))
        wait_for("it waits", lambda: m.view("vms", "vm", "b")["queued"] == 1)
        m.process.send_signal(signal.SIGTERM)
        assert b.answer().error == P.E["BUSY"]
        w.do_echo(job)
        assert a.answer().error == 0
        assert m.process.wait(30) == 0


def test_drain_is_bounded(tmp_path):
    with MediatorRig(tmp_path, mediator="heartbeat: 100ms\ndrain: 200ms") as m, \
            m.worker("w0") as w, m.stub("a") as s:
        s.request(*echo(b"x"))
        w.job()
        m.process.send_signal(signal.SIGTERM)
        assert m.process.wait(30) == 0
        assert "not drained in time" in m.log()


def test_second_signal_stops_at_once(m):
    with m.worker("w0") as w, m.stub("a") as s:
        s.request(*echo(b"x"))
        w.job()
        m.process.send_signal(signal.SIGTERM)
        s.wait("ACCEPT")
        s.wait("STATE")
        m.process.send_signal(signal.SIGTERM)
        assert m.process.wait(30) == 0
        assert "stopping at once" in m.log()


# ---- workers come and go ----


def test_worker_keeps_its_number_and_counters(m):
    with m.stub("a") as s:
        for n in (1, 2, 3):
            with m.worker("w0") as w:
                assert w.ack.worker_id == 1 and w.ack.heartbeat_ms == 100
                s.request(*echo(b"x"))
                w.do_echo(w.job())
                assert s.answer().error == 0
            wait_for("it is gone", lambda: m.view("workers", "worker", "w0")["state"] == "gone")
            assert m.view("workers", "worker", "w0")["done"] == n


def test_draining_worker_gets_nothing_new(m):
    with m.worker("w0") as w0, m.stub("a") as s:
        s.request(*echo(b"1"))
        first = w0.job()
        w0.link.send("DRAIN")
        m.wait_log("worker drains")
        s.request(*echo(b"2"))
        w0.do_echo(first)
        assert s.answer().payload == b"1"
        with m.worker("w1") as w1:
            w1.do_echo(w1.job())
            assert s.answer().payload == b"2"


def test_a_new_executor_takes_over_while_the_old_one_ends(m):
    with m.worker("w0") as w, m.stub("a") as a, m.stub("b") as b:
        a.request(*echo(b"old"))
        old, job = w.channel, w.job()
        w.new_executor()
        b.request(*echo(b"new"))
        w.do_echo(w.job())
        assert b.answer().payload == b"new"
        w.complete(job, P.response(job.request, 0, payload=b"old"))
        assert a.answer().payload == b"old"
        old.close()
        w.link.send("EXECUTOR_GONE", executor=1, status=0)
        a.request(P.request("INFO"))
        assert a.answer().error == 0


def test_too_many_workers_are_turned_away(tmp_path):
    with MediatorRig(tmp_path, mediator="heartbeat: 100ms\nmax_workers: 2") as m, \
            m.worker("w0"), m.worker("w1"):
        link = Link(connect(m.run_dir / "worker.sock"))
        with pytest.raises(Gone):
            link.receive()
        link.close()


def test_both_sides_send_heartbeats(m):
    with m.worker("w0") as w:
        for link in (w.link, w.channel):
            assert [link.receive().name for _ in range(3)] == ["HEARTBEAT"] * 3


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give it up")
def test_root_is_given_up(tmp_path):
    with MediatorRig(tmp_path, arguments=("--user", "nobody"), start=False) as m:
        os.chmod(m.run_dir, 0o755)
        m.start()
        with open(f"/proc/{m.process.pid}/status") as status:
            uid = next(line for line in status if line.startswith("Uid:")).split()
        assert uid[1] == uid[2] == "65534"
        assert os.stat(m.socket("a")).st_uid == 65534
        with m.stub("a", hello=False) as s:  # root is not the VM's user
            s.send_hello()
            assert s.wait("REFUSED").fields.reason == P.REFUSED_PEER
    done = subprocess.run([BIN / "vgpu-mediator", "--config", "/dev/null", "--user", "no-such-user"],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "no-such-user" in done.stderr

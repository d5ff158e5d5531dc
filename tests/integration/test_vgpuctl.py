# SPDX-License-Identifier: MIT
"""vgpuctl against a socket that plays the mediator: exit codes, errors that teach, --json."""
import json
import os
import socket
import subprocess
import threading

import pytest

VGPUCTL = os.path.join(os.environ["VGPU_BIN"], "vgpuctl")


def run(*args, **env):
    return subprocess.run([VGPUCTL, *args], capture_output=True, text=True, timeout=60,
                          env={**os.environ, **env})


@pytest.fixture
def mediator(tmp_path):
    """Answers one question per connection with `answers`, as raw bytes, and notes the questions."""
    path = str(tmp_path / "admin.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    state = type("Mediator", (), {"path": path, "answers": [], "questions": []})()

    def serve():
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer, peer.makefile("rb") as lines:
                state.questions.append(json.loads(lines.readline()))
                for part in state.answers.pop(0):
                    peer.sendall(part)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield state
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)


def test_table_and_json(mediator):
    answer = b'{"schema":"vgpu.jobs/1","jobs":[{"vm":"vm-a","op":"echo","seq":7}]}\n'
    mediator.answers = [[answer], [answer[:20], answer[20:]]]
    table = run("--admin", mediator.path, "jobs", "--limit", "5")
    assert table.returncode == 0 and "vm-a" in table.stdout and "TRIES" in table.stdout
    raw = run("jobs", "--json", VGPU_ADMIN=mediator.path)
    assert json.loads(raw.stdout) == json.loads(answer)
    assert mediator.questions == [{"command": "jobs", "limit": 5}, {"command": "jobs"}]


def test_run_dir_as_mediator_and_worker_have_it(mediator):
    mediator.answers = [[b'{"schema":"vgpu.jobs/1","jobs":[]}\n']]
    done = run("--run-dir", os.path.dirname(mediator.path), "jobs")
    assert (done.returncode, done.stdout) == (0, "no jobs yet\n")
    assert run("--run-dir", "x" * 5000, "jobs").returncode == 2
    assert run("--run-dir", "x" * 500, "jobs").returncode == 3


def test_numbers_are_short(mediator):
    mediator.answers = [[b'{"schema":"vgpu.jobs/1","jobs":[],"x":8.4109320000000007}\n']]
    assert '"x":8.410932}' in run("--admin", mediator.path, "--json", "jobs").stdout


@pytest.mark.parametrize("answer, message", [
    (b'{"schema":"vgpu.error/1","error":"no such command"}\n', "no such command"),
    (b"HTTP/1.1 400 Bad Request\n", "is that an admin socket?"),
])
def test_refused(mediator, answer, message):
    mediator.answers = [[answer]]
    done = run("--admin", mediator.path, "vms")
    assert done.returncode == 4 and message in done.stderr and done.stdout == ""


def test_answer_cut_off(mediator):
    mediator.answers = [[b'{"schema":']]
    assert run("--admin", mediator.path, "vms").returncode == 3


def test_no_mediator(tmp_path):
    done = run("--admin", str(tmp_path / "none.sock"), "queues")
    assert done.returncode == 3 and "is vgpu-mediator running" in done.stderr
    stale = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(stale))
    done = run("--admin", str(stale), "queues")
    assert done.returncode == 3 and "is gone" in done.stderr


@pytest.mark.parametrize("args", [[], ["nonsense"], ["queues", "vms"], ["jobs", "--limit", "0"],
                                  ["jobs", "--limit", "-1"], ["queues", "--watch=x"], ["--what"]])
def test_wrong_usage(args):
    done = run(*args)
    assert done.returncode == 2 and "vgpuctl" in done.stderr and done.stdout == ""


def test_help():
    done = run("--help")
    assert done.returncode == 0 and "Examples:" in done.stdout

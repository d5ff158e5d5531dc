# SPDX-License-Identifier: MIT
"""What may go wrong around the device: mediators that die, lie or come late; resets; cancels."""

import os
import socket
import struct
import time

import pytest

from stub_rig import *  # noqa: F403
from stub_rig import Rig, rig  # noqa: F401

ACK = dict(version=P.LOCAL_VERSION_MAX, band=1, up=1, deadline_ms=1000, max_bytes=1 << 20, mediator_gen=5)


def in_flight(rig, **header):
    """A connected mediator that has the one request, not accepted yet."""
    m = rig.connected()
    rig.dev.submit(echo_arena(4096, sink=8192, **header))
    return m, m.request()


def test_a_mediator_that_dies_gets_the_request_again_under_its_number(rig):
    data = os.urandom(4096)
    rig.vm.write(rig.dev.arena, data)
    m, request = in_flight(rig)
    m.send("ACCEPT", seq=request.seq)
    if not rig.shm:
        m.send("DATA", seq=request.seq, buffer=1, offset=0, tail=b"half of a result")
    m = rig.mediator(gen=99)
    wait_for("BACKEND_UP gone", lambda: not rig.dev.up())
    assert rig.dev.state() == P.STATUS_BUSY
    hello = m.hello()
    assert hello.conn_gen == 2
    again = m.serve_echo()
    assert again.seq == request.seq and again.bytes == request.bytes and again.inputs[0] == data
    assert again.flags == P.REQUEST_AGAIN | P.REQUEST_ACCEPTED
    assert again.deadline_left_ms <= request.deadline_left_ms
    assert rig.dev.wait_end()[0] == 0
    assert rig.vm.read(rig.dev.arena + 8192, 4096) == data
    assert rig.dev.reg("BACKEND_GEN") == 99


def test_a_request_that_was_not_accepted_says_so_when_it_comes_again(rig):
    m, _ = in_flight(rig, flags=P.REQ_NO_RETRY)
    m = rig.mediator(gen=99)
    m.hello()
    assert m.serve_echo().flags == P.REQUEST_AGAIN
    assert rig.dev.wait_end()[0] == 0


def test_no_retry_ends_when_another_mediator_comes(rig):
    m, request = in_flight(rig, flags=P.REQ_NO_RETRY)
    m.send("ACCEPT", seq=request.seq)
    m = rig.mediator(gen=99)
    m.hello()
    assert rig.dev.wait_end()[0] == P.E["BACKEND_RESTARTED"]
    assert m.silent(0.2)
    rig.dev.submit(echo_inline(b"next"))
    assert m.serve_echo().seq == request.seq + 1


def test_no_retry_goes_back_to_the_same_mediator(rig):
    m, request = in_flight(rig, flags=P.REQ_NO_RETRY)
    m.send("ACCEPT", seq=request.seq)
    m.drop()
    m.hello()
    again = m.serve_echo()
    assert again.flags == P.REQUEST_AGAIN | P.REQUEST_ACCEPTED
    assert rig.dev.wait_end()[0] == 0


def test_a_request_rung_without_a_mediator_is_served_by_the_first_that_comes(rig):
    rig.dev.submit(echo_inline(b"patience"))
    m = rig.mediator()
    m.hello()
    assert m.serve_echo().flags == 0
    assert rig.dev.wait_end()[0] == 0


def test_deadline_with_a_dead_mediator(rig):
    m, _ = in_flight(rig, deadline_ms=500)
    rig.mediators.pop().close()
    rig.path.unlink()
    assert rig.dev.wait_end()[0] == P.E["NO_BACKEND"]
    m = rig.connected()
    assert m.silent(0.2)


@on("socket")
def test_data_after_the_deadline_does_not_change_the_arena(rig):
    rig.vm.write(rig.dev.arena + 8192, b"\x5a" * 4096)
    m, request = in_flight(rig, deadline_ms=300)
    m.send("ACCEPT", seq=request.seq)
    assert rig.dev.wait_end()[0] == P.E["DEADLINE"]
    cancel, _ = m.expect("CANCEL")
    assert cancel.seq == request.seq and cancel.reason == P.E["DEADLINE"]
    m.answer(request, outputs={1: b"\xff" * 4096})
    rig.dev.submit(echo_arena(64, source=0, sink=1 << 20))  # proves that all of it was read
    m.serve_echo()
    error, response = rig.dev.wait_end()
    assert error == 0 and P.unpack("vgpu_resp_hdr", response).seq == request.seq + 1
    assert rig.vm.read(rig.dev.arena + 8192, 4096) == b"\x5a" * 4096


@on("socket")
def test_cancel_answers_at_once_and_tells_the_mediator(rig):
    m, request = in_flight(rig, tag=12)
    rig.dev.write_reg("CONTROL", P.CONTROL_CANCEL)
    error, response = rig.dev.wait_end()
    assert error == P.E["CANCELLED"] and P.unpack("vgpu_resp_hdr", response).tag == 12
    cancel, _ = m.expect("CANCEL")
    assert cancel.seq == request.seq and cancel.reason == P.E["CANCELLED"]
    m.answer(request, outputs={1: b"\xff" * 4096})
    rig.dev.submit(echo_inline(b"next"))
    m.serve_echo()
    assert rig.dev.wait_end()[0] == 0
    assert rig.vm.read(rig.dev.arena + 8192, 4096) == bytes(4096)


def test_cancel_with_nothing_in_flight_or_nothing_sent(rig):
    rig.dev.write_reg("CONTROL", P.CONTROL_CANCEL)
    assert rig.dev.state() == P.STATUS_IDLE
    rig.dev.submit(echo_inline(b"nobody has it"))
    rig.dev.write_reg("CONTROL", P.CONTROL_CANCEL)
    assert rig.dev.wait_end()[0] == P.E["CANCELLED"]
    m = rig.connected()
    assert m.silent(0.2)


@on("socket")
def test_cancel_while_inputs_flow_stops_them(rig):
    m = rig.connected()
    rig.dev.submit(echo_arena(24 << 20))
    m.expect("REQUEST")
    rig.dev.write_reg("CONTROL", P.CONTROL_CANCEL)
    rig.dev.submit(echo_inline(b"next"))
    sent, name = 0, "DATA"
    while name == "DATA":
        name, fields, tail = m.receive()
        sent += len(tail)
    assert name == "CANCEL" and fields.seq == 1 and sent < 24 << 20
    assert m.serve_echo().seq == 2
    assert rig.dev.wait_end()[0] == 0


# ---- reset ---------------------------------------------------------------------------------


def test_reset_waits_for_the_mediator_and_refuses_doorbells_until_then(rig):
    m, request = in_flight(rig)
    epoch = rig.dev.reg("RESET_EPOCH")
    rig.dev.write_reg("CONTROL", P.CONTROL_RESET)
    status = rig.dev.reg("STATUS")
    assert status == P.STATUS_RESETTING | P.STATUS_IDLE
    assert rig.dev.reg("RESET_EPOCH") == epoch + 1 and rig.dev.reg("REQUEST_LEN") == 0
    rig.dev.submit(echo_inline(b"too early"))
    assert rig.dev.reg("REJECTS") == 1 and rig.dev.reg("REJECT_ERROR") == P.E["BUSY"]
    reset, _ = m.expect("RESET")
    assert reset.msg.epoch == epoch + 1
    m.answer(request, outputs={} if rig.shm else {1: b"\xff" * 4096})  # of the old life
    m.send("RESET_ACK")  # still the old epoch: says nothing about this reset
    m.epoch = epoch + 1
    time.sleep(0.1)
    assert rig.dev.reg("STATUS") == P.STATUS_RESETTING
    m.send("RESET_ACK")
    wait_for("the reset ends", rig.dev.up)
    assert rig.dev.reg("STATUS") == P.STATUS_BACKEND_UP
    assert rig.vm.read(rig.dev.arena + 8192, 4096) == bytes(4096)
    rig.dev.submit(echo_inline(b"new life"))
    again = m.serve_echo()
    assert again.seq == 1 and again.epoch == epoch + 1
    assert rig.dev.wait_end()[0] == 0


def test_a_system_reset_is_a_new_life_too(rig):
    m, request = in_flight(rig)
    epoch = rig.dev.reg("RESET_EPOCH")
    rig.dev.write_reg("PRIORITY", 3)
    m.expect("WISH")
    rig.vm.command("system_reset")
    reset, _ = m.expect("RESET")
    assert reset.msg.epoch == epoch + 1
    assert m.expect("WISH")[0].band == P.BAND_DEFAULT
    m.answer(request, outputs={} if rig.shm else {1: b"\xff" * 4096})
    m.epoch = epoch + 1
    m.send("RESET_ACK")
    rig.dev.program()
    wait_for("the reset ends", rig.dev.up)
    assert rig.dev.state() == P.STATUS_IDLE and rig.dev.reg("RESET_EPOCH") == epoch + 1
    assert rig.vm.read(rig.dev.arena + 8192, 4096) == bytes(4096)


def test_a_reset_without_a_mediator_is_done_at_once(rig):
    rig.dev.submit(echo_inline(b"lost"))
    epoch = rig.dev.reg("RESET_EPOCH")
    rig.dev.write_reg("CONTROL", P.CONTROL_RESET)
    assert rig.dev.reg("STATUS") == P.STATUS_IDLE
    m = rig.mediator()
    assert m.hello().msg.epoch == epoch + 1
    assert m.silent(0.2)


def test_a_reset_between_hello_and_its_answer(rig):
    m = rig.mediator()
    m.accept()
    hello, _ = m.expect("HELLO")
    rig.dev.write_reg("CONTROL", P.CONTROL_RESET)
    m.send("HELLO_ACK", epoch=hello.msg.epoch, features=hello.features, **ACK)
    reset, _ = m.expect("RESET")
    assert reset.msg.epoch == hello.msg.epoch + 1 and not rig.dev.up()
    m.send("RESET_ACK", epoch=reset.msg.epoch)
    wait_for("the reset ends", rig.dev.up)


def test_a_mediator_that_dies_during_a_reset_ends_it(rig):
    m, _ = in_flight(rig)
    rig.dev.write_reg("CONTROL", P.CONTROL_RESET)
    m.drop()
    wait_for("the reset ends", lambda: rig.dev.reg("STATUS") == P.STATUS_IDLE)
    m.hello()
    wait_for("BACKEND_UP", rig.dev.up)


def test_many_resets_in_a_row(rig):
    m = rig.connected()
    epoch = rig.dev.reg("RESET_EPOCH")
    for _ in range(200):
        rig.dev.write_reg("CONTROL", P.CONTROL_RESET)
    last = 0
    while last < epoch + 200:
        last = m.expect("RESET")[0].msg.epoch
    m.send("RESET_ACK", epoch=epoch + 199)
    m.send("RESET_ACK", epoch=epoch + 200)
    wait_for("the reset ends", rig.dev.up)


# ---- mediators that break the protocol ------------------------------------------------------


def frame(name, length=None, magic=None, reserved=0, **values):
    data = bytearray(P.message(name, **values))
    if length is not None:
        struct.pack_into("<I", data, P.offset("vgpu_msg", "length"), length)
    if magic is not None:
        struct.pack_into("<I", data, P.offset("vgpu_msg", "magic"), magic)
    struct.pack_into("<H", data, P.offset("vgpu_msg", "reserved"), reserved)
    return bytes(data)


def bad_welcomes(offered):
    ack = dict(ACK, features=offered)
    return [
        ("nothing but a byte", b"x"),
        ("half a header", frame("HELLO_ACK", **ack)[:10]),
        ("half a HELLO_ACK", frame("HELLO_ACK", **ack)[:40]),
        ("a wrong length", frame("HELLO_ACK", length=9999, **ack)),
        ("a wrong magic", frame("HELLO_ACK", magic=1, **ack)),
        ("reserved header bits", frame("HELLO_ACK", reserved=1, **ack)),
        ("trailing bytes", P.message("HELLO_ACK", tail=b"12345678", **ack)),
        ("an unknown version", P.message("HELLO_ACK", **dict(ack, version=P.LOCAL_VERSION_MAX + 1))),
        ("another data path", P.message("HELLO_ACK", **dict(ack, features=1 - offered))),
        ("features that were not offered", P.message("HELLO_ACK", **dict(ack, features=offered | 2))),
        ("an unknown band", P.message("HELLO_ACK", **dict(ack, band=4))),
        ("up that is neither 0 nor 1", P.message("HELLO_ACK", **dict(ack, up=2))),
        ("no deadline", P.message("HELLO_ACK", **dict(ack, deadline_ms=0))),
        ("reserved fields", P.message("HELLO_ACK", **dict(ack, reserved2=1))),
        ("RESPONSE before HELLO_ACK", P.message("RESPONSE", seq=1)),
        ("a stub's own message", P.message("HELLO")),
        ("a worker's message", P.message("HEARTBEAT")),
        ("a type that does not exist", frame("RESET")[:4] + b"\xee\xee" + frame("RESET")[6:]),
        ("a datagram that is too long", P.message("REFUSED", tail=bytes(P.MSG_MAX), reason=1)),
    ]


def test_bad_welcomes_drop_the_connection_and_the_device_lives(rig):
    m = rig.mediator()
    for what, data in bad_welcomes(P.LOCAL_FEATURE_SHM if rig.shm else 0):
        m.accept()
        m.expect("HELLO")
        m.send_raw(data)
        assert m.closed_by_stub(), what
        assert not rig.dev.up(), what
        m.drop()
    m.hello()
    wait_for("BACKEND_UP", rig.dev.up)
    assert "protocol error of the mediator" in rig.vm.output()


def test_a_mediator_that_never_answers_is_reported_once(rig):
    """As one does that is older than the device, and closes on what it does not know."""
    m = rig.mediator()
    for _ in range(5):
        m.accept()
        m.expect("HELLO")
        m.drop()
    m.hello()
    wait_for("BACKEND_UP", rig.dev.up)
    assert rig.vm.output().count("closes the connection without an answer") == 1


def test_a_socket_that_nobody_serves_is_reported_once(rig):
    wait_for("the operator is told", lambda: "nobody serves" in rig.vm.output())
    assert f"nobody serves {rig.path}: No such file or directory; the VM runs on" in rig.vm.output()
    rig.connected()
    assert rig.vm.output().count("nobody serves") == 1


def bad_answers(request, shm):
    seq = request.seq
    good = P.response(request.bytes, seq)
    response = dict(seq=seq)
    wrong_on_socket = [
        ("success before the output", P.message("RESPONSE", tail=good, **response)),
    ]
    wrong_on_shm = [
        ("DATA", P.message("DATA", seq=seq, buffer=1, tail=b"x")),
        ("DATA of another request", P.message("DATA", seq=seq + 1, buffer=1, tail=b"x")),
    ]
    return (wrong_on_shm if shm else wrong_on_socket) + [
        ("DATA for an input", P.message("DATA", seq=seq, buffer=0, tail=b"x")),
        ("DATA for a buffer that does not exist", P.message("DATA", seq=seq, buffer=2, tail=b"x")),
        ("DATA for a huge index", P.message("DATA", seq=seq, buffer=0xFFFFFFFF, tail=b"x")),
        ("DATA past the start", P.message("DATA", seq=seq, buffer=1, offset=64, tail=b"x")),
        ("DATA at a huge offset", P.message("DATA", seq=seq, buffer=1, offset=(1 << 64) - 1, tail=b"xx")),
        ("DATA longer than its buffer", P.message("DATA", seq=seq, buffer=1, tail=bytes(4097))),
        ("DATA longer than a chunk", P.message("DATA", seq=seq, buffer=1, tail=bytes(P.DATA_CHUNK + 1))),
        ("DATA without bytes", P.message("DATA", seq=seq, buffer=1)),
        ("DATA with reserved bits", P.message("DATA", seq=seq, buffer=1, reserved=1, tail=b"x")),
        ("no response header", P.message("RESPONSE", tail=good[:20], **response)),
        ("a response of another size", P.message("RESPONSE", tail=good + b"12345678", **response)),
        ("a response for another op", P.message(
            "RESPONSE", tail=P.response(request.bytes, seq, op=3, error=5), **response)),
        ("a response for another tag", P.message(
            "RESPONSE", tail=P.response(request.bytes, seq, tag=3, error=5), **response)),
        ("a response with another seq", P.message(
            "RESPONSE", tail=P.response(request.bytes, seq + 1, error=5), **response)),
        ("a response larger than the window", P.message(
            "RESPONSE", tail=P.response(request.bytes, seq, error=5, payload=bytes(961)), **response)),
        ("HELLO_ACK twice", P.message("HELLO_ACK", **ACK)),
        ("REFUSED after HELLO_ACK", P.message("REFUSED", reason=1, tail=b"changed my mind")),
        ("STATE with an unknown band", P.message("STATE", band=9, up=1)),
        ("STATE with a strange broken", P.message("STATE", band=1, up=1, broken=2 if shm else 1)),
    ]


def test_bad_answers_drop_the_connection_and_the_request_goes_on_elsewhere(rig):
    m, request = in_flight(rig)
    for what, data in bad_answers(request, rig.shm):
        header = bytearray(data)
        struct.pack_into("<I", header, P.offset("vgpu_msg", "epoch"), m.epoch)
        m.send_raw(bytes(header))
        assert m.closed_by_stub(), what
        assert rig.dev.state() == P.STATUS_BUSY, what
        m.drop()
        m.hello()
        request = m.request()
    assert rig.vm.read(rig.dev.arena + 8192, 4096) == bytes(4096)
    m.answer(request, outputs={1: b"\x77" * 4096})
    assert rig.dev.wait_end()[0] == 0
    assert rig.vm.read(rig.dev.arena + 8192, 4096) == b"\x77" * 4096


def test_messages_of_another_life_or_request_are_dropped(rig):
    m, request = in_flight(rig)
    m.send("DATA", epoch=m.epoch + 1, seq=request.seq, buffer=1, tail=b"\xff" * 64)
    if not rig.shm:
        m.send("DATA", seq=request.seq + 1, buffer=1, tail=b"\xff" * 64)
    m.send("ACCEPT", seq=12345)
    m.send("RESPONSE", epoch=m.epoch - 1, seq=request.seq, tail=P.response(request.bytes, request.seq))
    m.send("RESET_ACK")
    m.answer(request, outputs={1: b"\x01" * 4096})
    assert rig.dev.wait_end()[0] == 0
    assert rig.vm.read(rig.dev.arena + 8192, 4096) == b"\x01" * 4096


def test_file_descriptors_are_refused_and_closed(rig):
    m = rig.connected()

    def open_fds():
        return len(os.listdir(f"/proc/{rig.vm.process.pid}/fd"))

    before = open_fds()
    for _ in range(20):
        socket.send_fds(m.conn, [P.message("STATE", epoch=m.epoch, band=1, up=1)], [0, 1, 2])
        assert m.closed_by_stub()
        m.drop()
        m.hello()
        wait_for("BACKEND_UP", rig.dev.up)
    assert open_fds() == before


def test_a_refusal_is_reported_once_and_tried_again(rig):
    m = rig.mediator()
    for _ in range(3):
        m.accept()
        m.expect("HELLO")
        m.send("REFUSED", reason=P.REFUSED_UNKNOWN_VM, tail=b"no such VM in the pool file\x1b[31m")
        m.drop()
    m.hello()
    wait_for("BACKEND_UP", rig.dev.up)
    assert rig.vm.output().count("no such VM in the pool file") == 1
    assert "\x1b" not in rig.vm.output()


@pytest.mark.parametrize("seed", range(3))
def test_noise_from_the_mediator_never_hurts(rig, seed):
    import random

    rng = random.Random(seed)
    m, request = in_flight(rig)
    for _ in range(60):
        name = rng.choice(["DATA", "ACCEPT", "RESPONSE", "RESET_ACK", "STATE", "HELLO_ACK", "REFUSED"])
        data = bytearray(P.message(name, epoch=m.epoch, tail=rng.randbytes(rng.choice((0, 1, 64, 2000)))))
        for _ in range(rng.randrange(4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            m.send_raw(bytes(data))
        except (BrokenPipeError, ConnectionResetError):
            m.drop()
            m.hello()
    assert rig.vm.alive()
    rig.dev.write_reg("CONTROL", P.CONTROL_RESET)
    m = rig.mediator(gen=1)
    m.hello()
    wait_for("BACKEND_UP", rig.dev.up)
    rig.dev.submit(echo_inline(b"unharmed"))
    m.serve_echo()
    assert rig.dev.wait_end()[0] == 0

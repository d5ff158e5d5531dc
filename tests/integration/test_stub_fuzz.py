# SPDX-License-Identifier: MIT
"""The device survives anything: random steps of a guest and a mediator, and messages of its own."""

import pytest

from register_fuzzer import Fuzzer
from stub_rig import P, echo_inline, rig  # noqa: F401

SEEDS = (1, 2, 3)


@pytest.mark.parametrize("datapath", ["shm", "socket"])
@pytest.mark.parametrize("seed", SEEDS)
def test_random_steps(tmp_path, seed, datapath):
    """Long runs, and these again one by one: tests/fuzz/registers --help"""
    Fuzzer(tmp_path, seed, datapath, steps=600).run()


def point_vector_0_at(rig, register, data):
    vm, dev = rig.vm, rig.dev
    dev.enable_msix(data=data)
    entry = dev.BAR4 + (vm.config_read(dev.slot, dev.msix_capability() + 4) & ~7)
    vm.store(entry, dev.BAR0 + P.REG[register])


@pytest.mark.parametrize("register, data", [("DOORBELL", 1), ("CONTROL", 2), ("RING_DOORBELL", 1),
                                            ("PRIORITY", 3)])
def test_a_message_to_the_device_itself(rig, register, data):
    """A doorbell that fails at once and interrupts by ringing the doorbell: it must end."""
    point_vector_0_at(rig, register, data)
    bad = bytearray(echo_inline(b"12345678", flags=P.REQ_IRQ))
    bad[P.offset("vgpu_req_hdr", "version")] = 77
    for _ in range(20):
        rig.dev.submit(bytes(bad))
    assert rig.vm.alive()
    rig.dev.enable_msix()
    m = rig.connected()
    rig.dev.take_message()
    rig.dev.submit(echo_inline(b"12345678", flags=P.REQ_IRQ))
    m.serve_echo()
    assert rig.dev.wait_end()[0] == 0 and rig.dev.take_message() == 0x5A5A

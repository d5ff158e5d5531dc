# SPDX-License-Identifier: MIT
"""Random guests at a real mediator and worker, the short form of tests/fuzz/guests, and what it found."""

import pytest

from guest_fuzzer import run_once
from mediator_rig import FakeWorker
from shm_rig import Rig


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_guests(tmp_path, seed):
    run_once(tmp_path, seed, steps=400)


class Keeper(FakeWorker):
    """Never lets go of a region."""

    def _drop_region(self, region):
        pass


def test_an_executor_that_keeps_a_region(tmp_path):
    """It beats and answers, but does not unmap: it is ended, or its VM could never come back."""
    with Rig(tmp_path) as m, Keeper(m.run_dir / "worker.sock") as worker:
        worker.serve_echo()
        with m.vm("a") as vm:
            vm.works()
            vm.disconnect()
            assert worker.link.wait("KILL_EXECUTOR").fields.executor == worker.executors

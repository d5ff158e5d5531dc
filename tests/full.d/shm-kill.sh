#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# kill -9 of QEMU (a client that plays it, and the real one), of the mediator and of workers, 50 times each
# under load on the shared-memory path. --rounds N: another number.
set -euo pipefail
rounds=50
[[ ${1:-} != --rounds ]] || rounds=$2
build=${VGPU_BUILD_DIR:-$PWD/build/dev}
[[ -x $build/bin/vgpu-mediator && -x $build/bin/vgpu-worker && -x $build/bin/guest.elf ]] || {
    echo "shm-kill.sh: not all programs are in $build/bin; build them: cmake --preset dev && cmake --build --preset dev" >&2
    exit 1
}
export VGPU_REQUIRE=1 VGPU_SOURCE_DIR=$PWD VGPU_BUILD_DIR=$build VGPU_BIN=$build/bin PYTHONPATH=$PWD/tests/lib
for victim in client qemu mediator worker; do
    echo "== $victim"
    status=0
    /usr/bin/python3 -B tests/lib/shm_kill.py "$victim" "$rounds" || status=$?
    ((status == 0 || status == 77)) || exit "$status"
done

#!/bin/bash
# SPDX-License-Identifier: MIT
#
# QEMU's own source with the device in its tree: builds (a few minutes), starts, passes the tests of the
# device that the plug-in passes, and boots the multiboot guest. The source is a copy of what the
# plug-in's headers come from.
set -euo pipefail
cd "$(dirname "$0")/../.."
. deploy/lib/packages.sh

work=build/qemu-intree
source=$(pkg_qemu_source) || {
    echo 'SKIPPED: the source of the installed QEMU cannot be fetched'
    exit 77
}
version=$(pkg_qemu_version)
if [[ ! -d $work/${version#*:} ]]; then
    rm -rf "$work"
    mkdir -p "$work"
    cp -r "$source" "$work/${version#*:}"
fi
VGPU_TEST_QEMU=$(stub/build-intree.sh "$work/${version#*:}" --small)
# Debian's source comes without firmware; that of the packages is used.
export VGPU_TEST_QEMU VGPU_TEST_QEMU_ARGS='-L /usr/share/seabios -L /usr/share/qemu'

"$VGPU_TEST_QEMU" -trace help | grep -q '^vgpu_stub_submit$' || {
    printf 'The device has no trace events in this QEMU\n'
    exit 1
}
PYTHONPATH=tests/lib /usr/bin/python3 -B -m pytest -q -p no:cacheprovider \
    tests/integration/test_stub_{registers,relay,faults,shm,hotplug,confined}.py \
    tests/integration/test_multiboot_guest.py

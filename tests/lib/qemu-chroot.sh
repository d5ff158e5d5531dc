#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# qemu-chroot.sh SUITE SCRIPT - runs SCRIPT of this folder in a minimal Debian SUITE, or skips (77)
#
# VGPU_CHROOT=DIR keeps the system in DIR for the next time; else it is made and removed. Of the
# environment VGPU_QEMU_TREE goes in: a QEMU source tree, for a mirror that does not have the source.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=deploy/lib/packages.sh
source deploy/lib/packages.sh
suite=$1 script=$2

skip() {
    echo "SKIPPED: $*"
    exit 77
}
((EUID == 0)) || skip "needs root: it makes a Debian $suite in a folder"
command -v debootstrap >/dev/null || skip 'debootstrap is not installed'
pkg_private_apt >/dev/null 2>&1 || true
pkg_private_apt_get update -o APT::Update::Error-Mode=any >/dev/null 2>&1 ||
    skip 'no Debian mirror answers'

dir=${VGPU_CHROOT:-}
if [[ -z $dir ]]; then
    dir=$(mktemp -d "${TMPDIR:-/var/tmp}/vgpu-qemu.XXXXXX")
    trap 'rm -rf --one-file-system "$dir"' EXIT
    trap 'exit 130' INT TERM
fi
deploy/debian-chroot.sh "$suite" "$dir"
if [[ -n ${VGPU_QEMU_TREE:-} ]]; then
    rm -rf "$dir/var/tmp/tree"
    mkdir -p "$dir/var/tmp"
    cp -r "$VGPU_QEMU_TREE" "$dir/var/tmp/tree"
fi
status=0
deploy/debian-chroot.sh "$suite" "$dir" "tests/lib/$script" || status=$?
exit "$status"

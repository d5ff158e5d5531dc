#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The device compiles against the source of the installed QEMU, and a wrong use of QEMU's API does not.
set -euo pipefail
source deploy/lib/packages.sh
source=$(pkg_qemu_source) || {
    echo 'SKIPPED: the source of the installed QEMU cannot be fetched'
    exit 77
}
exec tests/qemu-compile.sh "$source"

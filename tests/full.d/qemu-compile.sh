#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The device compiles against every QEMU source tree in VGPU_QEMU_TREES (folders, separated by ":"), such
# as XCP-ng's 4.2.
set -euo pipefail
IFS=: read -ra trees <<<"${VGPU_QEMU_TREES:-}"
exec tests/qemu-compile.sh "${trees[@]}"

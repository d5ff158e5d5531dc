#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The two-VM boot: the quick start passes and leaves nothing behind.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
TMPDIR=$work ./deploy/quickstart.sh --out "$PWD/build/test-logs/quickstart" | tee "$work.out"
tail -n 1 "$work.out" | grep -qx 'quickstart: PASS'
rm -f "$work.out"
[[ -z $(ls -A "$work") ]] || { echo "left behind:" && ls -R "$work" && exit 1; }
! grep -al "$work" /proc/[0-9]*/cmdline 2>/dev/null || { echo "still running, see above" && exit 1; }

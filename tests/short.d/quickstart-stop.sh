#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# A quick start that is told to stop while its VMs work ends everything that it started.
set -euo pipefail
work=$(mktemp -d)
log=$work.log
trap 'rm -rf "$work" "$log"' EXIT
TMPDIR=$work ./deploy/quickstart.sh --out "$work.pictures" >"$log" 2>&1 &
script=$!
# The first tiles are done: everything that it starts is there.
for ((i = 0; i < 6000; i++)); do
    if grep -qE '\] [1-9][0-9]* of [0-9]+ tiles' "$log"; then break; fi
    kill -0 "$script" 2>/dev/null || { echo "ended early:" && tail -n 20 "$log" && exit 1; }
    sleep 0.1
done
kill -TERM "$script"
status=0
wait "$script" || status=$?
rm -rf "$work.pictures"
((status == 143)) || { echo "ended with status $status instead of 143" && tail "$log" && exit 1; }
[[ -z $(ls -A "$work") ]] || { echo "left behind:" && ls -R "$work" && exit 1; }
! grep -al "$work/" /proc/[0-9]*/cmdline 2>/dev/null || { echo "still running, see above" && exit 1; }
echo "nothing is left"

#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# run.sh - measure, and print a table and one RESULT line per figure
#
# Each benchmark is a file bench/bench_<name>.sh with a function bench_<name>. What figures, units
# and floors mean is fixed in bench/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=deploy/lib/ui.sh
source deploy/lib/ui.sh
# shellcheck source=deploy/lib/procs.sh
source deploy/lib/procs.sh
# shellcheck source=bench/lib.sh
source bench/lib.sh

usage() {
    cat <<'EOF'
usage: bench/run.sh [--runs N] [--quick] [--build DIR] NAME...
       bench/run.sh --list

Measures and prints, per benchmark, a table and one line per figure:
  RESULT <bench>.<case> value=<median> unit=<u> floor=<n> ratio=<value/floor> target=<n>
Exits 0 only if everything that can run here ran.

  --runs N     rounds; a figure is the median over them (default 5)
  --quick      one short round: does it work at all?
  --build DIR  take the programs of this build as they are (default: build preset release first)
  --list       print the benchmarks and stop

examples:
  bench/run.sh device            round trip of a request, beside the transport that it replaces
  bench/run.sh pipeline bulk     many small requests, and large data
  bench/run.sh --runs 9 ops      each operation beside the same library call
EOF
}

list() {
    local file
    for file in bench/bench_*.sh; do
        printf '%-10s %s\n' "$(basename "$file" .sh | sed 's/^bench_//')" "$(sed -nE '3s/^# //p' "$file")"
    done
}

rounds=5 quick='' build='' names=()
while (($#)); do
    case $1 in
    --runs) rounds=${2:?--runs needs a number} && shift ;;
    --quick) quick=1 rounds=1 ;;
    --build) build=${2:?--build needs a folder} && shift ;;
    --list) list && exit ;;
    -h | --help) usage && exit ;;
    -*) usage >&2 && exit 2 ;;
    *) names+=("$1") ;;
    esac
    shift
done
if ((${#names[@]} == 0)) || ! [[ $rounds =~ ^[1-9][0-9]*$ ]]; then
    usage >&2
    exit 2
fi
for name in "${names[@]}"; do
    [[ -r bench/bench_$name.sh ]] || ui_die "there is no benchmark '$name'; bench/run.sh --list names them"
done

bench_prepare
trap bench_clean EXIT
for name in "${names[@]}"; do
    # shellcheck source=/dev/null
    source "bench/bench_$name.sh"
    ui_title "$name"
    "bench_$name"
    bench_table
done

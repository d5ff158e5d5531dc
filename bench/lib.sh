# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# lib - what the benchmarks share: the build, a mediator with workers, samples, medians, results
#
# A program under measurement prints lines "BENCH <case> n=.. min_ns=.. p50_ns=.. p99_ns=.. max_ns=.." and
# "VALUE <case> <number>" for what is no time. bench_take files them under a figure's name; bench_result
# and bench_number make the RESULT lines of a figure from the medians over all rounds.

bench_work=

bench_forget() {
    : >"$bench_work/samples"
    : >"$bench_work/rows"
}

# bench_prepare - builds, and makes a folder for everything that lives during the run
bench_prepare() {
    bench_work=$(mktemp -d /tmp/vgpu-bench.XXXXXX)
    # shellcheck disable=SC2034 # of deploy/lib/procs.sh
    PROCS_FILE=$bench_work/procs
    bench_forget
    if [[ -z $build ]]; then
        build=build/release
        ui_step "building $build" "build/bench-logs/build.log" bench_build ||
            ui_die "no build, no figures"
    fi
    bin=$build/bin
}

bench_build() {
    cmake --preset release && cmake --build --preset release -j "$(nproc)" --target \
        vgpu-mediator vgpu-worker guest.elf bench-place bench-eventfd bench-poll bench-filepoll \
        bench-host bench-shm bench-many bench-nuisance bench-floor
}

bench_clean() {
    local status=$?
    procs_stop
    if ((status != 0)) && [[ -d $bench_work ]]; then
        mkdir -p build/bench-logs
        cp "$bench_work"/*.log build/bench-logs/ 2>/dev/null || true
        ui_note "logs of the processes are in build/bench-logs"
    fi
    [[ -z $bench_work ]] || rm -rf "$bench_work"
}

# bench_stack WORKERS THREADS [VMS [SPIN_US [MEDIATOR_CPU WORKER_CPU]]] - a mediator with VMs vm-0, vm-1, …
# and workers. SPIN_US: how long they may poll; empty: the default. The CPUs: each on that one alone.
bench_stack() {
    local i on_mediator=() on_worker=()
    [[ -z ${5:-} ]] || on_mediator=(taskset -c "$5") on_worker=(taskset -c "$6")
    vm_socket=$bench_work/run/vm-0/vgpu.sock
    bench_pool "${3:-1}" "${4:-}" >"$bench_work/pool.yaml"
    procs_start mediator "$bench_work/mediator.log" "${on_mediator[@]}" "$bin/vgpu-mediator" \
        --config "$bench_work/pool.yaml" --run-dir "$bench_work/run"
    wait_until 20 "the mediator does not listen" test -S "$bench_work/run/worker.sock"
    for ((i = 0; i < $1; i++)); do
        procs_start "w$i" "$bench_work/w$i.log" "${on_worker[@]}" "$bin/vgpu-worker" --name "w$i" \
            --backend cpu --mediator "$bench_work/run/worker.sock" --threads "$2"
    done
    wait_until 20 "the VM's socket is not there" test -S "$vm_socket"
}

# bench_pool VMS SPIN_US - the pool file of bench_stack; vm-0 is alone in its tenant
bench_pool() {
    local i
    printf 'version: 1\n'
    [[ -z $2 ]] || printf 'mediator:\n  spin: %sus\n' "$2"
    printf 'pools:\n  - name: main\n    id: 1\ntenants:\n  - name: bench\n  - name: other\nvms:\n'
    for ((i = 0; i < $1; i++)); do
        printf '  - name: vm-%d\n    tenant: %s\n    pools: [main]\n    socket: %s\n' \
            "$i" "$( ((i)) && echo other || echo bench)" "$bench_work/run/vm-$i/vgpu.sock"
    done
}

bench_stack_stop() { procs_stop; }

# bench_count N - a number of repetitions, fewer with --quick
bench_count() { echo $((${quick:+1} + 0 ? ($1 + 19) / 20 : $1)); }

# bench_take PREFIX COMMAND... - runs COMMAND; its lines "BENCH case ..." and "VALUE case ..." become samples
# PREFIX.case
bench_take() {
    local prefix=$1 log=$bench_work/take.log
    shift
    "$@" >"$log" 2>&1 || {
        tail -n 5 "$log" >&2
        ui_error "$* failed"
        return 1
    }
    bench_file "$prefix" "$log"
}

# bench_file PREFIX LOG - files the samples of a program's output
bench_file() {
    local prefix=$1 log=$2
    tr -d '\r' <"$log" | sed -nE -e \
        "s/^BENCH ([^ ]+) .*p50_ns=([0-9]+) p99_ns=([0-9]+).*/$prefix.\1 \2 \3/p" -e \
        "s/^VALUE ([^ ]+) (-?[0-9.]+)$/$prefix.\1 \2 \2/p" >>"$bench_work/samples"
}

# bench_median NAME COLUMN - median over the rounds; COLUMN 2: of the p50, 3: of the p99
bench_median() {
    awk -v name="$1" -v column="$2" '$1 == name { print $column }' "$bench_work/samples" | sort -n |
        awk '{ v[NR] = $1 } END { if (NR == 0) exit 1; print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

# bench_result FIGURE SAMPLES FLOOR UNIT TARGET [TARGET_P99] - p50 and p99 of SAMPLES over those of FLOOR
bench_result() {
    local figure=$1 samples=$2 floor=$3 unit=$4 target=$5
    bench_row "$figure" "$(bench_median "$samples" 2)" "$(bench_median "$floor" 2)" "$unit" "$target"
    bench_row "$figure.p99" "$(bench_median "$samples" 3)" "$(bench_median "$floor" 3)" "$unit" \
        "${6:--}"
}

# bench_number FIGURE SAMPLES UNIT TARGET [FLOOR] - the median of what is no time; with FLOOR, other
# samples, their ratio
bench_number() {
    awk -v figure="$1" -v value="$(bench_median "$2" 2)" -v unit="$3" -v target="$4" \
        -v floor="${5:+$(bench_median "$5" 2)}" 'BEGIN {
        digits = value >= 1000 || value == int(value) ? "%.0f" : value >= 10 ? "%.1f" : "%.4f"
        printf "%s " digits " %s %s %s %s\n", figure, value, unit, floor == "" ? "-" : sprintf("%.1f", floor),
            floor == "" || floor == 0 ? "-" : sprintf("%.2f", value / floor), target
    }' >>"$bench_work/rows"
}

# bench_skip FIGURE REASON... - the figure cannot be measured here
bench_skip() {
    local figure=$1
    shift
    printf 'SKIPPED %s: %s\n' "$figure" "$*"
}

# bench_row FIGURE VALUE_NS FLOOR_NS UNIT TARGET
bench_row() {
    awk -v figure="$1" -v value="$2" -v floor="$3" -v unit="$4" -v target="$5" 'BEGIN {
        scale = unit == "ms" ? 1e6 : 1e3
        printf "%s %.1f %s %.1f %.2f %s\n", figure, value / scale, unit, floor / scale, value / floor, target
    }' >>"$bench_work/rows"
}

# bench_table - prints all rows as a table, then as RESULT lines, and forgets them. A target is "-" or a
# comparison, of the ratio where it says so: ratio<=1.3, <=5, >=0.9.
bench_table() {
    awk 'function met(target, value, ratio,   t, x) {
             if (target == "-") return "-"
             t = target
             x = sub(/^ratio/, "", t) ? ratio : value
             if (x == "-") return "-"
             return (t ~ /^<=/ ? x + 0 <= substr(t, 3) + 0 : x + 0 >= substr(t, 3) + 0) ? "met" : "MISSED"
         }
         BEGIN { printf "%-32s %10s %-7s %10s %7s %12s %s\n", "figure", "value", "unit", "floor", "ratio", "target", "" }
         { printf "%-32s %10s %-7s %10s %7s %12s %s\n", $1, $2, $3, $4, $5, $6, met($6, $2, $5) }' "$bench_work/rows"
    awk '{ printf "RESULT %s value=%s unit=%s floor=%s ratio=%s target=%s\n", $1, $2, $3, $4, $5, $6 }' \
        "$bench_work/rows"
    bench_forget
}

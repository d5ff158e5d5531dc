# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154 # variables of run.sh and lib.sh
# each operation at one typical size, through mediator and worker; floor: the library call in one process
#
# Sourced by bench/run.sh. Two figures per operation: `ops.OP`, from the first byte sent to the last one
# received, and `ops.OP.run`, what the worker says its work took.

ops_names=(echo axpy reduce gemm fft sort denoise)

# ops_repeat OP - repetitions in a round
ops_repeat() {
    case $1 in
    echo | axpy | reduce) bench_count 30 ;;
    *) bench_count 20 ;;
    esac
}

ops_floor() {
    if [[ $1 == sort ]]; then
        /usr/bin/python3 -B bench/sort_floor.py "$2"
    else
        OPENBLAS_NUM_THREADS=1 "$bin/bench-floor" "$1" "$2"
    fi
}

bench_ops() {
    local i op
    bench_stack 1 1
    for ((i = 1; i <= rounds; i++)); do
        ui_note "round $i of $rounds"
        for op in "${ops_names[@]}"; do
            bench_take floor ops_floor "$op" "$(ops_repeat "$op")"
            bench_take host "$bin/bench-host" "$vm_socket" "$op" "$(ops_repeat "$op")"
        done
    done
    bench_stack_stop
    for op in "${ops_names[@]}"; do
        bench_result "ops.$op" "host.$op" "floor.$op" ms -
        bench_row "ops.$op.run" "$(bench_median "host.$op.run" 2)" "$(bench_median "floor.$op" 2)" ms -
    done
}

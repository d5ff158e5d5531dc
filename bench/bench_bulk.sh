# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154 # variables of run.sh and lib.sh
# reduce(sum) of 64 MiB in the arena: speed beside private memory and the socket, and that nobody copies
#
# Sourced by bench/run.sh. Floor: the worker's own code on private memory of one process.

bench_bulk() {
    local i n
    n=$(bench_count 46) # with the first tenth and the first, 51 jobs
    for ((i = 1; i <= rounds; i++)); do
        ui_note "round $i of $rounds"
        bench_stack 1 1
        bench_take floor env OPENBLAS_NUM_THREADS=1 "$bin/bench-floor" reduce "$n" worker
        bench_take shm "$bin/bench-shm" "$vm_socket" reduce "$n" "${procs_id[mediator]}" \
            "${procs_id[w0]}"
        bench_take socket "$bin/bench-host" "$vm_socket" reduce "$((n / 4 + 1))"
        bench_stack_stop
    done
    bench_speed bulk.local shm.reduce floor.reduce ">=0.9"
    bench_speed bulk.socket socket.reduce floor.reduce -
    bench_row bulk.local.time "$(bench_median shm.reduce 2)" "$(bench_median floor.reduce 2)" ms -
    bench_row bulk.local.run "$(bench_median shm.reduce.run 2)" "$(bench_median floor.reduce 2)" ms -
    bench_row bulk.socket.time "$(bench_median socket.reduce 2)" "$(bench_median floor.reduce 2)" ms -
    bench_number bulk.copies.mediator shm.growth.mediator bytes "<=1048575"
    bench_number bulk.copies.executor shm.growth.executor bytes "<=1048575"
    bench_number bulk.copies.io.mediator shm.moved.mediator of_bulk "<=0.01"
    bench_number bulk.copies.io.executor shm.moved.executor of_bulk "<=0.01"
}

# bench_speed FIGURE SAMPLES FLOOR TARGET - GB/s of 64 MiB; the ratio is that of the speeds
bench_speed() {
    awk -v figure="$1" -v value="$(bench_median "$2" 2)" -v floor="$(bench_median "$3" 2)" -v target="$4" 'BEGIN {
        printf "%s %.2f GB/s %.2f %.3f %s\n", figure, 67108864 / value, 67108864 / floor, floor / value,
            target == "-" ? "-" : "ratio" target
    }' >>"$bench_work/rows"
}

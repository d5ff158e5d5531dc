# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154 # variables of run.sh and lib.sh
# many connected VMs that do nothing: the mediator's time and memory, and one busy VM beside them
#
# Sourced by bench/run.sh. The VMs are played by one process (bench-many).

# many_round VMS SECONDS
many_round() {
    bench_stack 1 1 "$1"
    bench_take "many$1" "$bin/bench-many" "$bench_work/run" "$1" "$(bench_count 10000)" "$2" \
        "${procs_id[mediator]}"
    bench_stack_stop
}

bench_many() {
    local i vms large=1000 seconds=${quick:-10}
    ulimit -n "$(ulimit -Hn)"
    [[ -z $quick ]] || large=200
    if [[ $(ulimit -n) != unlimited ]] && (($(ulimit -n) < large * 16 + 64)); then
        bench_skip "many.$large.busy" "at most $(ulimit -n) open files; $large VMs need $((large * 16 + 64))"
        large=''
    fi
    for ((i = 1; i <= rounds; i++)); do
        ui_note "round $i of $rounds"
        many_round 64 "$seconds"
        [[ -z $large ]] || many_round "$large" "$seconds"
    done
    bench_number many.64.idle many64.idle_percent percent "<=0.5"
    for vms in 64 $large; do
        bench_number "many.$vms.memory" "many$vms.kib_per_vm" KiB -
        bench_result "many.$vms.busy" "many$vms.beside" "many$vms.alone" us - "ratio<=2"
    done
    [[ -z $large ]] || bench_number "many.$large.idle" "many$large.idle_percent" percent -
}

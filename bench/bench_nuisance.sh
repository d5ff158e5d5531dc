# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154 # variables of run.sh and lib.sh
# one VM's round trip while another VM makes trouble; floor: the same VM alone
#
# Sourced by bench/run.sh. Every process has a CPU of its own: what is measured is what one VM can do to another
# through the mediator, not what a busy process does to its CPU.

nuisance_round() {
    local kind
    bench_stack 1 1 2 0 "${cpus[1]}" "${cpus[2]}"
    bench_take alone taskset -c "${cpus[0]}" "$bin/bench-shm" "$vm_socket" null "$(bench_count 20000)"
    for kind in storm flood break; do
        taskset -c "${cpus[3]}" "$bin/bench-nuisance" "$bench_work/run/vm-1/vgpu.sock" "$kind" \
            "${quick:-10}" >"$bench_work/nuisance.log" 2>&1 &
        bench_take "$kind" taskset -c "${cpus[0]}" "$bin/bench-shm" "$vm_socket" null \
            "$(bench_count 20000)"
        wait $! || ui_die "bench-nuisance $kind failed: $(tail -n 1 "$bench_work/nuisance.log")"
        bench_file "$kind" "$bench_work/nuisance.log"
    done
    bench_stack_stop
}

bench_nuisance() {
    local i kind cpus
    read -ra cpus < <("$bin/bench-place")
    if ((${#cpus[@]} < 4)); then
        bench_skip nuisance.storm "${#cpus[@]} CPUs; driver, mediator, worker and nuisance need 4"
        return 0
    fi
    for ((i = 1; i <= rounds; i++)); do
        ui_note "round $i of $rounds"
        nuisance_round
    done
    bench_result nuisance.none alone.null alone.null us -
    for kind in storm break flood; do
        bench_result "nuisance.$kind" "$kind.null" alone.null us - \
            "$([[ $kind == flood ]] && echo - || echo 'ratio<=2')"
        bench_number "nuisance.$kind.acts" "$kind.$kind.acts" acts -
    done
}

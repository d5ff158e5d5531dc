# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154 # variables of run.sh and lib.sh
# 64 requests of 256 bytes in flight through shared memory: what the mediator spends, who wakes whom
#
# Sourced by bench/run.sh. The scheduler places the processes; nobody polls where there are few CPUs.

bench_pipeline() {
    local i
    for ((i = 1; i <= rounds; i++)); do
        ui_note "round $i of $rounds"
        bench_stack 1 1
        bench_take run "$bin/bench-shm" "$vm_socket" pipeline "$(bench_count 1000000)" \
            "${procs_id[mediator]}" "${procs_id[w0]}"
        bench_stack_stop
    done
    bench_number pipeline.256B run.pipeline.per_cpu_second req/s ">=500000"
    bench_number pipeline.256B.notifications run.pipeline.bells per_req "<=0.2"
    bench_number pipeline.256B.notifications.driver run.pipeline.bells.client per_req -
    bench_number pipeline.256B.notifications.mediator run.pipeline.bells.mediator per_req -
    bench_number pipeline.256B.notifications.executor run.pipeline.bells.executor per_req -
    bench_number pipeline.256B.rate run.pipeline.rate req/s -
    bench_number pipeline.256B.executor run.pipeline.executor_us us -
}

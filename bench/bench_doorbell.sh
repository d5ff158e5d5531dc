# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154 # variables of run.sh and lib.sh
# exits to QEMU per ring request of a guest under KVM, and what a doorbell costs it; QMP query-stats
#
# Sourced by bench/run.sh. The multiboot guest makes ring requests for ever and counts them in its memory;
# doorbell_exits.py stops the VM twice, reads those counters and the vCPU's statistics, and compares.

# doorbell_exits THROUGH - 1: ring, 0: windows
doorbell_exits() {
    local console=$bench_work/console qmp=$bench_work/qmp
    rm -f "$console" "$qmp"
    procs_start vm "$bench_work/vm.log" "${vm[@]}" -serial "file:$console" \
        -qmp "unix:$qmp,server=on,wait=off" -append "forever $1"
    wait_until 60 "the guest does not begin" grep -qs "counters at" "$console"
    /usr/bin/python3 -B bench/doorbell_exits.py "$qmp" "$console" "$(bench_count 20)"
    procs_kill vm
}

doorbell_times() {
    timeout 300 "${vm[@]}" -serial stdio -append "rings $(bench_count 5000)" </dev/null || (($? == 33))
}

bench_doorbell() {
    local i vm
    if [[ ! -r /dev/kvm || ! -w /dev/kvm ]]; then
        bench_skip doorbell.exits "/dev/kvm does not open"
        return
    fi
    stub/build-plugin.sh >/dev/null
    bench_stack 1 1
    vm=(env VGPU_REQUIRE=1 stub/qemu-with-vgpu -accel kvm -m 64 -nodefaults -no-user-config
        -no-reboot -display none -device "isa-debug-exit,iobase=0xf4,iosize=4"
        -device "vgpu-stub,socket=$vm_socket" -kernel "$bin/guest.elf")
    for ((i = 1; i <= rounds; i++)); do
        ui_note "round $i of $rounds"
        bench_take vm doorbell_exits 1
        bench_take windows doorbell_exits 0
        bench_take vm doorbell_times
    done
    bench_stack_stop
    bench_number doorbell.exits vm.exits per_req "<=0"
    bench_number doorbell.exits.windows windows.exits per_req -
    bench_number doorbell.rung vm.doorbells per_req -
    bench_number doorbell.requests vm.requests req -
    bench_row doorbell.ioeventfd "$(bench_median vm.doorbell 2)" "$(bench_median vm.trap 2)" us -
    bench_row doorbell.trap "$(bench_median vm.trap 2)" "$(bench_median vm.trap 2)" us -
}

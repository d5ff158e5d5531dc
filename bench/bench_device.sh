# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154 # variables of run.sh and lib.sh
# round trip of an inline echo: device, shared memory, socket, polled file; floor: two eventfd ping-pongs
#
# Sourced by bench/run.sh. In each round every path is measured once, in turn, so that a change of the
# machine's mood meets all of them. Mediator and worker are pinned for the shared-memory figures, exactly
# as their floor's processes are; for the others the scheduler places them.

device_guest() {
    VGPU_REQUIRE=1 timeout 300 stub/qemu-with-vgpu -accel "$1" -m 64 -nodefaults -no-user-config \
        -no-reboot -display none -serial stdio -device isa-debug-exit,iobase=0xf4,iosize=4 \
        -device "vgpu-stub,socket=$vm_socket,datapath=$2" -kernel "$bin/guest.elf" \
        -append "$3 $(bench_count "$4")" </dev/null || (($? == 33))
}

device_guests() {
    if [[ -n $kvm ]]; then
        bench_take kvm device_guest kvm socket bench 1000
        bench_take shm-kvm device_guest kvm shm rings 1000
    fi
    bench_take tcg device_guest tcg socket bench 2000
    bench_take shm-tcg device_guest tcg shm rings 2000
}

device_unpinned() {
    local folder=$bench_work/polled
    mkdir -p "$folder"
    bench_stack 1 1
    bench_take host "$bin/bench-host" "$vm_socket" inline "$(bench_count 10000)"
    bench_take shm "$bin/bench-shm" "$vm_socket" null "$(bench_count 10000)"
    [[ -z $guests ]] || device_guests
    bench_stack_stop
    bench_take poll100 "$bin/bench-filepoll" "$folder" "$(bench_count 2000)" 100
    bench_take poll1000 "$bin/bench-filepoll" "$folder" "$(bench_count 500)" 1000
    bench_take spin "$bin/bench-filepoll" "$folder" "$(bench_count 2000)" 0
}

# device_pinned PREFIX SPIN_US DRIVER_CPU MEDIATOR_CPU WORKER_CPU [spin]
device_pinned() {
    local prefix=$1 cpu=$3
    bench_stack 1 1 1 "$2" "$4" "$5"
    bench_take "$prefix" taskset -c "$cpu" "$bin/bench-shm" "$vm_socket" null \
        "$(bench_count 20000)" "${@:6}"
    bench_stack_stop
}

device_round() {
    device_unpinned
    bench_take eventfd "$bin/bench-eventfd" "$(bench_count 20000)"
    device_pinned sleep 0 "${cpus[0]}" "${cpus[1]}" "${cpus[0]}"
    device_pinned sleep-together 0 "${cpus[0]}" "${cpus[0]}" "${cpus[0]}"
    if [[ -n $spins ]]; then
        bench_take poll "$bin/bench-poll" "$(bench_count 100000)"
        device_pinned spinning 10000 "${cpus[0]}" "${cpus[1]}" "${cpus[2]}" spin
    fi
}

# device_what_runs - sets kvm, guests and spins: what can be measured here
device_what_runs() {
    if ! command -v qemu-system-x86_64 >/dev/null || [[ ! -x stub/build-plugin.sh ]]; then
        guests=''
        bench_skip device.socket.tcg "there is no QEMU here"
    elif [[ -r /dev/kvm && -w /dev/kvm ]]; then
        kvm=1
    else
        bench_skip device.socket.kvm "/dev/kvm does not open"
    fi
    if ((${#cpus[@]} < 8)); then
        spins=''
        bench_skip device.shm.spin "${#cpus[@]} CPUs; spinning needs 8"
    fi
}

bench_device() {
    local i kvm='' guests=1 spins=1 floor=eventfd.apart cpus
    read -ra cpus < <("$bin/bench-place")
    device_what_runs
    [[ -z $guests ]] || stub/build-plugin.sh >/dev/null
    for ((i = 1; i <= rounds; i++)); do
        ui_note "round $i of $rounds"
        device_round
    done
    bench_result device.shm.sleep sleep.null "$floor" us "ratio<=1.3"
    bench_result device.shm.sleep.together sleep-together.null eventfd.together us "ratio<=1.3"
    if [[ -n $spins ]]; then
        bench_result device.shm.spin spinning.null poll.poll us "<=5"
    fi
    bench_result device.shm.host shm.null "$floor" us -
    bench_result device.socket.host host.inline "$floor" us -
    [[ -z $guests ]] || device_guest_results
    bench_result device.file-poll poll100.file-poll "$floor" us -
    bench_result device.file-poll.1ms poll1000.file-poll "$floor" us -
    bench_result device.file-poll.spin spin.file-poll "$floor" us -
    bench_result device.eventfd eventfd.apart "$floor" us -
    bench_result device.eventfd.together eventfd.together eventfd.together us -
    bench_result device.eventfd.loop eventfd.apart.loop "$floor" us -
    bench_result device.eventfd.together.loop eventfd.together.loop eventfd.together us -
}

device_guest_results() {
    if [[ -n $kvm ]]; then
        bench_result device.shm.kvm shm-kvm.rings "$floor" us -
        bench_result device.socket.kvm kvm.full "$floor" us -
        bench_result device.socket.kvm.ring kvm.ring "$floor" us -
        bench_result device.access.kvm kvm.read "$floor" us -
    fi
    bench_result device.shm.tcg shm-tcg.rings "$floor" us -
    bench_result device.socket.tcg tcg.full "$floor" us -
    bench_result device.socket.tcg.ring tcg.ring "$floor" us -
}

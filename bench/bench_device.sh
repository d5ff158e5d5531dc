# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154 # variables of run.sh and lib.sh
# round trip of an inline echo: device, socket, polled file; floor: two eventfd ping-pongs
#
# Sourced by bench/run.sh. In each round every path is measured once, in turn, so that a change of the
# machine's mood meets all of them.

device_guest() {
    VGPU_REQUIRE=1 timeout 300 stub/qemu-with-vgpu -accel "$1" -m 64 -nodefaults -no-user-config \
        -no-reboot -display none -serial stdio -device isa-debug-exit,iobase=0xf4,iosize=4 \
        -device "vgpu-stub,socket=$vm_socket" -kernel "$bin/guest.elf" \
        -append "bench $(bench_count "$2")" </dev/null || (($? == 33))
}

device_round() {
    local folder=$bench_work/polled
    mkdir -p "$folder"
    bench_take eventfd "$bin/bench-eventfd" "$(bench_count 20000)"
    bench_take host "$bin/bench-host" "$vm_socket" inline "$(bench_count 10000)"
    if [[ -n $kvm ]]; then
        bench_take kvm device_guest kvm 1000
    fi
    bench_take tcg device_guest tcg 2000
    bench_take poll100 "$bin/bench-filepoll" "$folder" "$(bench_count 2000)" 100
    bench_take poll1000 "$bin/bench-filepoll" "$folder" "$(bench_count 500)" 1000
    bench_take spin "$bin/bench-filepoll" "$folder" "$(bench_count 2000)" 0
}

bench_device() {
    local i kvm='' floor=eventfd.apart
    if [[ -r /dev/kvm && -w /dev/kvm ]]; then
        kvm=1
    else
        ui_warn "/dev/kvm does not open: no device.socket.kvm"
    fi
    stub/build-plugin.sh >/dev/null
    bench_stack 1 1
    for ((i = 1; i <= rounds; i++)); do
        ui_note "round $i of $rounds"
        device_round
    done
    bench_stack_stop
    if [[ -n $kvm ]]; then
        bench_result device.socket.kvm kvm.full "$floor" us -
        bench_result device.socket.kvm.ring kvm.ring "$floor" us -
        bench_result device.access.kvm kvm.read "$floor" us -
    fi
    bench_result device.socket.tcg tcg.full "$floor" us -
    bench_result device.socket.tcg.ring tcg.ring "$floor" us -
    bench_result device.socket.host host.inline "$floor" us -
    bench_result device.file-poll poll100.file-poll "$floor" us -
    bench_result device.file-poll.1ms poll1000.file-poll "$floor" us -
    bench_result device.file-poll.spin spin.file-poll "$floor" us -
    bench_result device.eventfd eventfd.apart "$floor" us -
    bench_result device.eventfd.together eventfd.together "$floor" us -
}

# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# accel - does a Linux guest boot on KVM here?
#
# /dev/kvm that opens proves little: some nested hosts run only guests without paging. So it is tried
# once, for at most 20 s, and the answer is kept for this host kernel, CPU, QEMU and guest kernel.
# Needs packages.sh and guest-image.sh.

# accel_try KERNEL - boots an initramfs that says so and powers off
accel_try() {
    local kernel=$1 work status=1
    work=$(mktemp -d)
    printf '#!/bin/sh\necho guest-is-up >/dev/console\n/bin/busybox poweroff -f\n' >"$work/init"
    guest_base "$work/image" "$work/init"
    timeout -k 1 20 qemu-system-x86_64 -nodefaults -no-reboot -display none -nic none -m 256 \
        -accel kvm -cpu host -kernel "$kernel" -initrd "$work/image" \
        -append 'console=ttyS0 quiet panic=-1' -serial "file:$work/console" >/dev/null 2>&1 || true
    ! grep -q guest-is-up "$work/console" 2>/dev/null || status=0
    rm -rf "$work"
    return "$status"
}

# accel_choose KERNEL - prints kvm or tcg
accel_choose() {
    local key note
    if [[ ! -r /dev/kvm || ! -w /dev/kvm ]]; then
        printf 'tcg\n'
        return
    fi
    key=$(
        {
            uname -r
            qemu-system-x86_64 --version
            grep -m 1 'model name' /proc/cpuinfo
            printf '%s\n' "$1"
        } | sha256sum | cut -c1-16
    )
    note=$VGPU_CACHE/accel-$key
    if [[ ! -s $note ]]; then
        mkdir -p "$VGPU_CACHE"
        if accel_try "$1"; then echo kvm; else echo tcg; fi >"$note"
    fi
    cat "$note"
}

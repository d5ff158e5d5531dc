# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# guest-image - kernel and initramfs of a small Linux guest that needs no network and no modules
#
# The kernel is Debian's cloud kernel, unpacked and not installed. The initramfs is busybox, the
# static `vgpu` command and deploy/guest/init; each VM adds its own job as a second image. Needs
# packages.sh.

# guest_kernel - prints the path of the kernel, fetched when it is not there yet
guest_kernel() {
    local note=$VGPU_CACHE/guest-kernel package tree
    if [[ -s $note && -s $(<"$note") ]]; then
        cat "$note"
        return
    fi
    mkdir -p "$VGPU_CACHE"
    package=$(pkg_depends_on linux-image-cloud-amd64 '^linux-image-[0-9].*-cloud-amd64$')
    if [[ -z $package ]]; then
        pkg_apt_get update >&2
        package=$(pkg_depends_on linux-image-cloud-amd64 '^linux-image-[0-9].*-cloud-amd64$')
    fi
    [[ -n $package ]] || {
        printf 'apt knows no linux-image-cloud-amd64; is the main archive among its sources?\n' >&2
        return 1
    }
    tree=$(pkg_unpack "$package") || return
    find "$tree/boot" -name 'vmlinuz-*' >"$note"
    cat "$note"
}

# guest_pack FOLDER FILE - packs FOLDER as an initramfs image; the kernel wants root as the owner
guest_pack() {
    (cd "$1" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) | gzip -1 >"$2"
}

# guest_base IMAGE INIT [PROGRAM...] - makes the part of the initramfs that all VMs share
guest_base() {
    local image=$1 init=$2 tree
    shift 2
    tree=$(mktemp -d)
    mkdir -p "$tree"/{bin,dev,proc,sys,job}
    install -m 755 "$init" "$tree/init"
    install -m 755 /bin/busybox "$tree/bin/busybox"
    ln -s busybox "$tree/bin/sh"
    (($# == 0)) || install -s -m 755 "$@" "$tree/bin/"
    guest_pack "$tree" "$image"
    rm -rf "$tree"
}

# guest_job IMAGE BASE FILE... - BASE plus /job holding FILE..., one of which is called run
guest_job() {
    local image=$1 base=$2 tree
    shift 2
    tree=$(mktemp -d)
    mkdir "$tree/job"
    cp "$@" "$tree/job/"
    guest_pack "$tree" "$image.job"
    cat "$base" "$image.job" >"$image"
    rm -rf "$tree" "$image.job"
}

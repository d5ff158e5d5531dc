#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# qemu-compile.sh - the device's C files compile against given QEMU source trees, warnings as errors
#
# Of a tree only its own headers count: the headers that its generators make and a config-host.h come
# from stub/qemu-headers.sh, so nothing of QEMU is configured or built. Per tree:
#
#   compile   every C file as in QEMU's tree, and as a plug-in where there is one (7.2 and later). Trees
#             before 6.0 are compiled as they compile themselves, as gnu99
#   no KVM    what the device calls of KVM exists in a QEMU without KVM too (XCP-ng is one)
#   hooks     build-intree.sh knows how to put the device into the tree
#   control   a wrong call, and a tree that claims to be another version, do not compile
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=stub/files.sh
source stub/files.sh

usage() {
    cat <<'USAGE'
usage: tests/qemu-compile.sh [SRC...]

SRC is an unpacked QEMU source tree of any version from 4.2 on; it is not changed. Prints one line
per tree. Without a tree it skips (exit status 77); CC names another compiler.

  example: tests/qemu-compile.sh ~/qemu-4.2.1 ~/qemu-10.2.2
USAGE
}

case ${1:-} in
-h | --help) usage && exit ;;
esac
if (($# == 0)); then
    echo 'SKIPPED: no QEMU source tree was given: tests/qemu-compile.sh SRC'
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# at_least MAJOR.MINOR - whether the tree is that or newer
at_least() { [[ $(printf '%s\n%s\n' "$1" "$version" | sort -V | head -n 1) == "$1" ]]; }

# compile HEADERS OBJECT FILE OPTIONS...
compile() {
    local headers=$1 object=$2 file=$3
    shift 3
    "${CC:-cc}" "$std" -O2 -fPIC -fno-strict-aliasing -fwrapv -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 \
        -D_LARGEFILE_SOURCE -Wall -Wextra -Wstrict-prototypes -Wpointer-arith -Wwrite-strings \
        -Wformat=2 -Wundef -Werror -I. -Istub "-I$work" -isystem "$headers" -isystem "$headers/include" \
        "${glib_cflags[@]}" "$@" -c "$file" -o "$object"
}

compile_all() {
    local file objects=$work/objects
    mkdir -p "$objects"
    for file in "${vgpu_pure[@]}" "${vgpu_qemu[@]}"; do
        compile "$headers" "$objects/$(basename "$file" .c).o" "$file" || return
    done
    at_least 7.2 || return 0
    for file in "${vgpu_qemu[@]}" stub/vgpu_plugin.c; do
        compile "$headers" "$work/plugin.o" "$file" -DVGPU_STUB_PLUGIN || return
    done
}

# A QEMU without KVM has these functions and variables from a file of stubs.
check_without_kvm() {
    local symbol stubs=$src/accel/stubs/kvm-stub.c bad=0
    while read -r symbol; do
        if ! grep -qw "$symbol" "$stubs"; then
            echo "  $symbol is not in accel/stubs/kvm-stub.c"
            bad=1
        fi
    done < <(nm -u --format=posix "$work"/objects/*.o | awk '$1 ~ /^kvm_/ { print $1 }' | sort -u)
    return "$bad"
}

# The files that are hooked are copied; the device goes in, twice, once only.
check_hooks() {
    local tree=$work/tree file i want
    rm -rf "$tree"
    mkdir -p "$tree"
    for file in VERSION meson.build Makefile.objs hw/misc/Kconfig hw/misc/meson.build \
        hw/misc/Makefile.objs default-configs/i386-softmmu.mak; do
        [[ ! -e $src/$file ]] || install -D -m 644 "$src/$file" "$tree/$file"
    done
    for i in 1 2; do
        stub/build-intree.sh "$tree" --copy-only >"$work/hooks.log" 2>&1 || {
            sed 's/^/  /' "$work/hooks.log"
            return 1
        }
    done
    i=$(cd "$tree" && find . -type f ! -path './hw/misc/vgpu/*' -exec grep -iE '(/|\b)vgpu\b|VGPU_STUB=' {} + | wc -l)
    at_least 5.2 && want=3 || want=4
    ((i == want)) || { echo "  $i lines of the tree name the device instead of $want" && return 1; }
}

# fails WHAT HEADERS FILE - whether the compiler refuses it
fails() {
    if compile "$2" "$work/control.o" "$3" 2>"$work/control.log"; then
        echo "  control: $1 compiles, so this test sees nothing"
        return 1
    fi
    grep -q 'error:' "$work/control.log"
}

check_control() {
    local lie='10 2' other=$work/other
    ! at_least 7.0 || lie='4 2'
    cat stub/vgpu_pci.c - >"$work/wrong.c" <<'C'
void vgpu_wrong(MemoryRegion *mr);
void vgpu_wrong(MemoryRegion *mr)
{
    memory_region_add_eventfd(mr, 0, 4, false, NULL);
}
C
    fails 'a call with a wrong argument' "$headers" "$work/wrong.c" || return
    rm -rf "$other"
    mkdir "$other"
    sed -E "s/(QEMU_VERSION_MAJOR) .*/\1 ${lie% *}/; s/(QEMU_VERSION_MINOR) .*/\1 ${lie#* }/" \
        "$headers/config-host.h" >"$other/config-host.h"
    ln -s "$headers"/{include,qapi} "$other/"
    cp "$headers/config-poison.h" "$other/"
    fails "a tree that says it is ${lie/ /.}" "$other" stub/vgpu_pci.c
}

check_tree() {
    compile_all && check_without_kvm && check_hooks && check_control || return
    echo "QEMU $version: compiles (${std#-std=}$(! at_least 7.2 || echo ', also as a plug-in'))," \
        "needs no KVM, takes the hooks; the wrong ones do not compile"
}

read -ra glib_cflags <<<"$(pkg-config --cflags glib-2.0)"
status=0 n=0
for src in "$@"; do
    src=$(cd "$src" && pwd)
    n=$((n + 1))
    headers=$(stub/qemu-headers.sh --source "$src" --out "$work/headers-$n")
    version=$(<"$src/VERSION")
    std=-std=gnu11
    at_least 6.0 || std=-std=gnu99
    # The same functions that QEMU's trace generator makes, in both forms.
    awk -f stub/trace-plugin.awk stub/trace-events | tee "$work/trace.h" >"$work/trace-vgpu-plugin.h"
    rm -rf "$work/objects"
    if ! check_tree; then
        echo "QEMU $version: FAILED, see above ($src)"
        status=1
    fi
done
exit "$status"

#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# device-patch.sh - the device as one patch against a QEMU source tree, made from stub/ when it is asked for
#
# stub/build-intree.sh puts the device into a copy of what it changes; the difference is the patch. The
# tree may have other patches already: give it as it is before the device's turn.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$(dirname "$here")")

usage() {
    cat <<'USAGE'
usage: deploy/qemu/device-patch.sh SRC           prints the patch (-p1) for the tree SRC
       deploy/qemu/device-patch.sh SRC --quilt   makes it debian/patches/vgpu-stub.patch, last in series
       deploy/qemu/device-patch.sh SRC --rpm SPEC [NUMBER]
                                                 makes it vgpu-stub.patch beside the spec file's sources
                                                 and names it there as PatchNUMBER (default: the next)
Nothing else of SRC is changed. Run it again after a change of the device; --quilt and --rpm replace
what they made before.
USAGE
}

case ${1:-} in
-h | --help) usage && exit ;;
'' | -*) usage >&2 && exit 2 ;;
esac
src=$(cd "$1" && pwd)
mode=${2:-} spec=${3:-} number=${4:-}
[[ -r $src/VERSION && -d $src/hw/misc ]] || {
    echo "device-patch.sh: $src is not the source of QEMU" >&2
    exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The files that the device's hooks are in; those that a version does not have are left out.
hooked=(VERSION meson.build Makefile.objs hw/misc/Kconfig hw/misc/meson.build hw/misc/Makefile.objs
    default-configs/i386-softmmu.mak)
make_patch() {
    local file
    for file in "${hooked[@]}"; do
        [[ ! -e $src/$file ]] || install -D -m 644 "$src/$file" "$work/a/$file"
    done
    if [[ -e $src/hw/misc/vgpu/vgpu_pci.c ]]; then
        echo "device-patch.sh: $src has the device already: take the patch back first (quilt pop)" >&2
        return 1
    fi
    cp -r "$work/a" "$work/b"
    "$root/stub/build-intree.sh" "$work/b" --copy-only >&2
    cat <<'HEADER'
Description: vgpu-stub, the PCI function of a pooled GPU
 A line each in three or four files hooks hw/misc/vgpu in. Made by deploy/qemu/device-patch.sh of the project vgpu; do not
 edit it, make it anew.
Forwarded: not-needed

HEADER
    # Without times, so that the same device gives the same patch.
    cd "$work"
    { TZ=UTC0 diff -urN a b || (($? == 1)); } |
        sed -E 's,^--- .*\t1970-01-01 .*,--- /dev/null,; s/^(---|\+\+\+) ([^\t]*)\t.*/\1 \2/; /^diff -urN /d'
}

case $mode in
'') make_patch ;;
--quilt)
    [[ -e $src/debian/patches/series ]] || {
        echo "device-patch.sh: $src has no debian/patches/series: unpack it with dpkg-source -x" >&2
        exit 1
    }
    make_patch >"$work/new"
    mv "$work/new" "$src/debian/patches/vgpu-stub.patch"
    grep -qx vgpu-stub.patch "$src/debian/patches/series" ||
        echo vgpu-stub.patch >>"$src/debian/patches/series"
    echo "$src/debian/patches/vgpu-stub.patch"
    ;;
--rpm)
    [[ -f $spec ]] || { usage >&2 && exit 2; }
    sources=$(dirname "$(dirname "$(realpath "$spec")")")/SOURCES
    [[ -d $sources ]] || sources=$(dirname "$(realpath "$spec")")
    make_patch >"$work/new"
    mv "$work/new" "$sources/vgpu-stub.patch"
    if ! grep -qE '^Patch[0-9]+: *vgpu-stub\.patch$' "$spec"; then
        last=$(grep -oE '^Patch[0-9]+:' "$spec" | tail -n 1 | tr -dc 0-9)
        [[ -n $last ]] || { echo "device-patch.sh: $spec has no PatchN: line" >&2 && exit 1; }
        sed -i "/^Patch$last:/a Patch${number:-$((10#$last + 1))}: vgpu-stub.patch" "$spec"
    fi
    echo "$sources/vgpu-stub.patch"
    ;;
*) usage >&2 && exit 2 ;;
esac

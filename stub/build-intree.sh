#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# build-intree.sh - put the device into a QEMU source tree, and build it
#
# Copies the device to hw/misc/vgpu (include paths made flat), applies the patch of the tree's series,
# which only hooks that folder in, and builds. Running it again updates the copied files.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")

usage() {
    cat <<'EOF'
usage: build-intree.sh SRC [--build DIR] [--small] [--copy-only] [-- CONFIGURE-OPTIONS]
  SRC          a QEMU source tree; it is changed
  --build DIR  where to build; default SRC/build-vgpu
  --small      x86_64 only, few features and devices: a test build of a few minutes
  --copy-only  copy and patch, do not build (for a distribution's own build)
Prints the path of the QEMU that was built.
EOF
}

src='' build='' small='' copy_only='' options=()
while (($#)); do
    case $1 in
    --build) build=${2:?--build needs a folder}; shift 2 ;;
    --small) small=1; shift ;;
    --copy-only) copy_only=1; shift ;;
    -h | --help) usage; exit 0 ;;
    --) shift; options=("$@"); break ;;
    -*) usage >&2; exit 2 ;;
    *) src=$1; shift ;;
    esac
done
if [[ -z $src ]]; then
    usage >&2
    exit 2
fi
src=$(cd "$src" && pwd)
if [[ ! -r $src/VERSION || ! -d $src/hw/misc ]]; then
    echo "build-intree.sh: $src is not the source of QEMU" >&2
    exit 1
fi
version=$(<"$src/VERSION")

# choose_patch - the newest series that is not newer than the tree
choose_patch() {
    local series best=''
    for series in "$here"/patches/*; do
        series=${series##*/}
        if [[ $(printf '%s\n%s\n' "$series" "$version" | sort -V | head -n 1) == "$series" ]]; then
            best=$(printf '%s\n%s\n' "$best" "$series" | sort -V | tail -n 1)
        fi
    done
    if [[ -z $best ]]; then
        echo "build-intree.sh: no patch series for QEMU $version" >&2
        return 1
    fi
    echo "$here/patches/$best/vgpu-stub.patch"
}

# Only a file that changed is written, so that a second build compiles only that.
copy_flat() {
    local file=$1 to=$2
    sed -E 's,#include "(proto|common/core|stub)/,#include ",' "$file" >"$to.new"
    if cmp -s "$to.new" "$to"; then
        rm "$to.new"
    else
        mv "$to.new" "$to"
    fi
}

dest=$src/hw/misc/vgpu
mkdir -p "$dest"
for file in stub/vgpu_{bar0,chan,relay}.{c,h} stub/vgpu_pci.c stub/vgpu_{compat,trace}.h \
    proto/vgpu_regs.h proto/vgpu_local.h common/core/request.{c,h} common/core/names.c \
    stub/trace-events stub/intree/{Kconfig,meson.build,Makefile.objs,trace.h}; do
    copy_flat "$root/$file" "$dest/$(basename "$file")"
done
patch_file=$(choose_patch)
if ! patch -d "$src" -p1 -R --dry-run -s -f -i "$patch_file" >/dev/null 2>&1; then
    patch -d "$src" -p1 -N -i "$patch_file" >&2
fi
[[ -z $copy_only ]] || exit 0

build=${build:-$src/build-vgpu}
if [[ -n $small ]]; then
    mkdir -p "$src/configs/devices/x86_64-softmmu"
    cp "$here/intree/devices.mak" "$src/configs/devices/x86_64-softmmu/vgpu.mak"
    options=(--target-list=x86_64-softmmu --without-default-features --without-default-devices
        --with-devices-x86_64=vgpu --enable-kvm --enable-tcg --disable-docs "${options[@]}")
fi
mkdir -p "$build"
if [[ ! -r $build/build.ninja ]]; then
    (cd "$build" && "$src/configure" "${options[@]}") >&2
fi
ninja -C "$build" -j "${JOBS:-$(nproc)}" qemu-system-x86_64 >&2
echo "$build/qemu-system-x86_64"

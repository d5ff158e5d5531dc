#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# build-intree.sh - put the device into a QEMU source tree, and build it
#
# Copies the device to hw/misc/vgpu (include paths made flat), hooks that folder in with three lines (in
# Kconfig, in the list of objects, in the list of trace events), and builds. Any QEMU from 4.2 on.
# Running it again updates the copied files.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
# shellcheck source=files.sh
. "$here/files.sh"

usage() {
    cat <<'EOF'
usage: build-intree.sh SRC [--build DIR] [--small] [--copy-only] [-- CONFIGURE-OPTIONS]
  SRC          a QEMU source tree; it is changed
  --build DIR  where to build; default SRC/build-vgpu
  --small      x86_64 only, few features and devices: a test build of a few minutes
  --copy-only  copy and hook in, do not build (for a distribution's own build)
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

# hook FILE LINE [AFTER] - LINE is in FILE once: behind the line AFTER, else at the end
hook() {
    local file=$src/$1 line=$2 after=${3:-}
    ! grep -qxF -- "$line" "$file" || return 0
    if [[ -z $after ]]; then
        printf '%s\n' "$line" >>"$file"
    elif ! grep -qxF -- "$after" "$file"; then
        echo "build-intree.sh: $file has no line \"$after\": this QEMU is not understood" >&2
        return 1
    else
        AFTER=$after LINE=$line awk '{ print } $0 == ENVIRON["AFTER"] { print ENVIRON["LINE"] }' \
            "$file" >"$file.new"
        cat "$file.new" >"$file"
        rm "$file.new"
    fi
}

hook_in() {
    hook hw/misc/Kconfig 'source vgpu/Kconfig'
    if [[ -e $src/meson.build ]]; then
        hook hw/misc/meson.build "subdir('vgpu')"
        hook meson.build "    'hw/misc/vgpu'," "    'hw/misc/macio',"
        return
    fi
    # Before 5.2. The list of devices is that of --without-default-devices, which XCP-ng uses.
    # shellcheck disable=SC2016
    hook hw/misc/Makefile.objs 'common-obj-$(CONFIG_VGPU_STUB) += vgpu/'
    hook Makefile.objs 'trace-events-subdirs += hw/misc/vgpu' 'trace-events-subdirs += hw/misc/macio'
    hook default-configs/i386-softmmu.mak 'CONFIG_VGPU_STUB=y'
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
own=(trace-events intree/Kconfig)
if [[ -e $src/meson.build ]]; then
    own+=(intree/meson.build intree/trace.h)
else
    own+=(intree/Makefile.objs) # its trace.h is generated under that name
fi
for file in "${vgpu_pure[@]}" "${vgpu_qemu[@]}" "${vgpu_headers[@]}" "${own[@]/#/stub/}"; do
    copy_flat "$root/$file" "$dest/$(basename "$file")"
done
hook_in
[[ -z $copy_only ]] || exit 0

build=${build:-$src/build-vgpu}
if [[ -n $small ]]; then
    mkdir -p "$src/configs/devices/x86_64-softmmu"
    cp "$here/intree/devices.mak" "$src/configs/devices/x86_64-softmmu/vgpu.mak"
    options=(--target-list=x86_64-softmmu --without-default-features --without-default-devices
        --with-devices-x86_64=vgpu --enable-kvm --enable-tcg --disable-docs
        --disable-install-blobs "${options[@]}")
fi
mkdir -p "$build"
if [[ ! -r $build/build.ninja ]]; then
    (cd "$build" && "$src/configure" "${options[@]}") >&2
fi
ninja -C "$build" -j "${JOBS:-$(nproc)}" qemu-system-x86_64 >&2
echo "$build/qemu-system-x86_64"

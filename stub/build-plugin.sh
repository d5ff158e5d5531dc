#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# build-plugin.sh - build the device for a finished QEMU binary
#
# -> build/plugin/vgpu-stub-MAJOR.MINOR.so, and beside it ….so.built-for with the exact version of the
# headers. Does nothing when that is as new as the sources and made for the same QEMU, so it may be
# called before every start of a VM; after an upgrade of QEMU it builds anew.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
# shellcheck source=files.sh
. "$here/files.sh"

usage() {
    cat <<'EOF'
usage: build-plugin.sh [--source DIR | --headers DIR] [--out DIR] [--force]
  --source DIR  an unpacked QEMU source; default: that of the installed package
  --headers DIR what qemu-headers.sh made from one
  --out DIR     default: build/plugin
  --force       build even if nothing changed
Prints the path of the plug-in.
EOF
}

out_dir=$root/build/plugin force='' source_args=() source_dir='' headers=''
while (($#)); do
    case $1 in
    --source) source_dir=${2:?--source needs a folder}; source_args=(--source "$2"); shift 2 ;;
    --headers) headers=${2:?--headers needs a folder}; shift 2 ;;
    --out) out_dir=${2:?--out needs a folder}; shift 2 ;;
    --force) force=1; shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
    esac
done

# What the result depends on: contents of the files, compiler, and the package that is installed or
# the source that was given.
fingerprint() {
    local package given
    package=$(dpkg-query -W -f '${source:Version}' qemu-system-x86 2>/dev/null || echo none)
    (cd "$root" && cat "${vgpu_pure[@]}" "${vgpu_qemu[@]}" stub/vgpu_plugin.c stub/*.h stub/*.awk stub/trace-events \
        stub/*.sh proto/*.h common/core/*.h | cksum)
    ${CC:-cc} --version | head -n 1
    echo "package $package"
    for given in "$source_dir" "$headers"; do
        [[ -z $given ]] || echo "$given $(<"$given/VERSION")"
    done
}

mkdir -p "$out_dir"
exec 9>"$out_dir/.lock"
flock 9 # one at a time: tests start several at once
print=$(fingerprint)
if [[ -z $force && -r $out_dir/fingerprint && $(<"$out_dir/fingerprint") == "$print" ]]; then
    cat "$out_dir/current"
    exit 0
fi

headers=${headers:-$("$here/qemu-headers.sh" "${source_args[@]}" 9>&-)}
IFS=. read -ra number <"$headers/VERSION"
name=vgpu-stub-${number[0]}.${number[1]}.so
work=$(mktemp -d "$out_dir/.work.XXXXXX")
trap 'rm -rf "$work"' EXIT

awk -f "$here/trace-plugin.awk" "$here/trace-events" >"$work/trace-vgpu-plugin.h"
read -ra glib_cflags <<<"$(pkg-config --cflags glib-2.0)"
read -ra glib_libs <<<"$(pkg-config --libs glib-2.0)"
common=(-std=gnu11 -O2 -g -fPIC -fvisibility=hidden -fno-strict-aliasing -fwrapv -D_GNU_SOURCE
    -D_FILE_OFFSET_BITS=64 -D_LARGEFILE_SOURCE -Wall -Wextra -Wshadow -Wstrict-prototypes -Wvla
    -Wpointer-arith -Wwrite-strings -Wformat=2 -Werror "-ffile-prefix-map=$root=." "-I$root"
    "-I$root/stub")
# As system headers, QEMU's own are not subject to our warnings.
with_qemu=(-DVGPU_STUB_PLUGIN "-I$work" -isystem "$headers" -isystem "$headers/include"
    "${glib_cflags[@]}")
objects=()
# The pure files come first: they need no QEMU.
for file in "${vgpu_pure[@]}" "${vgpu_qemu[@]}" stub/vgpu_plugin.c; do
    object=$work/$(basename "$file" .c).o
    extra=()
    [[ " ${vgpu_pure[*]} " == *" $file "* ]] || extra=("${with_qemu[@]}")
    ${CC:-cc} "${common[@]}" "${extra[@]}" -c "$root/$file" -o "$object"
    objects+=("$object")
done
# Weak references to QEMU: in another program the plug-in does nothing instead of stopping it.
ld -r -o "$work/all.o" "${objects[@]}"
objcopy --weaken "$work/all.o"
${CC:-cc} -shared -Wl,--no-as-needed -Wl,-Bsymbolic -Wl,-z,relro -Wl,-z,noexecstack -o "$work/$name" "$work/all.o" \
    "${glib_libs[@]}"
mv "$work/$name" "$out_dir/$name"
cp "$headers/VERSION" "$out_dir/$name.built-for"
echo "$out_dir/$name" >"$out_dir/current"
echo "$print" >"$out_dir/fingerprint"
echo "$out_dir/$name"

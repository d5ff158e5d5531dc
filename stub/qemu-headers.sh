#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# qemu-headers.sh - the headers that a device needs, out of QEMU's source
#
# Neither configures nor builds QEMU: the headers of the source, the generated QAPI headers (made by
# its own generator, about a second) and a config-host.h that states what is true of every Linux host.
# What QEMU's build options could change in the layout of types is checked when the plug-in loads.
# Does nothing when the headers are there and as new as the source.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

usage() {
    cat <<'EOF'
usage: qemu-headers.sh [--source DIR] [--out DIR]
  --source DIR  an unpacked QEMU source; default: that of the installed package, fetched by
                deploy/lib/packages.sh
  --out DIR     where the headers go; default: "headers" beside the source
Prints the folder of the headers.
EOF
}

source_dir='' out_dir=''
while (($#)); do
    case $1 in
    --source) source_dir=${2:?--source needs a folder}; shift 2 ;;
    --out) out_dir=${2:?--out needs a folder}; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
    esac
done
if [[ -z $source_dir ]]; then
    # shellcheck source=../deploy/lib/packages.sh
    . "$here/../deploy/lib/packages.sh"
    source_dir=$(pkg_qemu_source)
fi
if [[ ! -r $source_dir/VERSION || ! -r $source_dir/include/qemu/osdep.h ]]; then
    echo "qemu-headers.sh: $source_dir is not the source of QEMU: it has no VERSION and include/" >&2
    exit 1
fi
out_dir=${out_dir:-$(dirname "$source_dir")/headers}
mkdir -p "$(dirname "$out_dir")"
exec 9>"$out_dir.lock"
flock 9
version=$(<"$source_dir/VERSION")
stamp="$version $(cksum <"$0")"
if [[ -r $out_dir/STAMP && $(<"$out_dir/STAMP") == "$stamp" ]]; then
    echo "$out_dir"
    exit 0
fi

case $(uname -m) in
x86_64) macro=HOST_X86_64 arch=x86 ;;
aarch64) macro=HOST_AARCH64 arch=arm64 ;;
*)
    echo "qemu-headers.sh: no plug-in on $(uname -m); build the device in QEMU's tree" >&2
    exit 1
    ;;
esac

write_config() {
    local name
    local -a number
    IFS=. read -ra number <<<"$version"
    echo '/* What is true of a Linux host with glibc; see stub/qemu-headers.sh. */'
    echo '#pragma once'
    for name in CONFIG_POSIX CONFIG_LINUX CONFIG_IOVEC CONFIG_INT128 CONFIG_INT128_TYPE \
        CONFIG_ATOMIC64 CONFIG_EVENTFD CONFIG_EPOLL CONFIG_PPOLL CONFIG_PREADV CONFIG_MADVISE \
        CONFIG_POSIX_MADVISE CONFIG_SIGNALFD CONFIG_MEMFD CONFIG_GETTID HAVE_SYSTEM_FUNCTION \
        HAVE_STRCHRNUL HAVE_MLOCKALL "$macro"; do
        echo "#define $name 1"
    done
    echo "#define QEMU_VERSION \"$version\""
    echo "#define QEMU_VERSION_MAJOR ${number[0]}"
    echo "#define QEMU_VERSION_MINOR ${number[1]}"
    echo "#define QEMU_VERSION_MICRO ${number[2]:-0}"
}

part=$out_dir.part.$$
trap 'rm -rf "$part"' EXIT
mkdir -p "$part/qapi"
cp -r "$source_dir/include" "$part/include"
# The kernel's headers that QEMU brings along: newer than the system's may be.
cp -r "$source_dir/linux-headers/linux" "$part/include/"
cp -r "$source_dir/linux-headers/asm-$arch" "$part/include/asm"
python3 -B "$source_dir/scripts/qapi-gen.py" -b -o "$part/qapi-all" "$source_dir/qapi/qapi-schema.json"
find "$part/qapi-all" -name '*.h' -exec mv -t "$part/qapi" {} +
rm -rf "$part/qapi-all"
write_config >"$part/config-host.h"
: >"$part/config-poison.h"
echo "$version" >"$part/VERSION"
echo "$stamp" >"$part/STAMP"
rm -rf "$out_dir"
mv "$part" "$out_dir"
echo "$out_dir"

#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# install-plugin.sh - the plug-in for this host's QEMU, and apt's hook that builds it anew after an
# upgrade of QEMU
#
# What it installs is all in /usr/lib/vgpu, but for two files: a link to the wrapper in /usr/bin, and
# the hook in apt's configuration. --remove takes all of it away.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$(dirname "$here")")
lib=/usr/lib/vgpu hook=/etc/apt/apt.conf.d/80vgpu-plugin wrapper=/usr/bin/qemu-with-vgpu

usage() {
    cat <<EOF
usage: deploy/qemu/install-plugin.sh [--remove]

Needs root. Installs what building the plug-in needs (Debian packages), copies the device's sources to
$lib/source, builds $lib/vgpu-stub-MAJOR.MINOR.so, and makes
  $wrapper            starts a VM with it (docs/qemu.md)
  $lib/rebuild-plugin      builds it if QEMU or the sources have changed
  $hook  lets apt call that after every change of packages
EOF
}

remove() {
    rm -rf "$lib/source" "$lib/rebuild-plugin" "$lib"/vgpu-stub-*.so* "$lib/fingerprint" "$lib/current" \
        "$lib/.lock" "$hook" "$wrapper" /var/cache/vgpu/qemu /var/cache/vgpu/apt
    rmdir --ignore-fail-on-non-empty "$lib" /var/cache/vgpu 2>/dev/null || true
}

case ${1:-} in
-h | --help) usage && exit ;;
--remove) remove && exit ;;
'') ;;
*) usage >&2 && exit 2 ;;
esac
((EUID == 0)) || { echo 'install-plugin.sh needs root' >&2 && exit 1; }
# shellcheck source=../lib/ui.sh
source "$root/deploy/lib/ui.sh"
# shellcheck source=../lib/packages.sh
source "$root/deploy/lib/packages.sh"

pkg_install /var/log/vgpu-plugin.log qemu-source
rm -rf "$lib/source"
mkdir -p "$lib/source"
(cd "$root" && tar -c --exclude='*.md' stub proto common/core deploy/lib/packages.sh) | tar -x -C "$lib/source"
install -m 755 "$here/rebuild-plugin" "$lib/rebuild-plugin"
ln -sfn "$lib/source/stub/qemu-with-vgpu" "$wrapper"
# When the folder is gone the hook is silent; it never makes apt fail.
cat >"$hook" <<EOF
// QEMU may have changed: build the vgpu-stub plug-in for it. See $lib/rebuild-plugin.
DPkg::Post-Invoke { "[ ! -x $lib/rebuild-plugin ] || $lib/rebuild-plugin || true"; };
EOF
"$lib/rebuild-plugin"

#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# qemu-upgrade-inside.sh - in a fresh Debian: QEMU is upgraded by apt, and the plug-in follows by itself
#
# The older QEMU is the newest package with a smaller version number, for which no mirror has a source.
set -euo pipefail
cd "$(dirname "$0")/../.."
source deploy/lib/ui.sh
source deploy/lib/packages.sh
logs=/var/tmp/logs work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$logs"

fail() {
    echo "$*" >&2
    exit 1
}

older_package() {
    local version
    cd "$work"
    apt-get -q -o APT::Sandbox::User=root download qemu-system-x86
    version=$(dpkg-deb -f qemu-system-x86_*.deb Version)
    dpkg-deb -R qemu-system-x86_*.deb tree
    sed -i "s/^Version: .*/Version: ${version%%+*}~older/; s/^Source: .*/Source: qemu/; s/\(qemu-system-common\) (= [^)]*)/\1/" tree/DEBIAN/control
    dpkg-deb -Znone -b tree older.deb
    apt-get -q -y install --reinstall --allow-downgrades --no-install-recommends ./older.deb
}

# pci_devices - what a VM with the device has on its bus; what the wrapper says is in $work/said
pci_devices() {
    echo '{"execute":"qmp_capabilities"}{"execute":"query-pci"}{"execute":"quit"}' |
        qemu-with-vgpu -accel tcg -S -nodefaults -display none -qmp stdio \
            -device vgpu-stub,socket=/nonexistent/vgpu.sock 2>"$work/said"
}

apt-get -q -y update >"$logs/update.log" 2>&1 || true
pkg_install "$logs/packages.log" qemu-source
deploy/qemu/install-plugin.sh --remove
ui_step 'installing an older QEMU' "$logs/older.log" older_package
! deploy/qemu/install-plugin.sh >"$logs/install.log" 2>&1 || fail 'a plug-in without any source'
grep -q 'vgpu: no vgpu-stub plug-in for QEMU .*~older' "$logs/install.log" || fail "$(cat "$logs/install.log")"
pci_devices | grep -q '"return"' || fail 'the VM did not start'
grep -q 'The VM starts WITHOUT its vGPU' "$work/said" || fail "not loud: $(cat "$work/said")"
ui_ok 'no plug-in: the VM starts without the device, loudly'

ui_step 'upgrading QEMU' "$logs/upgrade.log" apt-get -q -y install --no-install-recommends qemu-system-x86
grep -q '^vgpu: built the vgpu-stub plug-in for QEMU' "$logs/upgrade.log" ||
    fail "apt did not build it: $(tail -n 5 "$logs/upgrade.log")"
pci_devices | grep -q '"device": 22087' || fail "no device: $(cat "$work/said")"
[[ ! -s $work/said ]] || fail "$(cat "$work/said")"
[[ ! -e /var/cache/vgpu/qemu ]] || fail 'the source of QEMU was left behind'
ui_ok 'the VM has its device again'

before=$(stat -c %Y.%i /usr/lib/vgpu/vgpu-stub-*.so)
ui_step 'reinstalling another package' "$logs/other.log" apt-get -q -y install --reinstall hostname
! grep -q '^vgpu' "$logs/other.log" || fail "not silent: $(grep ^vgpu "$logs/other.log")"
[[ $(stat -c %Y.%i /usr/lib/vgpu/vgpu-stub-*.so) == "$before" ]] || fail 'built without need'

# The sources of the plug-in break: apt does its work all the same.
echo '#error broken' >>/usr/lib/vgpu/source/stub/vgpu_pci.c
ui_step 'an upgrade with a plug-in that does not build' "$logs/broken.log" \
    apt-get -q -y install --reinstall hostname
grep -q '^vgpu: no vgpu-stub plug-in' "$logs/broken.log" || fail "$(tail -n 5 "$logs/broken.log")"
pci_devices | grep -q '"device": 22087' || fail 'the old plug-in is gone'

deploy/qemu/install-plugin.sh --remove
ui_step 'removing it' "$logs/removed.log" apt-get -q -y install --reinstall hostname
! grep -q vgpu "$logs/removed.log" || fail 'the hook is still there'
[[ -z $(find /usr/lib/vgpu /usr/bin/qemu-with-vgpu /etc/apt/apt.conf.d/*vgpu* 2>/dev/null) ]] || fail 'leftovers'

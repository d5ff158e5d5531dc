#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# qemu-inside.sh - in a fresh Debian: the plug-in for its QEMU, then QEMU's source with the device in
# it; each has to pass the device's tests and boot the multiboot guest with a real mediator and worker
#
# Where the mirror has the package and not its source: the VM starts without the device, loudly; the
# tree is $VGPU_QEMU_TREE's (in /var/tmp/tree) or that part is skipped.
set -euo pipefail
cd "$(dirname "$0")/../.."
source deploy/lib/ui.sh
source deploy/lib/packages.sh
tree=/var/tmp/tree logs=/var/tmp/logs
mkdir -p "$logs"
export PYTHONPATH=tests/lib VGPU_BIN=$PWD/build/dev/bin
tests=(tests/integration/test_multiboot_guest.py
    tests/integration/test_stub_{registers,relay,faults,shm,hotplug,stack,confined}.py)

build() {
    cmake --preset dev && cmake --build --preset dev -j "${JOBS:-$(nproc)}" --target \
        guest.elf vgpu-mediator vgpu-worker vgpuctl vgpu
}
run_tests() { python3 -B -m pytest -q -p no:cacheprovider "$@"; }

# starts_without - with no plug-in that fits, the wrapper says so and QEMU runs
starts_without() {
    local said
    said=$(echo '{"execute":"qmp_capabilities"}{"execute":"query-pci"}{"execute":"quit"}' |
        VGPU_PLUGIN_DIR=/nonexistent stub/qemu-with-vgpu -accel tcg -S -nodefaults -display none -qmp stdio \
            -device vgpu-stub,socket=/nonexistent/vgpu.sock -device pci-testdev 2>&1)
    grep -q 'WITHOUT its vGPU' <<<"$said" && grep -q '"device": 5' <<<"$said" &&
        ! grep -q '"device": 22087' <<<"$said"
}

apt-get -q -y update >"$logs/update.log" 2>&1 || true
pkg_install "$logs/packages.log" build run qemu-source qemu-tree
ui_step 'installing pytest' "$logs/pytest.log" pkg_apt_install python3-pytest
ui_step 'building the programs' "$logs/build.log" build
ui_note "$(qemu-system-x86_64 --version | head -n 1)"
ui_step 'without a plug-in the VM starts all the same' "$logs/without.log" starts_without

no_source=''
if source=$(pkg_qemu_source 2>"$logs/source.log"); then
    ui_step 'building the plug-in' "$logs/plugin.log" stub/build-plugin.sh
    ui_step 'the plug-in in the stock QEMU: tests' "$logs/stock.log" \
        run_tests "${tests[@]}" tests/integration/test_stub_plugin.py
    ui_note "$(tail -n 1 "$logs/stock.log")"
    ui_step 'it compiles against that source' "$logs/compile.log" tests/qemu-compile.sh "$source"
    [[ -d $tree ]] || cp -r "$source" "$tree"
else
    no_source="the mirror has $(qemu-system-x86_64 --version | sed -n '1s/.*version //p') and not its source"
    ui_warn "$no_source: no plug-in"
fi
if [[ ! -d $tree ]]; then
    echo "SKIPPED: $no_source"
    exit 77
fi
ui_step 'it compiles against the tree' "$logs/compile.log" tests/qemu-compile.sh "$tree"
ui_step "QEMU $(<"$tree/VERSION") with the device in its tree: building" "$logs/intree.log" \
    stub/build-intree.sh "$tree" --small
# Debian's source comes without firmware; that of the packages is used.
export VGPU_TEST_QEMU=$tree/build-vgpu/qemu-system-x86_64
export VGPU_TEST_QEMU_ARGS='-L /usr/share/seabios -L /usr/share/qemu'
"$VGPU_TEST_QEMU" -trace help | grep -q '^vgpu_stub_submit$'
ui_step "QEMU $(<"$tree/VERSION") with the device in its tree: tests" "$logs/tests.log" run_tests "${tests[@]}"
ui_note "$(tail -n 1 "$logs/tests.log")"
[[ -z $no_source ]] || ui_warn "$no_source: the plug-in was not tried"

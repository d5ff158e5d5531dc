#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The newest QEMU in Debian: plug-in and in-tree build pass the device's tests and boot the multiboot
# guest. VGPU_QEMU_TREE=DIR: the source tree to use where the mirror does not have the package's.
exec tests/lib/qemu-chroot.sh sid qemu-inside.sh

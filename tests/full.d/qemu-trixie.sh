#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Debian 13's QEMU: plug-in and in-tree build pass the device's tests and boot the multiboot guest.
exec tests/lib/qemu-chroot.sh trixie qemu-inside.sh

#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# An upgrade of QEMU on Debian 12: apt's hook builds the plug-in anew, and never stops apt or a VM.
exec tests/lib/qemu-chroot.sh bookworm qemu-upgrade-inside.sh

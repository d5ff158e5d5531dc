# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# shellcheck disable=SC2034
#
# files.sh - the files of the device, for every way to build it; names from the top of the tree
#
# stub/intree/meson.build and stub/intree/Makefile.objs list the C files again, for QEMU's own build;
# a test compares.

# Without any QEMU header.
vgpu_pure=(
    common/core/names.c
    common/core/request.c
    stub/vgpu_bar0.c
    stub/vgpu_layout.c
    stub/vgpu_relay.c
)
# In QEMU's tree and in the plug-in, which has stub/vgpu_plugin.c besides.
vgpu_qemu=(
    stub/vgpu_bells.c
    stub/vgpu_chan.c
    stub/vgpu_pci.c
)
vgpu_headers=(
    common/core/request.h
    proto/vgpu_local.h
    proto/vgpu_regs.h
    stub/vgpu_bar0.h
    stub/vgpu_bells.h
    stub/vgpu_chan.h
    stub/vgpu_compat.h
    stub/vgpu_layout.h
    stub/vgpu_relay.h
    stub/vgpu_trace.h
)

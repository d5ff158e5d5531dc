# SPDX-License-Identifier: GPL-2.0-or-later
# The devices of a small test build: build-intree.sh --small.
CONFIG_CXL=y
CONFIG_CXL_MEM_DEVICE=y
CONFIG_PXB=y
CONFIG_I440FX=y
CONFIG_ISA_DEBUG=y
CONFIG_Q35=y
CONFIG_PCI_TESTDEV=y
CONFIG_PCIE_PORT=y
CONFIG_VGPU_STUB=y

# SPDX-License-Identifier: MIT
vgpu_pytest(integration/test_multiboot_guest.py LABELS kvm TIMEOUT 900)

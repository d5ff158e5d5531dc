# SPDX-License-Identifier: MIT
vgpu_unit_test(test_vgpu_bar0 unit/test_vgpu_bar0.c LIBS vgpu_stub_core)
vgpu_unit_test(test_vgpu_layout unit/test_vgpu_layout.c LIBS vgpu_stub_core)
vgpu_unit_test(test_vgpu_relay unit/test_vgpu_relay.c LIBS vgpu_stub_core)

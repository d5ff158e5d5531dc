# SPDX-License-Identifier: MIT
vgpu_unit_test(test_request unit/test_request.c LIBS vgpu_core)
vgpu_unit_test(test_ranges unit/test_ranges.c LIBS vgpu_core)
vgpu_unit_test(test_heap unit/test_heap.c LIBS vgpu_core)
vgpu_unit_test(test_sched unit/test_sched.c LIBS vgpu_core)
vgpu_unit_test(test_ring unit/test_ring.c LIBS vgpu_core)
vgpu_unit_test(test_spin unit/test_spin.c LIBS vgpu_core)
vgpu_unit_test(test_poller unit/test_poller.c LIBS vgpu_common)
vgpu_unit_test(test_proto unit/test_proto.c LIBS vgpu_proto)
vgpu_unit_test(test_layouts_agree unit/test_layouts_agree.c
  LIBS vgpu_stub_core mediator_core vgpu_guest vgpu_core)

# SPDX-License-Identifier: MIT
vgpu_unit_test(test_request unit/test_request.c LIBS vgpu_core)
vgpu_unit_test(test_ranges unit/test_ranges.c LIBS vgpu_core)
vgpu_unit_test(test_heap unit/test_heap.c LIBS vgpu_core)
vgpu_unit_test(test_sched unit/test_sched.c LIBS vgpu_core)
vgpu_unit_test(test_proto unit/test_proto.c LIBS vgpu_proto)

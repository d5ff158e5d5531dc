# SPDX-License-Identifier: MIT
vgpu_unit_test(test_seqpacket unit/test_seqpacket.c LIBS vgpu_common)
vgpu_unit_test(test_log unit/test_log.c LIBS vgpu_common)
vgpu_unit_test(test_conf unit/test_conf.c LIBS vgpu_common)
vgpu_unit_test(test_mediator_inflight unit/test_mediator_inflight.c LIBS mediator_core)
vgpu_unit_test(test_mediator_core unit/test_mediator_core.c LIBS mediator_core)
vgpu_unit_test(test_regionset unit/test_regionset.c LIBS mediator_core)

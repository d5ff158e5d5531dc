# SPDX-License-Identifier: MIT
vgpu_unit_test(test_ops_form unit/test_ops_form.c LIBS vgpu_ops)
vgpu_unit_test(test_ops_vectors unit/test_ops_vectors.c LIBS vgpu_ops)
vgpu_unit_test(test_ops_matrices unit/test_ops_matrices.c LIBS vgpu_ops)
vgpu_unit_test(test_fft_cache unit/test_fft_cache.c LIBS vgpu_cpu)
vgpu_unit_test(test_cpu_backend unit/test_cpu_backend.c
  ${CMAKE_SOURCE_DIR}/gpu-worker/backends.c LIBS vgpu_cpu TIMEOUT 120)
vgpu_unit_test(test_worker_job unit/test_worker_job.c
  ${CMAKE_SOURCE_DIR}/gpu-worker/job.c LIBS vgpu_ops)
vgpu_unit_test(test_worker_jobring unit/test_worker_jobring.c
  ${CMAKE_SOURCE_DIR}/gpu-worker/jobring.c ${CMAKE_SOURCE_DIR}/gpu-worker/region.c
  LIBS vgpu_common vgpu_core)
vgpu_unit_test(test_worker_region unit/test_worker_region.c
  ${CMAKE_SOURCE_DIR}/gpu-worker/region.c LIBS vgpu_core)

# SPDX-License-Identifier: MIT
vgpu_fuzz_target(fuzz_request fuzz/fuzz_request.c LIBS vgpu_core SECONDS 5)
vgpu_fuzz_target(fuzz_msgcheck fuzz/fuzz_msgcheck.c LIBS vgpu_common SECONDS 5)
vgpu_fuzz_target(fuzz_ring fuzz/fuzz_ring.c fuzz/mutator.c LIBS vgpu_core SECONDS 5 THREADS)
vgpu_fuzz_target(fuzz_ring_driver fuzz/fuzz_ring_driver.c fuzz/mutator.c LIBS vgpu_core SECONDS 5
  THREADS)

# SPDX-License-Identifier: MIT
if(TARGET vgpu_cmd)
  vgpu_fuzz_target(fuzz_npy fuzz/fuzz_npy.c LIBS vgpu_cmd)
  vgpu_fuzz_target(fuzz_rings_find fuzz/fuzz_rings_find.c LIBS vgpu_guest SECONDS 5)
endif()

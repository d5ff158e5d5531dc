# SPDX-License-Identifier: MIT
vgpu_fuzz_target(fuzz_request fuzz/fuzz_request.c LIBS vgpu_core SECONDS 5)
vgpu_fuzz_target(fuzz_msgcheck fuzz/fuzz_msgcheck.c LIBS vgpu_common SECONDS 5)

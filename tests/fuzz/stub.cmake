# SPDX-License-Identifier: MIT
vgpu_fuzz_target(fuzz_vgpu_stub fuzz/fuzz_vgpu_stub.c LIBS vgpu_stub_core SECONDS 5)

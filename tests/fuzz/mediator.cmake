# SPDX-License-Identifier: MIT
if(TARGET mediator_core)
  vgpu_fuzz_target(fuzz_hello fuzz/fuzz_hello.c "${PROJECT_SOURCE_DIR}/local-mediator/shmopen.c"
    LIBS mediator_core vgpu_common SECONDS 5)
  vgpu_fuzz_target(fuzz_inflight fuzz/fuzz_inflight.c LIBS mediator_core SECONDS 5)
endif()

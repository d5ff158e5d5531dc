# SPDX-License-Identifier: MIT
foreach(part IN ITEMS handshake requests hostile life worker)
  vgpu_pytest(integration/test_shm_${part}.py LABELS san TIMEOUT 600)
endforeach()

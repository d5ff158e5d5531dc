# SPDX-License-Identifier: MIT
foreach(part IN ITEMS path faults input life worker rings)
  vgpu_pytest(integration/test_mediator_${part}.py LABELS san TIMEOUT 300)
endforeach()

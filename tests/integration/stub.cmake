# SPDX-License-Identifier: MIT
foreach(part IN ITEMS registers relay faults hotplug plugin stack)
  vgpu_pytest(integration/test_stub_${part}.py LABELS stub)
endforeach()

# SPDX-License-Identifier: MIT
foreach(part IN ITEMS registers relay faults shm hotplug plugin confined stack ring_driver)
  vgpu_pytest(integration/test_stub_${part}.py LABELS stub TIMEOUT 300)
endforeach()
vgpu_pytest(integration/test_qemu_packaging.py LABELS stub)

# SPDX-License-Identifier: MIT
if(TARGET vgpu_guest)
  vgpu_pytest(integration/test_vgpu_cmd.py LABELS san TIMEOUT 240)
  vgpu_pytest(integration/test_vgpu_vm.py LABELS slow TIMEOUT 480)
endif()

# SPDX-License-Identifier: MIT
vgpu_pytest(integration/test_vgpuctl.py LABELS san)

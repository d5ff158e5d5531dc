# SPDX-License-Identifier: MIT
vgpu_pytest(integration/test_stub_fuzz.py LABELS stub TIMEOUT 300)
vgpu_pytest(integration/test_shm_fuzz.py LABELS san TIMEOUT 600)

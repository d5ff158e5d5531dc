# SPDX-License-Identifier: MIT
vgpu_pytest(integration/test_worker_ops.py LABELS san TIMEOUT 300)
vgpu_pytest(integration/test_worker_life.py LABELS san TIMEOUT 300)

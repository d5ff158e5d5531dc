# SPDX-License-Identifier: MIT
vgpu_pytest(integration/test_bench.py LABELS kvm TIMEOUT 600 SERIAL)

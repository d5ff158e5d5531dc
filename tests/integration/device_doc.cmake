# SPDX-License-Identifier: MIT
vgpu_pytest(integration/test_device_doc.py)
vgpu_pytest(integration/test_docs.py)

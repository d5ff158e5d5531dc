# SPDX-License-Identifier: MIT
vgpu_unit_test(test_admin_table unit/test_admin_table.c LIBS vgpu_admin)

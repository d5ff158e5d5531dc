# SPDX-License-Identifier: MIT
# The VM side: its pure modules, and the library and the command with a simulated device.
if(TARGET vgpu_guest)
  add_library(fakedev STATIC lib/fakedev/fake.c lib/fakedev/fake_ops.c lib/fakedev/fake_ring.c)
  target_link_libraries(fakedev PUBLIC vgpu_guest m)

  add_executable(vgpu-fake lib/fakedev/device_fake.c)
  target_link_libraries(vgpu-fake PRIVATE vgpu_cmd fakedev)
  set_target_properties(vgpu-fake PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests")

  vgpu_unit_test(test_npy unit/test_npy.c LIBS vgpu_cmd)
  vgpu_unit_test(test_request_builder unit/test_request_builder.c LIBS fakedev)
  vgpu_unit_test(test_transport unit/test_transport.c LIBS fakedev TIMEOUT 180)
  vgpu_unit_test(test_rings unit/test_rings.c LIBS fakedev TIMEOUT 180)
  vgpu_unit_test(test_alloc unit/test_alloc.c LIBS vgpu_guest)
  vgpu_unit_test(test_pci unit/test_pci.c LIBS vgpu_guest)
  vgpu_unit_test(test_picture unit/test_picture.c LIBS vgpu_cmd PkgConfig::PNG)
  vgpu_unit_test(test_tiles unit/test_tiles.c LIBS vgpu_cmd)
endif()

# SPDX-License-Identifier: MIT
# Warnings for every target of the tree; errors unless -DVGPU_WERROR=OFF.
add_compile_options(
  -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wpointer-arith
  -Wwrite-strings -Wundef -Wformat=2)
if(VGPU_WERROR)
  add_compile_options(-Werror)
endif()

add_compile_options(-fno-common -fno-strict-aliasing -fstack-protector-strong)
if(CMAKE_BUILD_TYPE STREQUAL "Release" AND NOT VGPU_SANITIZE)
  add_compile_options(-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
  add_link_options(-Wl,-z,relro,-z,now)
endif()

# SPDX-License-Identifier: MIT
# Libraries, found by pkg-config. Each gives the target PkgConfig::<NAME>. All that are missing are
# named at once, with the Debian packages that bring them.
find_program(VGPU_PKG_CONFIG NAMES pkg-config pkgconf)
if(NOT VGPU_PKG_CONFIG)
  message(FATAL_ERROR "pkg-config is missing; install it with: apt-get install pkg-config")
endif()
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
set(vgpu_missing_libraries "")
set(vgpu_missing_packages "")

# vgpu_dependency(NAME module debian-package)
macro(vgpu_dependency name module package)
  pkg_check_modules(${name} QUIET IMPORTED_TARGET GLOBAL ${module})
  if(NOT ${name}_FOUND)
    list(APPEND vgpu_missing_libraries ${module})
    list(APPEND vgpu_missing_packages ${package})
  endif()
endmacro()

vgpu_dependency(UV libuv libuv1-dev)
vgpu_dependency(CYAML libcyaml libcyaml-dev)
vgpu_dependency(YAML yaml-0.1 libyaml-dev)
vgpu_dependency(JANSSON jansson libjansson-dev)
vgpu_dependency(CHECK check check)
vgpu_dependency(OPENBLAS openblas libopenblas-dev)
vgpu_dependency(FFTW3 fftw3 libfftw3-dev)
vgpu_dependency(FFTW3F fftw3f libfftw3-dev)
vgpu_dependency(PNG libpng libpng-dev)
vgpu_dependency(ZLIB zlib zlib1g-dev)
vgpu_dependency(PROTOBUF_C libprotobuf-c libprotobuf-c-dev)
if(EXISTS "${CMAKE_SOURCE_DIR}/broker/CMakeLists.txt")
  vgpu_dependency(ZMQ libzmq libzmq3-dev)
endif()

if(vgpu_missing_libraries)
  list(REMOVE_DUPLICATES vgpu_missing_packages)
  list(JOIN vgpu_missing_libraries ", " libraries)
  list(JOIN vgpu_missing_packages " " packages)
  message(FATAL_ERROR
    "Libraries that pkg-config does not find: ${libraries}.\n"
    "On Debian install them with: apt-get install ${packages}")
endif()

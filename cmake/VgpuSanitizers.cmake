# SPDX-License-Identifier: MIT
# Sanitizers for every target, and their run-time options for every test (VGPU_TEST_ENV).
set(VGPU_TEST_ENV "")
if(VGPU_SANITIZE)
  add_compile_options(-fsanitize=${VGPU_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${VGPU_SANITIZE})
  list(APPEND VGPU_TEST_ENV
    "ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1"
    "LSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/tests/lib/lsan.supp:print_suppressions=0"
    "UBSAN_OPTIONS=print_stacktrace=1"
    "TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1:suppressions=${CMAKE_SOURCE_DIR}/tests/lib/tsan.supp")
endif()

# A sanitizer's run-time cannot be linked statically: the guest tool is dynamic in those builds.
if(VGPU_SANITIZE)
  set(VGPU_GUEST_STATIC OFF)
else()
  set(VGPU_GUEST_STATIC ON)
endif()

# Fuzz targets learn from the coverage of the libraries that they call. Not with ThreadSanitizer, which
# would report the counters of coverage as races: there they learn from their own code alone.
if(VGPU_FUZZ AND NOT VGPU_SANITIZE STREQUAL "thread")
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

# SPDX-License-Identifier: MIT
# How tests are registered. Test names are unit/<name> and integration/<name>; labels choose them:
#   unit, integration   which kind
#   san                 an integration test that also runs in the asan and tsan builds
#   fuzz                a short run of a libFuzzer target
#   kvm, slow           for people who want to leave them out: ctest -LE slow
set(VGPU_PYTHON /usr/bin/python3)

# vgpu_unit_test(name sources... [LIBS libs...] [LABELS labels...] [TIMEOUT seconds])
# A Check program; builds as <build>/tests/<name>. TIMEOUT is also that of each of its tests: Check's
# own 4 s are too few on a busy machine.
function(vgpu_unit_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "TIMEOUT" "LIBS;LABELS")
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  add_executable(${name} ${arg_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PRIVATE ${arg_LIBS} PkgConfig::CHECK Threads::Threads m)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests")
  string(REGEX REPLACE "^test_" "" short ${name})
  add_test(NAME unit/${short} COMMAND ${name})
  set_tests_properties(unit/${short} PROPERTIES
    LABELS "unit;${arg_LABELS}" TIMEOUT ${arg_TIMEOUT}
    ENVIRONMENT "${VGPU_TEST_ENV};VGPU_SOURCE_DIR=${CMAKE_SOURCE_DIR};CK_DEFAULT_TIMEOUT=${arg_TIMEOUT}")
endfunction()

# vgpu_pytest(file.py [NAME name] [LABELS labels...] [TIMEOUT seconds] [SERIAL])
# A pytest file, relative to the calling folder. It sees VGPU_SOURCE_DIR, VGPU_BUILD_DIR, VGPU_BIN
# (the programs) and VGPU_SANITIZE, and imports from tests/lib. SERIAL: nothing runs beside it.
function(vgpu_pytest file)
  cmake_parse_arguments(PARSE_ARGV 1 arg "SERIAL" "NAME;TIMEOUT" "LABELS")
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 400)
  endif()
  if(NOT arg_NAME)
    get_filename_component(arg_NAME "${file}" NAME_WE)
    string(REGEX REPLACE "^test_" "" arg_NAME ${arg_NAME})
  endif()
  get_filename_component(path "${file}" ABSOLUTE)
  set(test integration/${arg_NAME})
  add_test(NAME ${test}
    COMMAND ${VGPU_PYTHON} -B -m pytest -q -rs -p no:cacheprovider "${path}"
    WORKING_DIRECTORY "${CMAKE_BINARY_DIR}")
  set_tests_properties(${test} PROPERTIES
    LABELS "integration;${arg_LABELS}" TIMEOUT ${arg_TIMEOUT}
    ENVIRONMENT "${VGPU_TEST_ENV};VGPU_SOURCE_DIR=${CMAKE_SOURCE_DIR};VGPU_BUILD_DIR=${CMAKE_BINARY_DIR};VGPU_BIN=${CMAKE_BINARY_DIR}/bin;VGPU_SANITIZE=${VGPU_SANITIZE};PYTHONPATH=${CMAKE_SOURCE_DIR}/tests/lib")
  if(arg_SERIAL)
    set_tests_properties(${test} PROPERTIES RUN_SERIAL TRUE)
  endif()
endfunction()

# vgpu_fuzz_target(name sources... [LIBS libs...] [SECONDS n] [THREADS])
# A libFuzzer program (LLVMFuzzerTestOneInput), built only with -DVGPU_FUZZ=ON; its test runs it for
# a few seconds, from the seeds in tests/fuzz/<name>.seeds/ if that folder exists. The build with
# ThreadSanitizer has only those with THREADS. The target `fuzzers` builds them all.
function(vgpu_fuzz_target name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "THREADS" "SECONDS" "LIBS")
  if(NOT VGPU_FUZZ OR (VGPU_SANITIZE STREQUAL "thread" AND NOT arg_THREADS))
    return()
  endif()
  if(NOT arg_SECONDS)
    set(arg_SECONDS 10)
  endif()
  add_executable(${name} ${arg_UNPARSED_ARGUMENTS})
  target_compile_options(${name} PRIVATE -fsanitize=fuzzer)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  target_link_libraries(${name} PRIVATE ${arg_LIBS} Threads::Threads m)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/fuzz")
  if(NOT TARGET fuzzers)
    add_custom_target(fuzzers)
  endif()
  add_dependencies(fuzzers ${name})
  set(corpus "${CMAKE_BINARY_DIR}/fuzz/${name}.corpus")
  file(MAKE_DIRECTORY "${corpus}")
  set(seeds "${CMAKE_SOURCE_DIR}/tests/fuzz/${name}.seeds")
  if(NOT EXISTS "${seeds}")
    set(seeds "")
  endif()
  math(EXPR limit "${arg_SECONDS} + 60")
  add_test(NAME fuzz/${name}
    COMMAND ${name} -max_total_time=${arg_SECONDS} -timeout=10 -rss_limit_mb=2048
            "-artifact_prefix=${CMAKE_BINARY_DIR}/fuzz/" "${corpus}" ${seeds})
  set_tests_properties(fuzz/${name} PROPERTIES
    LABELS "fuzz" TIMEOUT ${limit} ENVIRONMENT "${VGPU_TEST_ENV}")
endfunction()

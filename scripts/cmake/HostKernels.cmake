# cuda/*.cu as plain C++, for tests on machines without a GPU (cuda/device.cuh, docs/kernels.md), in three builds:
#   longlora_kernel_tests         as it is
#   longlora_kernel_tests_asan    under AddressSanitizer and UndefinedBehaviorSanitizer
#   longlora_kernel_tests_race    with every access to shared memory checked for races (g++ only)
file(GLOB kernel_sources CONFIGURE_DEPENDS cuda/*.cu)
file(GLOB kernel_test_kernels CONFIGURE_DEPENDS test/kernels/*.cu)
file(GLOB kernel_plain_sources CONFIGURE_DEPENDS cuda/*.cpp)
file(GLOB kernel_host_sources CONFIGURE_DEPENDS cuda/host/*.cpp)
file(GLOB kernel_test_sources CONFIGURE_DEPENDS test/kernels/*.cpp)
list(FILTER kernel_host_sources EXCLUDE REGEX "cuda/host/race.cpp")
set_source_files_properties(${kernel_sources} ${kernel_test_kernels} PROPERTIES LANGUAGE CXX
                            COMPILE_OPTIONS "-x;c++;-fno-strict-aliasing")

# The tests themselves are compiled once; what is checked is the kernels.
add_library(longlora_kernel_test_objects OBJECT EXCLUDE_FROM_ALL ${kernel_test_sources} core/ops/group_plan.cpp)
target_link_libraries(longlora_kernel_test_objects PRIVATE longlora_flags longlora_dependencies Catch2::Catch2)
add_library(longlora_kernel_test_main OBJECT EXCLUDE_FROM_ALL test/kernels/host/memory.cpp test/unit/main.cpp
            core/base/isa.cpp core/base/nearest.cpp)
target_link_libraries(longlora_kernel_test_main PRIVATE longlora_flags longlora_dependencies Catch2::Catch2)

function(add_kernel_tests name kernel_options host_options extra_source)
  add_library(${name}_kernels OBJECT EXCLUDE_FROM_ALL ${kernel_sources} ${kernel_test_kernels})
  target_compile_options(${name}_kernels PRIVATE -O2 ${kernel_options})
  target_link_libraries(${name}_kernels PRIVATE longlora_flags)
  add_executable(${name} EXCLUDE_FROM_ALL ${kernel_plain_sources} ${kernel_host_sources} ${extra_source}
                 $<TARGET_OBJECTS:${name}_kernels> $<TARGET_OBJECTS:longlora_kernel_test_objects>
                 $<TARGET_OBJECTS:longlora_kernel_test_main>)
  target_compile_options(${name} PRIVATE ${host_options})
  target_link_libraries(${name} PRIVATE longlora_flags Catch2::Catch2)
endfunction()

set(sanitize -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
add_kernel_tests(longlora_kernel_tests "" "" "")
add_kernel_tests(longlora_kernel_tests_asan "${sanitize}" "${sanitize}" "")
target_link_options(longlora_kernel_tests_asan PRIVATE -fsanitize=address,undefined)
set(kernel_test_programs longlora_kernel_tests longlora_kernel_tests_asan)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  # ThreadSanitizer's hooks without its runtime: cuda/host/race.cpp stands in for it.
  add_kernel_tests(longlora_kernel_tests_race -fsanitize=thread -DLONGLORA_RACE cuda/host/race.cpp)
  list(APPEND kernel_test_programs longlora_kernel_tests_race)
endif()
add_custom_target(longlora_all_kernel_tests DEPENDS ${kernel_test_programs})

# What of cuda/ is plain C++ (work lists), which core/ops calls whether there are kernels or not.
add_library(longlora_cuda_plain STATIC ${kernel_plain_sources})
target_link_libraries(longlora_cuda_plain PRIVATE longlora_flags)

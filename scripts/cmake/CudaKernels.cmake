# cuda/*.cu twice: as plain C++ for tests on machines without a GPU (cuda/device.cuh, docs/kernels.md), three builds of
# it, and by nvcc where one suits.
#   longlora_kernel_tests         as it is
#   longlora_kernel_tests_asan    under AddressSanitizer and UndefinedBehaviorSanitizer
#   longlora_kernel_tests_race    with every access to shared memory checked for races (g++ only)
#   longlora_ops_tests            tests of core/ops over the kernels run on the host, with LibTorch
#   longlora_cuda                 the kernels for sm_80 and sm_90a (and as PTX for what comes later): part of the program where
#                                 there is an nvcc that suits LibTorch
#   longlora_kernel_tests_gpu     the same tests on a GPU
#   longlora_attention_bench, longlora_elementwise_bench   how fast they are there
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
target_link_libraries(longlora_core PUBLIC longlora_cuda_plain)

# core/ops over the same kernels: the object of cuda_call.cpp stands in for the one of longlora_core.
add_library(longlora_ops_on_host OBJECT EXCLUDE_FROM_ALL core/ops/cuda_call.cpp)
target_compile_definitions(longlora_ops_on_host PRIVATE LONGLORA_KERNELS_ON_HOST)
target_link_libraries(longlora_ops_on_host PRIVATE longlora_flags longlora_dependencies torch::cpu)
add_executable(longlora_ops_tests EXCLUDE_FROM_ALL test/unit/attention.cpp test/unit/cuda_ops.cpp test/unit/cuda_model.cpp
               test/reference/llama_autograd.cpp test/unit/main.cpp ${kernel_host_sources} $<TARGET_OBJECTS:longlora_ops_on_host>
               $<TARGET_OBJECTS:longlora_kernel_tests_kernels>)
target_link_libraries(longlora_ops_tests PRIVATE longlora_core Catch2::Catch2)
target_compile_definitions(longlora_ops_tests PRIVATE LONGLORA_SOURCE_DIR="${CMAKE_SOURCE_DIR}"
                           LONGLORA_BINARY="$<TARGET_FILE:longlora>" LONGLORA_KERNELS_ON_HOST=1)
add_dependencies(longlora_all_kernel_tests longlora_ops_tests)

# An nvcc of the same major version of CUDA as LibTorch's: two runtimes of one process must suit the same driver. From CUDACXX
# (a file, or a folder that it is in), else the PATH, else where CUDA is installed. It is called by rules of our own: CMake 3.25
# knows neither nvcc 13's dialects nor its architectures. It also has to compile one small file of the kernels. Where all that
# fails the program is built without them, says so when it meets a GPU, and uses LibTorch's operations.
option(LONGLORA_KERNELS "Compile the CUDA kernels for GPUs where there is an nvcc that suits LibTorch" ON)
set(nvcc_flags -std=c++20 -O3 -lineinfo -I${CMAKE_SOURCE_DIR} -gencode arch=compute_80,code=sm_80
    -gencode arch=compute_80,code=compute_80 -gencode arch=compute_90a,code=sm_90a -Xcompiler=-Wall,-Wextra,-fPIC)
include(Nvcc)  # NVCC, CUDA_RUNTIME, or why there is none: no_kernels
if(no_kernels)
  set_source_files_properties(core/ops/cuda_call.cpp PROPERTIES COMPILE_DEFINITIONS "LONGLORA_NO_KERNELS=\"${no_kernels}\"")
  return()
endif()
if(LONGLORA_WERROR)
  list(APPEND nvcc_flags --Werror=all-warnings)
endif()
function(compile_with_nvcc objects)
  foreach(source ${ARGN})
    get_filename_component(stem ${source} NAME_WE)
    set(object ${CMAKE_BINARY_DIR}/nvcc/${stem}.o)
    add_custom_command(OUTPUT ${object} DEPENDS ${source} DEPFILE ${object}.d COMMENT "nvcc ${stem}.cu"
      COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/nvcc
      COMMAND ${NVCC} ${nvcc_flags} -MD -MF ${object}.d -MT ${object} -c ${source} -o ${object})
    list(APPEND made ${object})
  endforeach()
  set(${objects} ${made} PARENT_SCOPE)
endfunction()

compile_with_nvcc(cuda_objects ${kernel_sources})
add_library(longlora_cuda STATIC ${cuda_objects})
set_target_properties(longlora_cuda PROPERTIES LINKER_LANGUAGE CXX)
target_link_libraries(longlora_cuda PUBLIC longlora_cuda_plain ${CUDA_RUNTIME} Threads::Threads ${CMAKE_DL_LIBS} rt)
target_link_libraries(longlora_core PUBLIC longlora_cuda)
compile_with_nvcc(cuda_test_objects ${kernel_test_kernels} ${CMAKE_SOURCE_DIR}/test/kernels/gpu/memory.cu)
add_executable(longlora_kernel_tests_gpu EXCLUDE_FROM_ALL test/kernels/gpu/main.cpp ${cuda_test_objects}
               ${kernel_host_sources} $<TARGET_OBJECTS:longlora_kernel_test_objects>)
target_link_libraries(longlora_kernel_tests_gpu PRIVATE longlora_flags longlora_cuda Catch2::Catch2)
foreach(what attention elementwise)
  set(bench longlora_${what}_bench)
  compile_with_nvcc(bench_objects ${CMAKE_SOURCE_DIR}/test/bench/cuda_${what}.cu)
  add_executable(${bench} EXCLUDE_FROM_ALL ${bench_objects})
  target_link_libraries(${bench} PRIVATE longlora_cuda)
  set_target_properties(${bench} PROPERTIES LINKER_LANGUAGE CXX)
endforeach()

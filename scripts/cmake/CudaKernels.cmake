# What of the CUDA kernels goes with LibTorch:
#   longlora_ops_tests            tests of core/ops over the kernels run on the host
#   longlora_cuda                 the kernels for sm_80 and sm_90a (and as PTX for what comes later): part of the program where
#                                 there is an nvcc that suits LibTorch
#   longlora_kernel_tests_gpu     the tests of HostKernels.cmake on a GPU
#   longlora_attention_bench, longlora_elementwise_bench   how fast they are there
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

# liblonglora_nccl.so (core/dist/nccl_plugin.cpp): NCCL through LibTorch, for several ranks with GPUs. Built where there are
# the headers of CUDA and NCCL and LibTorch's CUDA library; without it several ranks with GPUs are refused.
get_filename_component(torch_site ${torch_dir} DIRECTORY)
file(GLOB wheel_includes ${torch_site}/nvidia/nccl/include ${torch_site}/nvidia/cu*/include
     ${torch_site}/nvidia/cuda_runtime/include)
if(NVCC_PROGRAM)
  get_filename_component(nvcc_bin ${NVCC_PROGRAM} DIRECTORY)
endif()
find_path(NCCL_INCLUDE nccl.h HINTS ${wheel_includes} ${nvcc_bin}/../include)
find_path(CUDA_INCLUDE cuda_runtime_api.h HINTS ${nvcc_bin}/../include ${wheel_includes})
if(NOT NCCL_INCLUDE OR NOT CUDA_INCLUDE OR NOT EXISTS ${torch_dir}/lib/libtorch_cuda.so)
  message(STATUS "NCCL: not built (needs nccl.h, cuda_runtime_api.h and LibTorch's libtorch_cuda.so)")
  return()
endif()
message(STATUS "NCCL: ${NCCL_INCLUDE}/nccl.h")
# Its symbols come from libtorch_cuda.so, which is loaded before it.
add_library(longlora_nccl MODULE core/dist/nccl_plugin.cpp)
target_include_directories(longlora_nccl SYSTEM PRIVATE ${CUDA_INCLUDE} ${NCCL_INCLUDE})
target_link_libraries(longlora_nccl PRIVATE longlora_flags torch::cpu)
set_target_properties(longlora_nccl PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
add_dependencies(longlora longlora_nccl)

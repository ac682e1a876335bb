# longlora_other_torch: the files that depend on LibTorch's version, compiled over the headers of the version that this clone is not
# built with, where scripts/check-torch has put them. Which files: those that include more of LibTorch than what every
# program over it does, or call the operations behind attention on GPUs.
set(LONGLORA_TORCH_BUILT ${torch_version} CACHE INTERNAL "LibTorch's version, for scripts/check-torch")
file(GLOB other_torch ${CMAKE_SOURCE_DIR}/.cache/torch/2.*)
list(FILTER other_torch EXCLUDE REGEX "/${torch_version}[^/]*$|[.]new$")
if(NOT other_torch)
  return()
endif()
set(common "<ATen/(ATen|Parallel|Dispatch)[.]h>")
set(other_sources "")
foreach(source ${core_sources})
  file(STRINGS ${source} all REGEX "#include <(ATen|c10|torch)/|_flash_attention|_cudnn_attention")
  list(FILTER all EXCLUDE REGEX ${common})
  if(all)
    list(APPEND other_sources ${source})
  endif()
endforeach()
add_library(longlora_other_torch OBJECT EXCLUDE_FROM_ALL ${other_sources})
target_link_libraries(longlora_other_torch PRIVATE longlora_flags longlora_dependencies)
target_include_directories(longlora_other_torch SYSTEM PRIVATE ${other_torch}/torch/include ${other_torch}/torch/include/torch/csrc/api/include)
target_compile_options(longlora_other_torch PRIVATE -fopenmp -O0)  # nobody runs it
target_precompile_headers(longlora_other_torch PRIVATE core/ops/torch_pch.h)

# Over the CUDA that is here: with whole sets of CUDA 12's headers the registries do not serve.
if(TARGET longlora_nccl)
  target_sources(longlora_other_torch PRIVATE core/dist/nccl_plugin.cpp)
  target_include_directories(longlora_other_torch SYSTEM PRIVATE ${nccl_includes})
  set_source_files_properties(core/dist/nccl_plugin.cpp PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
endif()

# LibTorch by imported targets of our own: torch's CMake package refuses to configure on a machine without the
# CUDA toolkit, although libtorch_cpu.so and libc10.so are all that the program links. On a machine with a GPU the
# program loads libtorch_cuda.so from the same folder when it starts (core/model/device.cpp).
#
# LONGLORA_TORCH names a folder with include/ and lib/: a LibTorch of the user's own or the `torch` package folder.
set(LONGLORA_TORCH "" CACHE PATH "LibTorch folder (has include/ and lib/); default: .venv, then python3's torch")
set(torch_dir ${LONGLORA_TORCH})
if(NOT torch_dir)
  file(GLOB venv_torch ${CMAKE_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch)
  if(venv_torch)
    list(GET venv_torch 0 torch_dir)
  else()
    execute_process(COMMAND python3 -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
                    OUTPUT_VARIABLE torch_dir OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
endif()
if(NOT EXISTS ${torch_dir}/lib/libtorch_cpu.so OR NOT EXISTS ${torch_dir}/include/ATen/ATen.h)
  message(FATAL_ERROR "LibTorch not found (looked in '${torch_dir}'). Run scripts/setup, or pass "
                      "-DLONGLORA_TORCH=/path/to/libtorch (a folder with include/ and lib/).")
endif()
set(version_h ${torch_dir}/include/torch/headeronly/version.h)
set(torch_version "of before 2.9")
if(EXISTS ${version_h})
  file(STRINGS ${version_h} lines REGEX "TORCH_VERSION_(MAJOR|MINOR) ")
  string(REGEX REPLACE "[^0-9]*([0-9]+)[^0-9]+([0-9]+).*" "\\1.\\2" torch_version "${lines}")
endif()
if(NOT torch_version VERSION_GREATER_EQUAL 2.10)
  message(FATAL_ERROR "LibTorch in ${torch_dir} is ${torch_version}; 2.10 or later is needed. scripts/setup gets one.")
endif()
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${version_h})
message(STATUS "LibTorch ${torch_version} in ${torch_dir}")

# The major version of CUDA that it was built with, by the name of the runtime that it needs; empty: without CUDA.
set(torch_cuda "")
if(EXISTS ${torch_dir}/lib/libc10_cuda.so)
  file(STRINGS ${torch_dir}/lib/libc10_cuda.so needed REGEX "libcudart[^ ]*\\.so\\.[0-9]+" LIMIT_COUNT 1)
  string(REGEX REPLACE ".*libcudart[^ ]*\\.so\\.([0-9]+).*" "\\1" torch_cuda "${needed}")
endif()

add_library(torch::cpu INTERFACE IMPORTED)
target_include_directories(torch::cpu SYSTEM INTERFACE ${torch_dir}/include ${torch_dir}/include/torch/csrc/api/include)
target_link_libraries(torch::cpu INTERFACE ${torch_dir}/lib/libtorch_cpu.so ${torch_dir}/lib/libc10.so)
# libtorch_cpu.so carries run paths of its own to the wheels it needs; ours must not be asked to resolve them.
target_link_options(torch::cpu INTERFACE -Wl,--allow-shlib-undefined)
add_run_path(${torch_dir}/lib)

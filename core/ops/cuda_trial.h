// Whether the kernels of cuda/ run on a GPU, found by launching them: a trivial one when a GPU is opened, which decides for the
// whole program (cuda_call.h), and for `longlora doctor` one of each file.
#pragma once
#include <ATen/ATen.h>

#include <span>
#include <string>
#include <string_view>

#include "core/base/gpu_driver.h"

namespace longlora::ops {

struct CudaTrial {
  std::string objection;  // why the kernels do not run; empty when they do
  std::string remedy;
};

// Launches the trivial kernel and looks at what it wrote. In a program without kernels: why it has none.
[[nodiscard]] CudaTrial try_cuda_kernels(const at::Device& device);

// What to do when kernels that were compiled with one version of CUDA (13000 is 13.0) are refused by a driver for `driver`, or by
// the GPU.
[[nodiscard]] std::string remedy_for_kernels(int compiled_with, int driver, const Gpu& gpu);

// What to do when none were compiled; `why`: scripts/cmake/Nvcc.cmake's reason.
[[nodiscard]] std::string remedy_for_no_kernels(std::string_view why);

// One kernel of a file of cuda/, on a little memory.
struct FileTrial {
  const char* file;
  void (*launch)(const at::Device& device);
};
[[nodiscard]] std::span<const FileTrial> file_trials();

// Why it does not run on the device; empty when it does.
[[nodiscard]] std::string objection_to(const FileTrial& trial, const at::Device& device);

}  // namespace longlora::ops

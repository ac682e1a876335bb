// Where the model lives, and what has to be set up once before the first tensor.
#pragma once
#include <ATen/ATen.h>

#include <cstdint>
#include <string>

namespace longlora::model {

// "cpu", "cuda", or "auto": GPU number `index` (0 where it is one process's alone) where there is one, made the current one. On a machine with a GPU LibTorch's CUDA library is loaded
// from beside its CPU library here and not before: the program starts quickly and runs on machines without CUDA.
// Exit 2 when a GPU is asked for and cannot be had, with the reason.
[[nodiscard]] at::Device open_device(const std::string& name, int index = 0);

// Why no GPU can be used, in LibTorch's or the system's words; empty when one can.
[[nodiscard]] std::string why_no_gpu();

// Bytes that can be taken: of main memory without swapping, or of a GPU as it stands.
[[nodiscard]] int64_t free_memory(const at::Device& device);

// "NVIDIA H200", or "CPU, 2 threads, avx512 kernels".
[[nodiscard]] std::string describe_device(const at::Device& device);

}  // namespace longlora::model

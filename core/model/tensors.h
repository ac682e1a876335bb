// Between files and tensors: views of mapped bytes as tensors, and tensors as things to write.
#pragma once
#include <ATen/ATen.h>

#include "core/io/safetensors.h"

namespace longlora::model {

[[nodiscard]] at::ScalarType scalar_type(io::DType dtype);
[[nodiscard]] io::DType file_type(at::ScalarType type);
// "bfloat16", "float16", "float32" as recipes and config.json write them; another name is a usage error.
[[nodiscard]] at::ScalarType parse_dtype(const std::string& name);

// The bytes as a tensor on the CPU, without a copy where they are aligned; valid while the file is open.
[[nodiscard]] at::Tensor as_tensor(const io::TensorView& view);

// Writes `tensor` converted to `type` when its turn comes.
[[nodiscard]] io::TensorSource source(const std::string& name, const at::Tensor& tensor, at::ScalarType type);

// For one of several threads that work side by side: what it computes with tensors stays on it. (LibTorch keeps the number
// for threads begun later; the thread that began this work must have computed before, or ask at::get_num_threads().)
void single_threaded();

}  // namespace longlora::model

// Between files and tensors: views of mapped bytes as tensors, and tensors as things to write.
#pragma once
#include <ATen/ATen.h>

#include "core/io/safetensors.h"
#include "core/model/parameter.h"

namespace longlora::model {

[[nodiscard]] at::ScalarType scalar_type(io::DType dtype);
[[nodiscard]] io::DType file_type(at::ScalarType type);
// "bfloat16", "float16", "float32" as recipes and config.json write them; another name is a usage error.
[[nodiscard]] at::ScalarType parse_dtype(const std::string& name);
[[nodiscard]] std::string name_of(at::ScalarType type);

// The bytes as a tensor on the CPU, without a copy where they are aligned; valid while the file is open.
[[nodiscard]] at::Tensor as_tensor(const io::TensorView& view);

// Writes `tensor` converted to `type` when its turn comes.
[[nodiscard]] io::TensorSource source(const std::string& name, const at::Tensor& tensor, at::ScalarType type);

// Where several ranks keep slices of what is trained: the whole of a parameter's master copy (of the value of one that is
// frozen). All ranks ask for the same ones in the same order.
using Whole = std::function<at::Tensor(const Parameter&)>;
// Writes the parameter's master copy, or its value while frozen, which is made when its turn comes, one at a time. Without
// `whole` they are there. Ranks that do not write name no file or folder: they take part in the making alone.
[[nodiscard]] io::TensorSource source(const std::string& name, const Parameter& parameter, at::ScalarType type,
                                      const Whole& whole);
// Of anything that is made when its turn comes.
[[nodiscard]] io::TensorSource source(const std::string& name, at::IntArrayRef shape, at::ScalarType type,
                                      std::function<at::Tensor()> make);

// For one of several threads that work side by side: what it computes with tensors stays on it. (LibTorch keeps the number
// for threads begun later; the thread that began this work must have computed before, or ask at::get_num_threads().)
void single_threaded();

}  // namespace longlora::model

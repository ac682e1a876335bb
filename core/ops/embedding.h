// Token embedding: rows of a table, and the gradient of the table.
#pragma once
#include <ATen/ATen.h>

namespace longlora::ops {

// table [vocab, d], tokens [T] int32 -> [T, d]
[[nodiscard]] at::Tensor embedding_forward(const at::Tensor& table, const at::Tensor& tokens);

// dtable[tokens[t]] += dx[t] for every t in order: deterministic on the CPU and with the kernels of cuda/. dtable [vocab, d] float32 (or
// float64).
void embedding_backward(const at::Tensor& dx, const at::Tensor& tokens, const at::Tensor& dtable);

}  // namespace longlora::ops

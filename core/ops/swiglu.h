// SwiGLU (Shazeer 2020): m = silu(g) * u, with gate and up projections side by side in one matrix.
#pragma once
#include <ATen/ATen.h>

namespace longlora::ops {

// gate_up [T, 2n] contiguous, gate first -> m [T, n].
[[nodiscard]] at::Tensor swiglu_forward(const at::Tensor& gate_up);

// Gradient of gate_up [T, 2n] from dm [T, n], written over gate_up itself. When `m` is defined ([T, n]) the
// forward value is written to it on the way.
void swiglu_backward_in_place(const at::Tensor& gate_up, const at::Tensor& dm, const at::Tensor& m);

}  // namespace longlora::ops

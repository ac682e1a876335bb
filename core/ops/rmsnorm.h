// RMSNorm (Zhang, Sennrich 2019): y = w * x / sqrt(mean(x^2) + eps), as Llama computes it: the normalised
// value is rounded to the dtype of x before it is multiplied by w.
#pragma once
#include <ATen/ATen.h>

namespace longlora::ops {

struct RmsNormed {
  at::Tensor y;     // [T, d] dtype of x
  at::Tensor rstd;  // [T] float32 (float64 for float64)
};

// x [T, d] contiguous, w [d] of the same dtype.
[[nodiscard]] RmsNormed rmsnorm_forward(const at::Tensor& x, const at::Tensor& w, double eps);

// dx = residual + d(y)/d(x)^T dy, [T, d]. `residual` may be undefined. When `dw` is defined ([d] float32,
// float64 for float64), the gradient of w is added to it, in an order that does not depend on the number of
// threads.
[[nodiscard]] at::Tensor rmsnorm_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& w,
                                          const at::Tensor& rstd, const at::Tensor& residual, const at::Tensor& dw);

}  // namespace longlora::ops

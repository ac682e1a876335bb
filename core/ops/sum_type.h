// The type that sums are made in: float32, float64 for float64.
#pragma once
#include <ATen/ATen.h>

namespace longlora::ops {

[[nodiscard]] inline at::ScalarType sum_type(at::ScalarType type) {
  return type == at::kDouble ? at::kDouble : at::kFloat;
}
[[nodiscard]] inline at::ScalarType sum_type(const at::Tensor& x) {
  return sum_type(x.scalar_type());
}

}  // namespace longlora::ops

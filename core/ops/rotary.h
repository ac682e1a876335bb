// Rotary position embedding applied to queries and keys (Su et al. 2021, in the half-split convention of
// Llama checkpoints): the pair (x_i, x_{i + D/2}) turns by the angle position * frequency_i.
#pragma once
#include <ATen/ATen.h>

namespace longlora::ops {

// cos and sin of every position, scaled by the law's attention factor.
struct RotaryTable {
  at::Tensor cos, sin;  // [positions, D/2] float32 (float64 for float64 models)
};

// Turns the first `heads` heads of every row of x in place. x [T, n * head_dim] contiguous with n >= heads,
// positions [T] int32. `inverse` turns back (the gradient).
void rotate_in_place(const at::Tensor& x, int64_t heads, int64_t head_dim, const at::Tensor& positions,
                     const RotaryTable& table, bool inverse);

}  // namespace longlora::ops

// Attention in plain loops for the tests of the kernels: exactly in float64, and the way plain operations at 16 bits do
// it, rounding after each step, whose error is what ours is held against.
#pragma once
#include <cstdint>
#include <vector>

#include "core/ops/group_plan.h"

namespace longlora::cuda::test {

// [T, heads, D] as float64.
struct Cube {
  int64_t tokens = 0, heads = 0, size = 0;
  std::vector<double> data;
  Cube() = default;
  Cube(int64_t t, int64_t h, int64_t d) : tokens(t), heads(h), size(d), data(static_cast<size_t>(t * h * d)) {}
  [[nodiscard]] double* at(int64_t t, int64_t h) { return data.data() + (t * heads + h) * size; }
  [[nodiscard]] const double* at(int64_t t, int64_t h) const { return data.data() + (t * heads + h) * size; }
};

struct Attention {
  Cube out, dq, dk, dv;
  std::vector<double> lse;  // [heads, T]
};

// round(x): the nearest value of the type that plain operations store.
using Round = double (*)(double);
[[nodiscard]] inline double exact(double x) {
  return x;
}

[[nodiscard]] Attention attention(const ops::GroupPlan& plan, double scale, const Cube& q, const Cube& k, const Cube& v,
                                  const Cube& dout, Round round);

}  // namespace longlora::cuda::test

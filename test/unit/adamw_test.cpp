// The gradient's norm on the CPU, over tensors that are cut into pieces, against LibTorch's sum in float64.
#include "core/ops/adamw.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <random>

namespace longlora::ops {

TEST_CASE("the norm of all gradients is their root sum of squares in float64, whatever their sizes", "[adamw]") {
  const auto seed = static_cast<int64_t>(std::random_device()());
  INFO("seed " << seed);
  at::manual_seed(static_cast<uint64_t>(seed));
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    std::vector<AdamWTensor> tensors;
    double squares = 0;
    for (const int64_t count : {1, 7, 32768, 32769, 100003}) {
      const auto of = [&] { return at::randn({count}).to(type) * 1e3; };
      tensors.push_back({of(), of(), of(), of().abs(), true, {}, 1});
      squares += tensors.back().gradient.to(at::kDouble).square().sum().item<double>();
    }
    const AdamW adamw(tensors);
    CHECK(adamw.gradient_norm() == Approx(std::sqrt(squares)).epsilon(1e-12));
    tensors[3].gradient[32768] = NAN;
    CHECK(std::isnan(adamw.gradient_norm()));
    tensors[3].gradient[32768] = INFINITY;
    CHECK(std::isinf(adamw.gradient_norm()));
  }
}

}  // namespace longlora::ops

#include "core/ops/product_choice.h"

#include <algorithm>
#include <chrono>
#include <vector>

namespace longlora::ops {
namespace {

using Clock = std::chrono::steady_clock;

// FLOP/s of x W^T and dy W together, the median of `rounds`. x [rows, width], W [width, width].
double measured(at::ScalarType type, ProductBackend backend, int64_t rows, int64_t width, int rounds) {
  const at::Tensor x = at::randn({rows, width}).to(type), w = at::randn({width, width}).to(type),
                   y = at::empty({rows, width}, type);
  std::vector<double> seconds;
  for (int round = 0; round <= rounds; ++round) {
    const auto start = Clock::now();
    product_into(y, {{x, w.t()}}, backend);
    product_into(y, {{x, w}}, backend);
    if (round > 0) seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + rounds / 2, seconds.end());
  return 4.0 * static_cast<double>(rows * width * width) / seconds[static_cast<size_t>(rounds / 2)];
}

double small_rate(at::ScalarType type, ProductBackend backend) {
  return measured(type, backend, 64, 256, 3);
}

}  // namespace

double product_rate(at::ScalarType type, ProductBackend backend) {
  constexpr double kTooSlow = 3e9;  // a larger measurement would take a second and more
  const double rate = small_rate(type, backend);
  return rate < kTooSlow ? rate : measured(type, backend, 512, 1024, 5);
}

ProductChoice choose_product(at::ScalarType type, const at::Device& device) {
  if (!device.is_cpu()) return {ProductBackend::native, 0};
  if (type != at::kBFloat16 && type != at::kHalf)
    return {ProductBackend::native, product_rate(type, ProductBackend::native)};
  const ProductChoice tiles = {ProductBackend::float32_tiles, product_rate(type, ProductBackend::float32_tiles)};
  if (10 * small_rate(type, ProductBackend::native) < tiles.flops) return tiles;
  const ProductChoice native = {ProductBackend::native, product_rate(type, ProductBackend::native)};
  return native.flops > tiles.flops ? native : tiles;
}

}  // namespace longlora::ops

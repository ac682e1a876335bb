#include "core/ops/product_choice.h"

#include <algorithm>

#include "core/ops/timing.h"

namespace longlora::ops {
namespace {

// The other backend must be faster by this much, so that a run that is started twice computes the same.
constexpr double kClearlyFaster = 1.25;

// FLOP/s of the best of at least three rounds: what other programs take of the processor only makes a round longer.
double measured(const at::Device& device, at::ScalarType type, ProductBackend backend, int64_t rows, int64_t width,
                double budget) {
  constexpr double kLong = 0.3;  // seconds; no second try
  const auto options = at::TensorOptions(type).device(device);
  const at::Tensor x = at::randn({rows, width}, at::TensorOptions().device(device)).to(type),
                   w = at::randn({width, width}, at::TensorOptions().device(device)).to(type),
                   y = at::empty({rows, width}, options);
  const auto work = [&] {
    product_into(y, {{x, w.t()}}, backend);
    product_into(y, {{x, w}}, backend);
  };
  work();  // a library's first call makes its code, which takes longer than a small product
  double best = seconds_of(device, work, 0);
  for (int round = 1; round < 3 && best < kLong; ++round) best = std::min(best, seconds_of(device, work, budget / 3));
  return 4.0 * static_cast<double>(rows * width * width) / best;
}

double small_rate(at::ScalarType type, ProductBackend backend) {
  return measured(at::kCPU, type, backend, 64, 256, 0.01);
}

}  // namespace

double product_rate(const at::Device& device, at::ScalarType type, ProductBackend backend) {
  if (!device.is_cpu()) return measured(device, type, backend, 8192, 8192, 0.3);
  constexpr double kTooSlow = 3e9;  // a larger measurement would take a second and more
  // Only LibTorch's slow loops are tried on a small product first: beside a busy process any small product that threads share
  // may look that slow.
  if (backend == ProductBackend::native && default_product(type, device) != ProductBackend::native) {
    const double rate = small_rate(type, backend);
    if (rate < kTooSlow) return rate;
  }
  return measured(device, type, backend, 512, 1024, 0.08);
}

ProductChoice choose_product(at::ScalarType type, const at::Device& device) {
  if (!device.is_cpu()) return {ProductBackend::native, 0};
  const auto choice = [&](ProductBackend backend) {
    return ProductChoice{backend, product_rate(device, type, backend)};
  };
  if (type != at::kBFloat16 && type != at::kHalf) return choice(ProductBackend::native);
  const ProductChoice tiles = choice(ProductBackend::float32_tiles);
  const bool units = default_product(type, device) == ProductBackend::native;
  if (!units && 10 * small_rate(type, ProductBackend::native) < tiles.flops) return tiles;
  const ProductChoice native = choice(ProductBackend::native);
  if (units) return tiles.flops > kClearlyFaster * native.flops ? tiles : native;
  return native.flops > kClearlyFaster * tiles.flops ? native : tiles;
}

}  // namespace longlora::ops

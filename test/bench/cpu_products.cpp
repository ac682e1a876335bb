// How fast the matrix products of a step are on this machine, by backend: longlora_product_bench [tokens] [threads].
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <chrono>
#include <cstdlib>

#include "core/base/memory.h"
#include "core/ops/product.h"

namespace longlora {
namespace {

double rate(double flops, const std::function<void()>& work) {
  using Clock = std::chrono::steady_clock;
  work();
  double best = 1e9, sum = 0;
  for (int i = 0; i < 50 && (i < 2 || sum < 0.7); ++i) {
    const auto start = Clock::now();
    work();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::min(best, seconds);
    sum += seconds;
  }
  return flops / best / 1e9;
}

void bench(int64_t t, int64_t in, int64_t out) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const at::Tensor x = at::randn({t, in}).to(type), w = at::randn({out, in}).to(type),
                     dy = at::randn({t, out}).to(type);
    const at::Tensor y = at::empty({t, out}, type), dx = at::empty({t, in}, type),
                     dw = at::zeros({out, in}, at::kFloat);
    const double flops = 2.0 * static_cast<double>(t * in * out);
    for (const ops::ProductBackend backend : {ops::ProductBackend::native, ops::ProductBackend::float32_tiles}) {
      if (type == at::kFloat && backend != ops::ProductBackend::native) continue;
      fmt::print("{:>6} x {:>5} x {:>5}  {:<9} {:<14}  x W^T {:6.1f}  dy W {:6.1f}  dy^T x {:6.1f} GFLOP/s\n", t, in,
                 out, c10::toString(type), ops::to_string(backend),
                 rate(flops,
                      [&] {
                        ops::product_into(y, {{x, w.t()}}, backend);
                      }),
                 rate(flops,
                      [&] {
                        ops::product_into(dx, {{dy, w}}, backend);
                      }),
                 rate(flops, [&] { ops::product_add(dw, dy.t(), x, backend); }));
      std::fflush(stdout);
    }
  }
}

}  // namespace
}  // namespace longlora

int main(int argc, char** argv) {
  longlora::keep_freed_memory();
  const c10::InferenceMode no_autograd;
  const int64_t tokens = argc > 1 ? std::atoll(argv[1]) : 2048;
  if (argc > 2) at::set_num_threads(std::atoi(argv[2]));
  longlora::bench(tokens, 256, 768);
  longlora::bench(tokens, 768, 4096);
  longlora::bench(tokens, 768, 8);
  longlora::bench(1, 768, 4096);
  return 0;
}

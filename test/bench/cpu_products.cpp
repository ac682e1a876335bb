// How fast the matrix products of a step are on this machine, as the program would compute them:
//   longlora_cpu_products_bench DTYPE ROWS:IN:OUT ...
// A JSON line each, rates in FLOP/s: x W^T (forward), dy W (input_gradient), dy^T x (weight_gradient).
#include <fmt/format.h>

#include <cstdio>

#include "core/base/error.h"
#include "core/base/memory.h"
#include "core/model/tensors.h"
#include "core/ops/product_choice.h"
#include "core/ops/timing.h"

namespace longlora {
namespace {

void bench(at::ScalarType type, ops::ProductBackend backend, int64_t rows, int64_t in, int64_t out) {
  const auto random = [&](int64_t m, int64_t n) { return at::randn({m, n}).to(type); };
  const at::Tensor x = random(rows, in), w = random(out, in), dy = random(rows, out);
  const at::Tensor y = at::empty_like(dy), dx = at::empty_like(x), dw = at::zeros({out, in}, at::kFloat);
  const auto rate = [&](const std::function<void()>& work) {
    return 2.0 * static_cast<double>(rows * in * out) / ops::seconds_of(at::kCPU, work);
  };
  fmt::print("{{\"rows\": {}, \"in\": {}, \"out\": {}, \"backend\": \"{}\", ", rows, in, out, ops::to_string(backend));
  fmt::print("\"forward\": {:.4g}, \"input_gradient\": {:.4g}, \"weight_gradient\": {:.4g}}}\n", rate([&] {
               ops::product_into(y, {{x, w.t()}}, backend);
             }),
             rate([&] {
               ops::product_into(dx, {{dy, w}}, backend);
             }),
             rate([&] { ops::product_add(dw, dy.t(), x, backend); }));
  std::fflush(stdout);
}

}  // namespace
}  // namespace longlora

int main(int argc, char** argv) {
  using namespace longlora;
  keep_freed_memory();
  const c10::InferenceMode no_autograd;
  if (argc < 3) {
    fmt::print(stderr, "usage: longlora_cpu_products_bench DTYPE ROWS:IN:OUT ...\n");
    return 2;
  }
  const at::ScalarType type = model::parse_dtype(argv[1]);
  const ops::ProductBackend backend = ops::choose_product(type, at::kCPU).backend;
  for (int i = 2; i < argc; ++i) {
    long long rows = 0, in = 0, out = 0;
    if (std::sscanf(argv[i], "%lld:%lld:%lld", &rows, &in, &out) != 3) return 2;
    bench(type, backend, rows, in, out);
  }
  return 0;
}

#include "core/train/this_cpu.h"

#include <algorithm>

#include "core/base/memory.h"
#include "core/ops/attention.h"
#include "core/ops/timing.h"

namespace longlora::train {
namespace {

struct AttentionRates {
  double forward, backward;  // FLOP/s
};

AttentionRates attention_rates(at::ScalarType type, int64_t head_dim) {
  constexpr int64_t kTokens = 1024, kHeads = 4;
  constexpr double kBudget = 0.1;  // seconds, of each
  const int64_t row[] = {0, kTokens};
  const ops::GroupPlan plan = ops::GroupPlan::full(row, kHeads, kHeads);
  const auto tensor = [&] { return at::randn({kTokens, kHeads, head_dim}).to(type); };
  const at::Tensor q = tensor(), k = tensor(), v = tensor(), dout = tensor();
  const at::Tensor dq = at::empty_like(q), dk = at::empty_like(k), dv = at::empty_like(v);
  const ops::AttentionResult result = ops::attention_forward(q, k, v, plan);
  const double flops = 4.0 * static_cast<double>(head_dim) * ops::attention_pairs(plan);
  const double forward = ops::seconds_of(
      at::kCPU, [&] { ops::attention_forward_into(q, k, v, plan, result.out, result.lse); }, kBudget);
  const double backward = ops::seconds_of(
      at::kCPU, [&] { ops::attention_backward(dout, q, k, v, result, plan, dq, dk, dv); }, kBudget);
  return {flops / forward, 2.5 * flops / backward};
}

}  // namespace

Gpu this_cpu(const model::Compute& compute, int64_t head_dim) {
  const AttentionRates attention = attention_rates(compute.dtype, head_dim);
  const double copy = ops::copy_rate(at::kCPU, int64_t{64} << 20);
  Gpu cpu{.name = "cpu",
          .title = "this CPU",
          .memory = available_memory(),
          .peak = compute.product.flops,
          .gemm = compute.product.flops,
          .attention = {},
          .bandwidth = copy,
          .link = copy / 4,  // through the kernel: two copies, each read and written
          .network = copy / 4};
  std::fill(std::begin(cpu.attention[0]), std::end(cpu.attention[0]), attention.forward / 1e12);
  std::fill(std::begin(cpu.attention[1]), std::end(cpu.attention[1]), attention.backward / 1e12);
  return cpu;
}

Gpu shared(const Gpu& cpu, int64_t ranks) {
  const auto share = 1 / static_cast<double>(ranks);
  Gpu one = cpu;
  one.peak *= share;
  one.gemm *= share;
  one.bandwidth *= share;
  for (auto& rates : one.attention)
    for (double& rate : rates) rate *= share;
  return one;
}

}  // namespace longlora::train

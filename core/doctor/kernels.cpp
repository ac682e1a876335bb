#include "core/doctor/kernels.h"

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/base/progress.h"
#include "core/base/signal.h"
#include "core/ops/attention.h"
#include "core/ops/product_choice.h"
#include "core/ops/timing.h"

namespace longlora::doctor {
namespace {

using ops::AttentionBackend;

struct Shape {
  int64_t tokens, group, heads, kv_heads, head_dim;  // group 0: full attention
};

std::string to_string(const Shape& s) {
  return fmt::format("{} tokens, {}, {}/{} heads of {}", s.tokens,
                     s.group > 0 ? fmt::format("S2 groups of {}", s.group) : "full", s.heads, s.kv_heads, s.head_dim);
}

std::vector<Shape> shapes_for(const at::Device& device) {
  if (device.is_cpu()) return {{4096, 1024, 12, 12, 64}, {4096, 1024, 8, 2, 128}, {4096, 0, 12, 12, 64}};
  return {{8192, 2048, 32, 32, 128}, {32768, 8192, 32, 8, 128}, {100000, 25000, 32, 32, 128}, {32768, 0, 32, 8, 128}};
}

ops::GroupPlan plan_of(const Shape& s) {
  const int64_t whole[] = {0, s.tokens};
  return s.group > 0 ? ops::GroupPlan::s2(whole, s.group, s.heads, s.kv_heads)
                     : ops::GroupPlan::full(whole, s.heads, s.kv_heads);
}

struct Tensors {
  at::Tensor q, k, v, dout, dq, dk, dv;
};

// As a layer has them: views of one stacked buffer.
Tensors tensors_of(const Shape& s, const at::Device& device) {
  const auto options = at::TensorOptions(at::kBFloat16).device(device);
  const at::Tensor all = at::randn({s.tokens, s.heads + 2 * s.kv_heads, s.head_dim}, options), d = at::empty_like(all);
  const auto part = [&](const at::Tensor& x, int64_t first, int64_t count) { return x.narrow(1, first, count); };
  return {part(all, 0, s.heads),
          part(all, s.heads, s.kv_heads),
          part(all, s.heads + s.kv_heads, s.kv_heads),
          at::randn({s.tokens, s.heads, s.head_dim}, options),
          part(d, 0, s.heads),
          part(d, s.heads, s.kv_heads),
          part(d, s.heads + s.kv_heads, s.kv_heads)};
}

}  // namespace

Section examine_kernels(const at::Device& device) {
  Section section{.title = "Attention, bfloat16, forward + backward", .findings = {}};
  section.figures = {{"attention", nlohmann::ordered_json::array()}};
  const auto shapes = shapes_for(device);
  Progress progress("timing kernels", static_cast<int64_t>(shapes.size()), "shapes");
  int64_t done = 0;
  const double limit = device.is_cpu() ? ops::choose_product(at::kBFloat16, device).flops
                                       : ops::product_rate(device, at::kBFloat16, ops::ProductBackend::native);
  for (const Shape& shape : shapes) {
    const ops::GroupPlan plan = plan_of(shape);
    const Tensors t = tensors_of(shape, device);
    const AttentionBackend picked = ops::pick_backend(t.q, plan);
    const double flops =
        4.0 * ops::attention_pairs(plan) * static_cast<double>(shape.head_dim);  // forward; backward 2.5 times that
    nlohmann::ordered_json entry = {{"shape", to_string(shape)}, {"auto", ops::to_string(picked)}};
    for (const AttentionBackend backend :
         {AttentionBackend::cuda, AttentionBackend::cudnn, AttentionBackend::cpu, AttentionBackend::sdpa}) {
      if (ops::objection(backend, t.q, plan) != nullptr) continue;
      leave_if_stopped();
      const ops::AttentionResult saved = ops::attention_forward(t.q, t.k, t.v, plan, backend);
      const double forward = ops::seconds_of(
          device, [&] { ops::attention_forward_into(t.q, t.k, t.v, plan, saved.out, saved.lse, backend); });
      leave_if_stopped();
      const double backward = ops::seconds_of(
          device, [&] { ops::attention_backward(t.dout, t.q, t.k, t.v, saved, plan, t.dq, t.dk, t.dv, backend); });
      const double rate = 3.5 * flops / (forward + backward);
      section.fine(
          fmt::format("{}: {}{}", to_string(shape), ops::to_string(backend), backend == picked ? " (auto)" : ""),
          fmt::format("{:.2f} + {:.2f} ms, {:.3g} TFLOP/s, {:.0f} % of products", 1e3 * forward, 1e3 * backward,
                      rate / 1e12, 100 * rate / limit));
      entry[ops::to_string(backend)] = {
          {"forward_ms", 1e3 * forward}, {"backward_ms", 1e3 * backward}, {"flops", rate}};
    }
    if (picked == AttentionBackend::reference) {
      section.notice(to_string(shape) + ": reference (auto)", "plain operations: no fast backend can do this",
                     "use bfloat16, or a head size that the kernels take (docs/kernels.md)");
    }
    section.figures["attention"].push_back(std::move(entry));
    progress.update(++done);
  }
  progress.clear();
  return section;
}

}  // namespace longlora::doctor

#include "core/ops/cross_entropy.h"

#include "core/ops/cpu_kernels.h"

namespace longlora::ops {
namespace {

// Losses [C] of a chunk; with `gradient` the logits are replaced by (softmax - onehot) * scale.
void cross_entropy(const at::Tensor& logits, const at::Tensor& targets, const at::Tensor& losses, bool gradient,
                   double scale) {
  if (const auto element = cpu_element(logits)) {
    const cpu::CrossEntropy arguments{
        logits.data_ptr(), targets.data_ptr<int32_t>(), losses.data_ptr(), logits.size(1), scale, gradient};
    over_rows(logits.size(0), logits.size(1),
              [&](int64_t begin, int64_t end) { cpu_kernels().cross_entropy(*element, arguments, begin, end); });
    return;
  }
  const at::Tensor index = targets.to(logits.device(), at::kLong).unsqueeze(1);
  const at::Tensor scored = index.ge(0);
  const at::Tensor at_target = index.clamp_min(0);
  const at::Tensor log_p = at::log_softmax(logits, -1, losses.scalar_type());
  losses.copy_((log_p.gather(1, at_target).neg() * scored).squeeze(1));
  if (!gradient) return;
  at::Tensor p = log_p.exp();
  p.scatter_add_(1, at_target, at::full_like(at_target, -1, p.options()));
  logits.copy_(p.mul_(scored).mul_(scale));
}

}  // namespace

HeadLoss head_loss(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets, bool gradient,
                   double scale, const at::Tensor& dhead, int64_t chunk_bytes) {
  const int64_t tokens = hidden.size(0), vocab = head.size(0);
  const auto loss_type = hidden.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const int64_t row_bytes = vocab * static_cast<int64_t>(hidden.element_size());
  const int64_t chunk = std::clamp<int64_t>(chunk_bytes / row_bytes, 1, tokens);
  HeadLoss result{at::empty({tokens}, hidden.options().dtype(loss_type)), {}};
  if (gradient) result.dhidden = at::empty_like(hidden);
  at::Tensor buffer = at::empty({chunk, vocab}, hidden.options());
  const at::Tensor head_t = head.t();
  for (int64_t begin = 0; begin < tokens; begin += chunk) {
    const int64_t rows = std::min(chunk, tokens - begin);
    const at::Tensor h = hidden.narrow(0, begin, rows);
    at::Tensor logits = buffer.narrow(0, 0, rows);
    at::mm_out(logits, h, head_t);
    cross_entropy(logits, targets.narrow(0, begin, rows), result.losses.narrow(0, begin, rows), gradient, scale);
    if (!gradient) continue;
    at::Tensor dh = result.dhidden.narrow(0, begin, rows);
    at::mm_out(dh, logits, head);
    if (dhead.defined()) dhead.add_(at::mm(logits.t(), h));
  }
  return result;
}

}  // namespace longlora::ops

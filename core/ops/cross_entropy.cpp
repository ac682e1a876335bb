#include "core/ops/cross_entropy.h"

#include "core/ops/cpu_kernels.h"
#include "core/ops/cuda_call.h"
#include "core/ops/sum_type.h"
#include "cuda/cross_entropy.h"

namespace longlora::ops {
namespace {

// Losses [C] of a chunk, all on one device; with `gradient` the logits are replaced by (softmax - onehot) * scale.
void cross_entropy(const at::Tensor& logits, const at::Tensor& targets, const at::Tensor& losses, bool gradient,
                   double scale) {
  if (const auto type = cuda_element(logits)) {
    const CudaCall call(logits);
    cuda::cross_entropy({.element = *type,
                         .rows = logits.size(0),
                         .vocab = logits.size(1),
                         .logits = logits.mutable_data_ptr(),
                         .row = logits.stride(0),
                         .targets = targets.const_data_ptr<int32_t>(),
                         .losses = losses.mutable_data_ptr<float>(),
                         .gradient = gradient,
                         .scale = static_cast<float>(scale)},
                        call.stream);
    return;
  }
  if (const auto element = cpu_element(logits)) {
    const cpu::CrossEntropy arguments{
        logits.data_ptr(), targets.data_ptr<int32_t>(), losses.data_ptr(), logits.size(1), scale, gradient};
    over_rows(logits.size(0), logits.size(1),
              [&](int64_t begin, int64_t end) { cpu_kernels().cross_entropy(*element, arguments, begin, end); });
    return;
  }
  const at::Tensor index = targets.to(at::kLong).unsqueeze(1);
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

int64_t head_loss_chunk(const at::Tensor& hidden, int64_t vocab) {
  constexpr int64_t kGpuTokens = 2048, kCpuBytes = int64_t{64} << 20;
  const int64_t row_bytes = vocab * static_cast<int64_t>(hidden.element_size());
  int64_t tokens = hidden.is_cuda() ? kGpuTokens : kCpuBytes / row_bytes;
  if (tokens > kProductTile) tokens -= tokens % kProductTile;  // else the head is converted once more for a few rows
  return std::clamp<int64_t>(tokens, 1, hidden.size(0));
}

HeadLoss head_loss(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets, ProductBackend backend,
                   bool gradient, double scale, const at::Tensor& dhead, int64_t chunk) {
  const int64_t tokens = hidden.size(0), vocab = head.size(0);
  const auto loss_type = sum_type(hidden);
  if (chunk == 0) chunk = head_loss_chunk(hidden, vocab);
  HeadLoss result{at::empty({tokens}, hidden.options().dtype(loss_type)), {}};
  if (gradient) result.dhidden = at::empty_like(hidden);
  at::Tensor buffer = at::empty({chunk, vocab}, hidden.options());
  const at::Tensor head_t = head.t(), targets_there = targets.to(hidden.device());
  for (int64_t begin = 0; begin < tokens; begin += chunk) {
    const int64_t rows = std::min(chunk, tokens - begin);
    const at::Tensor h = hidden.narrow(0, begin, rows);
    at::Tensor logits = buffer.narrow(0, 0, rows);
    product_into(logits, {{h, head_t}}, backend);
    cross_entropy(logits, targets_there.narrow(0, begin, rows), result.losses.narrow(0, begin, rows), gradient, scale);
    if (!gradient) continue;
    at::Tensor dh = result.dhidden.narrow(0, begin, rows);
    product_into(dh, {{logits, head}}, backend);
    if (dhead.defined()) product_add(dhead, logits.t(), h, backend);
  }
  return result;
}

}  // namespace longlora::ops

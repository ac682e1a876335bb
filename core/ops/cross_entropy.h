// The language-model head and its loss in chunks of tokens: the full logits never exist. The gradient is made
// in the same sweep, while a chunk's logits are there.
#pragma once
#include <ATen/ATen.h>

namespace longlora::ops {

struct HeadLoss {
  at::Tensor losses;   // [T] float32 (float64 for float64): -log p(target), 0 where the target is negative
  at::Tensor dhidden;  // [T, d] gradient of scale * sum(losses); undefined when no gradient was asked for
};

// hidden [T, d], head [vocab, d], targets [T] int32 on the CPU (negative: no loss).
// With `gradient`: d(scale * sum of losses); when `dhead` is defined ([vocab, d] float32 or float64) the
// head's gradient is added to it. `chunk_bytes` bounds the logits that exist at a time.
[[nodiscard]] HeadLoss head_loss(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets,
                                 bool gradient, double scale, const at::Tensor& dhead,
                                 int64_t chunk_bytes = int64_t{64} << 20);

}  // namespace longlora::ops

// The language-model head and its loss in chunks of tokens: the full logits never exist. The gradient is made
// in the same sweep, while a chunk's logits are there.
#pragma once
#include <ATen/ATen.h>

#include "core/ops/product.h"

namespace longlora::ops {

struct HeadLoss {
  at::Tensor losses;   // [T] float32 (float64 for float64): -log p(target), 0 where the target is negative
  at::Tensor dhidden;  // [T, d] gradient of scale * sum(losses); undefined when no gradient was asked for
};

// Tokens whose logits exist at a time where nothing else is asked: what 64 MiB hold on a CPU, 2048 on a GPU, whose matrix
// products want that many rows.
[[nodiscard]] int64_t head_loss_chunk(const at::Tensor& hidden, int64_t vocab);

// hidden [T, d], head [vocab, d], targets [T] int32 on the CPU (negative: no loss).
// With `gradient`: d(scale * sum of losses); when `dhead` is defined ([vocab, d] float32 or float64) the
// head's gradient is added to it. `chunk`: tokens whose logits exist at a time; 0: head_loss_chunk().
[[nodiscard]] HeadLoss head_loss(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets,
                                 ProductBackend backend, bool gradient, double scale, const at::Tensor& dhead,
                                 int64_t chunk = 0);

}  // namespace longlora::ops

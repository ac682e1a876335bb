// Attention of queries to keys that all of them may see, and how such a part is joined to the rest of a softmax: what
// ranks that share a sequence compute with one another's keys.
#pragma once
#include <ATen/ATen.h>

#include "core/ops/attention.h"

namespace longlora::ops {

// q [n, Hq, D], k and v [m, Hkv, D], any strides with the innermost 1; query head h reads KV head h / (Hq / Hkv). Without a
// mask: out [n, Hq, D] of q's type, lse [Hq, n]. By LibTorch's flash attention where it can and `backend` is not
// `reference`, else by plain tensor operations.
[[nodiscard]] AttentionResult attention_block_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                      AttentionBackend backend);

// Adds to dq [n, Hq, D], dk and dv [m, Hkv, D] (float32, float64 for float64) this block's part of the gradients of a softmax
// over more keys, whose `out` and `lse` are `joined`: p_ij = exp(s_ij - lse_i) (ring attention, arXiv 2310.01889).
void attention_block_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const AttentionResult& joined, const at::Tensor& dq, const at::Tensor& dk,
                              const at::Tensor& dv, AttentionBackend backend);

// A softmax gets further keys, whose log-sum-exp is `more` [H, n]: `lse` [H, n] becomes that of both, `out` [H, n, D] is
// scaled to it, in place. What the further keys have to add to `out` is exp(s - lse) v (FlashAttention-2, arXiv 2307.08691,
// section 3.1).
void join_softmax(const at::Tensor& out, const at::Tensor& lse, const at::Tensor& more);

}  // namespace longlora::ops

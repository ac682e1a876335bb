// Attention of new tokens to those before them, joined to the attention among themselves: how a long prompt is computed in
// chunks against a cache.
#pragma once
#include <ATen/ATen.h>

namespace longlora::ops {

// `out` [n, Hq, D] and `lse` [Hq, n] are what attention_forward gives for the new tokens alone, q [n, Hq, D]; both become what
// it gives over the past as well. k and v [P, Hkv, D] are the last P tokens before them, oldest first. window: as in
// GroupPlan; P must not leave out a key that it reaches.
//
// Two softmaxes over disjoint keys are joined by their log-sum-exps (FlashAttention-2, arXiv 2307.08691, section 3.1).
// Keys are taken in blocks, so that no more than n x block scores exist at once; sums are float32, float64 for float64.
void join_past(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t window, at::Tensor& out,
               at::Tensor& lse);

}  // namespace longlora::ops

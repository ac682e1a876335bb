// Attention by cuDNN through LibTorch, on views without a copy of q, k or v; runs of segments of one length form a batch, and
// query heads read grouped KV heads as they are. LibTorch keeps a compiled graph for every shape and every stride of q, k and
// v (aten/src/ATen/native/cudnn/MHA.cpp), not of out and its gradient: these are taken contiguous, as attention.h makes them.
// Its variable-length path wants packed rows and compiles anew at every call.
#include <algorithm>
#include <set>

#include "core/ops/attention_batches.h"

namespace longlora::ops::cudnn {
namespace {

// The segments' lengths of rows that are one document each: a group, half a group and what is left over in either half.
constexpr size_t kLengths = 4;

std::set<int64_t> lengths(const GroupPlan& plan) {
  std::set<int64_t> all;
  for (const HeadRange& range : head_ranges(plan)) {
    for (size_t s = 0; s + 1 < range.boundaries.size(); ++s) {
      all.insert(range.boundaries[s + 1] - range.boundaries[s]);
    }
  }
  return all;
}

}  // namespace

const char* objection(const at::Tensor& q, const GroupPlan& plan) {
  if (!q.is_cuda()) return "cuDNN's attention runs on CUDA devices";
  if (q.scalar_type() != at::kBFloat16 && q.scalar_type() != at::kHalf) {
    return "cuDNN's attention takes bfloat16 and float16";
  }
  if (q.size(2) % 8 != 0 || q.size(2) > 128)
    return "cuDNN's attention takes head sizes that are multiples of 8 up to 128";
  if (plan.window > 0) return "LibTorch's way to cuDNN has no sliding window";
  const std::set<int64_t> all = lengths(plan);
  if (*all.begin() == 1) return "cuDNN's attention takes segments of two tokens or more";
  if (all.size() > kLengths) return "cuDNN compiles for every length of a segment, and these documents have too many";
  return nullptr;
}

void forward(const AttentionForward& a) {
  for_each_batch(a.plan, /*several=*/true, [&](const Batch& b) {
    const auto result = at::_cudnn_attention_forward(
        query_view(a.q, b), key_view(a.k, b), key_view(a.v, b), /*attn_bias=*/{}, /*cum_seq_q=*/{}, /*cum_seq_k=*/{},
        b.length, b.length, /*compute_log_sumexp=*/true, /*dropout_p=*/0.0, /*is_causal=*/true);
    query_view(a.out, b).copy_(std::get<0>(result));
    const at::Tensor lse = lse_view(a.lse, b);
    lse.copy_(std::get<1>(result).view(lse.sizes()));
  });
}

void backward(const AttentionBackward& a) {
  const bool shared = shares_kv_head(a.plan);
  if (shared) {
    a.dk.zero_();
    a.dv.zero_();
  }
  const at::Tensor out = a.out.contiguous(), dout = a.dout.contiguous();
  const at::Tensor no_dropout = at::empty({}, a.q.options().dtype(at::kLong));
  for_each_batch(a.plan, /*several=*/true, [&](const Batch& b) {
    const auto [dq, dk, dv] = at::_cudnn_attention_backward(
        query_view(dout, b), query_view(a.q, b), key_view(a.k, b), key_view(a.v, b), query_view(out, b),
        lse_view(a.lse, b).contiguous().unsqueeze(-1), no_dropout, no_dropout, /*attn_bias=*/{}, /*cum_seq_q=*/{},
        /*cum_seq_k=*/{}, b.length, b.length, /*dropout_p=*/0.0, /*is_causal=*/true);
    query_view(a.dq, b).copy_(dq);
    put_part(key_view(a.dk, b), dk, shared);
    put_part(key_view(a.dv, b), dv, shared);
  });
}

}  // namespace longlora::ops::cudnn

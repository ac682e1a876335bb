// Attention by LibTorch's flash kernels on views: no copy of q, k or v. On the CPU runs of segments of one
// length form a batch; on a GPU the segments go in as one list of lengths.
#include <ATen/ATen.h>

#include "core/ops/attention_batches.h"
#include "core/ops/sum_type.h"

namespace longlora::ops::sdpa {
namespace {

// The keys of every query head of the batch.
at::Tensor expanded_keys(const at::Tensor& x, const Batch& b) {
  return key_view(x, b).expand({b.count, b.heads.size(), b.length, x.size(2)});
}

void forward_cpu(const AttentionForward& a) {
  for_each_batch(a.plan, /*several=*/false, [&](const Batch& b) {
    const auto [out, lse] = at::_scaled_dot_product_flash_attention_for_cpu(
        query_view(a.q, b), expanded_keys(a.k, b), expanded_keys(a.v, b), 0.0, /*is_causal=*/true);
    query_view(a.out, b).copy_(out);
    lse_view(a.lse, b).copy_(lse);
  });
}

void backward_cpu(const AttentionBackward& a) {
  const bool grouped = a.plan.heads != a.plan.kv_heads;
  const auto options = a.dk.options().dtype(sum_type(a.q));
  at::Tensor dk_sum, dv_sum;  // over the query heads of a KV head, which may lie in both halves
  if (grouped) {
    dk_sum = at::zeros(a.dk.sizes(), options);
    dv_sum = at::zeros(a.dv.sizes(), options);
  }
  for_each_batch(a.plan, /*several=*/false, [&](const Batch& b) {
    const auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
        query_view(a.dout, b), query_view(a.q, b), expanded_keys(a.k, b), expanded_keys(a.v, b), query_view(a.out, b),
        lse_view(a.lse, b), 0.0, /*is_causal=*/true);
    query_view(a.dq, b).copy_(dq);
    if (grouped) {
      key_view(dk_sum, b).add_(dk.sum(1, /*keepdim=*/true, options.dtype().toScalarType()));
      key_view(dv_sum, b).add_(dv.sum(1, /*keepdim=*/true, options.dtype().toScalarType()));
    } else {
      key_view(a.dk, b).copy_(dk);
      key_view(a.dv, b).copy_(dv);
    }
  });
  if (grouped) {
    a.dk.copy_(dk_sum);
    a.dv.copy_(dv_sum);
  }
}

// What LibTorch's variable-length kernels take: a section of the heads and its segments.
struct Piece {
  HeadSection section;
  at::Tensor boundaries;  // [segments + 1] int32 on the device
  int64_t longest;
};

std::vector<Piece> pieces(const GroupPlan& plan, const at::Device& device) {
  std::vector<Piece> result;
  for (const HeadSection& section : head_sections(plan)) {
    int64_t longest = 0;
    for (size_t s = 0; s + 1 < section.boundaries.size(); ++s) {
      longest = std::max(longest, section.boundaries[s + 1] - section.boundaries[s]);
    }
    result.push_back({section, at::tensor(section.boundaries, at::kInt).to(device, /*non_blocking=*/true), longest});
  }
  return result;
}

at::Tensor of_heads(const at::Tensor& x, int64_t dim, const Range& heads) {
  return x.narrow(dim, heads.begin, heads.size());
}

std::optional<int64_t> look_back(const GroupPlan& plan) {
  return plan.window > 0 ? std::optional<int64_t>(plan.window - 1) : std::nullopt;
}

void forward_cuda(const AttentionForward& a) {
  for (const auto& [p, boundaries, longest] : pieces(a.plan, a.q.device())) {
    const auto result = at::_flash_attention_forward(
        of_heads(a.q, 1, p.heads), of_heads(a.k, 1, p.kv_heads), of_heads(a.v, 1, p.kv_heads), boundaries, boundaries,
        longest, longest, 0.0, /*is_causal=*/true, /*return_debug_mask=*/false,
        /*scale=*/std::nullopt, look_back(a.plan), look_back(a.plan) ? std::optional<int64_t>(0) : std::nullopt);
    of_heads(a.out, 1, p.heads).copy_(std::get<0>(result));
    of_heads(a.lse, 0, p.heads).copy_(std::get<1>(result));
  }
}

void backward_cuda(const AttentionBackward& a) {
  const bool shared = shares_kv_head(a.plan);
  if (shared) {
    a.dk.zero_();
    a.dv.zero_();
  }
  const at::Tensor no_dropout = at::empty({2}, a.q.options().dtype(at::kLong));
  for (const auto& [p, boundaries, longest] : pieces(a.plan, a.q.device())) {
    const auto [dq, dk, dv] = at::_flash_attention_backward(
        of_heads(a.dout, 1, p.heads), of_heads(a.q, 1, p.heads), of_heads(a.k, 1, p.kv_heads),
        of_heads(a.v, 1, p.kv_heads), of_heads(a.out, 1, p.heads), of_heads(a.lse, 0, p.heads).contiguous(), boundaries,
        boundaries, longest, longest, 0.0,
        /*is_causal=*/true, no_dropout, no_dropout, /*scale=*/std::nullopt, look_back(a.plan),
        look_back(a.plan) ? std::optional<int64_t>(0) : std::nullopt);
    of_heads(a.dq, 1, p.heads).copy_(dq);
    put_part(of_heads(a.dk, 1, p.kv_heads), dk, shared);
    put_part(of_heads(a.dv, 1, p.kv_heads), dv, shared);
  }
}

}  // namespace

const char* objection(const at::Tensor& q, const GroupPlan& plan) {
  if (q.is_cpu()) return plan.window > 0 ? "LibTorch's CPU attention has no sliding window" : nullptr;
  if (!q.is_cuda()) return "LibTorch's flash attention runs on CPUs and CUDA devices";
  if (q.scalar_type() != at::kBFloat16 && q.scalar_type() != at::kHalf) {
    return "LibTorch's flash attention on a GPU takes bfloat16 and float16";
  }
  if (q.size(2) % 8 != 0 || q.size(2) > 256) {
    return "LibTorch's flash attention on a GPU takes head sizes that are multiples of 8 up to 256";
  }
  if (plan.tokens > INT32_MAX) return "LibTorch's flash attention counts tokens in 32 bits";
  return nullptr;
}

void forward(const AttentionForward& a) {
  a.q.is_cpu() ? forward_cpu(a) : forward_cuda(a);
}
void backward(const AttentionBackward& a) {
  a.q.is_cpu() ? backward_cpu(a) : backward_cuda(a);
}

}  // namespace longlora::ops::sdpa

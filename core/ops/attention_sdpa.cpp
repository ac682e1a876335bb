// Attention by LibTorch's flash kernels on views: no copy of q, k or v. On the CPU runs of segments of one
// length form a batch; on a GPU the segments go in as one list of lengths.
#include <ATen/ATen.h>

#include "core/ops/attention_backends.h"

namespace longlora::ops::sdpa {
namespace {

// `count` segments of `length` tokens from token `begin`, query heads [head, head + heads), all reading one
// KV head or, without grouped heads, one each from `kv`.
struct Batch {
  int64_t begin, length, count;
  int64_t head, heads, kv;
};

template <class Body>
void for_each_batch(const GroupPlan& plan, Body&& body) {
  const int64_t ratio = plan.heads / plan.kv_heads;
  for (const HeadRange& range : head_ranges(plan)) {
    const std::vector<int64_t>& cut = range.boundaries;
    for (size_t s = 0, next = 0; s + 1 < cut.size(); s = next) {
      Batch batch{cut[s], cut[s + 1] - cut[s], 0, range.first, range.count, range.first / ratio};
      for (next = s; next + 1 < cut.size() && cut[next + 1] - cut[next] == batch.length; ++next) ++batch.count;
      if (ratio == 1) {
        body(batch);
        continue;
      }
      for (const int64_t end = range.first + range.count; batch.head < end; batch.head += batch.heads, ++batch.kv) {
        batch.heads = std::min((batch.kv + 1) * ratio, end) - batch.head;
        body(batch);
      }
    }
  }
}

// [T, H, D] -> [count, heads, length, D]
at::Tensor query_view(const at::Tensor& x, const Batch& b) {
  return x.narrow(0, b.begin, b.count * b.length)
      .narrow(1, b.head, b.heads)
      .unflatten(0, {b.count, b.length})
      .transpose(1, 2);
}

at::Tensor key_view(const at::Tensor& x, const Batch& b, bool grouped) {
  const Batch one{b.begin, b.length, b.count, b.kv, grouped ? 1 : b.heads, b.kv};
  return query_view(x, one).expand({b.count, b.heads, b.length, x.size(2)});
}

// [H, T] -> [count, heads, length]
at::Tensor lse_view(const at::Tensor& lse, const Batch& b) {
  return lse.narrow(0, b.head, b.heads)
      .narrow(1, b.begin, b.count * b.length)
      .unflatten(1, {b.count, b.length})
      .transpose(0, 1);
}

void forward_cpu(const AttentionForward& a) {
  const bool grouped = a.plan.heads != a.plan.kv_heads;
  for_each_batch(a.plan, [&](const Batch& b) {
    const auto [out, lse] = at::_scaled_dot_product_flash_attention_for_cpu(
        query_view(a.q, b), key_view(a.k, b, grouped), key_view(a.v, b, grouped), 0.0, /*is_causal=*/true);
    query_view(a.out, b).copy_(out);
    lse_view(a.lse, b).copy_(lse);
  });
}

void backward_cpu(const AttentionBackward& a) {
  const bool grouped = a.plan.heads != a.plan.kv_heads;
  const auto options = a.dk.options().dtype(a.q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  at::Tensor dk_sum, dv_sum;  // over the query heads of a KV head, which may lie in both halves
  if (grouped) {
    dk_sum = at::zeros(a.dk.sizes(), options);
    dv_sum = at::zeros(a.dv.sizes(), options);
  }
  for_each_batch(a.plan, [&](const Batch& b) {
    const auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
        query_view(a.dout, b), query_view(a.q, b), key_view(a.k, b, grouped), key_view(a.v, b, grouped),
        query_view(a.out, b), lse_view(a.lse, b), 0.0, /*is_causal=*/true);
    query_view(a.dq, b).copy_(dq);
    const Batch one{b.begin, b.length, b.count, b.kv, grouped ? 1 : b.heads, b.kv};
    if (grouped) {
      query_view(dk_sum, one).add_(dk.sum(1, /*keepdim=*/true, options.dtype().toScalarType()));
      query_view(dv_sum, one).add_(dv.sum(1, /*keepdim=*/true, options.dtype().toScalarType()));
    } else {
      query_view(a.dk, one).copy_(dk);
      query_view(a.dv, one).copy_(dv);
    }
  });
  if (grouped) {
    a.dk.copy_(dk_sum);
    a.dv.copy_(dv_sum);
  }
}

// LibTorch's variable-length kernels take the heads of one half and their KV heads; where a half begins or
// ends inside a group of query heads it is cut there.
struct Piece {
  int64_t head, heads, kv, kv_heads;
  at::Tensor boundaries;  // [segments + 1] int32 on the device
  int64_t longest;
};

std::vector<Piece> pieces(const GroupPlan& plan, const at::Device& device) {
  const int64_t ratio = plan.heads / plan.kv_heads;
  std::vector<Piece> result;
  for (const HeadRange& range : head_ranges(plan)) {
    int64_t longest = 0;
    for (size_t s = 0; s + 1 < range.boundaries.size(); ++s) {
      longest = std::max(longest, range.boundaries[s + 1] - range.boundaries[s]);
    }
    const at::Tensor boundaries = at::tensor(range.boundaries, at::kInt).to(device, /*non_blocking=*/true);
    const int64_t end = range.first + range.count;
    for (int64_t head = range.first; head < end;) {
      const bool whole = head % ratio == 0 && end - head >= ratio;
      const int64_t heads = whole ? (end - head) / ratio * ratio : std::min((head / ratio + 1) * ratio, end) - head;
      result.push_back({head, heads, head / ratio, whole ? heads / ratio : 1, boundaries, longest});
      head += heads;
    }
  }
  return result;
}

std::optional<int64_t> look_back(const GroupPlan& plan) {
  return plan.window > 0 ? std::optional<int64_t>(plan.window - 1) : std::nullopt;
}

void forward_cuda(const AttentionForward& a) {
  for (const Piece& p : pieces(a.plan, a.q.device())) {
    const auto result = at::_flash_attention_forward(
        a.q.narrow(1, p.head, p.heads), a.k.narrow(1, p.kv, p.kv_heads), a.v.narrow(1, p.kv, p.kv_heads), p.boundaries,
        p.boundaries, p.longest, p.longest, 0.0, /*is_causal=*/true, /*return_debug_mask=*/false,
        /*scale=*/std::nullopt, look_back(a.plan), look_back(a.plan) ? std::optional<int64_t>(0) : std::nullopt);
    a.out.narrow(1, p.head, p.heads).copy_(std::get<0>(result));
    a.lse.narrow(0, p.head, p.heads).copy_(std::get<1>(result));
  }
}

void backward_cuda(const AttentionBackward& a) {
  const int64_t ratio = a.plan.heads / a.plan.kv_heads;
  const bool shared = !a.plan.uniform() && a.plan.plain_heads % ratio != 0;  // a KV head with heads in both halves
  if (shared) {
    a.dk.zero_();
    a.dv.zero_();
  }
  const at::Tensor no_dropout = at::empty({2}, a.q.options().dtype(at::kLong));
  for (const Piece& p : pieces(a.plan, a.q.device())) {
    const auto [dq, dk, dv] = at::_flash_attention_backward(
        a.dout.narrow(1, p.head, p.heads), a.q.narrow(1, p.head, p.heads), a.k.narrow(1, p.kv, p.kv_heads),
        a.v.narrow(1, p.kv, p.kv_heads), a.out.narrow(1, p.head, p.heads),
        a.lse.narrow(0, p.head, p.heads).contiguous(), p.boundaries, p.boundaries, p.longest, p.longest, 0.0,
        /*is_causal=*/true, no_dropout, no_dropout, /*scale=*/std::nullopt, look_back(a.plan),
        look_back(a.plan) ? std::optional<int64_t>(0) : std::nullopt);
    a.dq.narrow(1, p.head, p.heads).copy_(dq);
    const at::Tensor to_k = a.dk.narrow(1, p.kv, p.kv_heads), to_v = a.dv.narrow(1, p.kv, p.kv_heads);
    if (shared) {
      to_k.add_(dk);
      to_v.add_(dv);
    } else {
      to_k.copy_(dk);
      to_v.copy_(dv);
    }
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

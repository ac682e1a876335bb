#include "core/ops/attention_block.h"

#include <cmath>

#include "core/ops/attention_backends.h"
#include "core/ops/product.h"
#include "core/ops/sum_type.h"

namespace longlora::ops {
namespace {

constexpr int64_t kScores = int64_t{1} << 24;  // that the reference writes down at once

bool by_flash(const at::Tensor& q, const at::Tensor& k, AttentionBackend backend) {
  GroupPlan plain;
  plain.tokens = std::max(q.size(0), k.size(0));
  return backend != AttentionBackend::reference && sdpa::objection(q, plain) == nullptr;
}

// LibTorch's CPU attention multiplies 16-bit types in slow loops where the processor has no units for them (core/ops/product.h).
bool wants_float32(const at::Tensor& q) {
  return default_product(q.scalar_type(), q.device()) == ProductBackend::float32_tiles;
}

// KV heads as the batch: [n, Hq, D] -> [Hkv, Hq / Hkv, n, D]
at::Tensor queries(const at::Tensor& x, int64_t kv_heads) {
  return x.unflatten(1, {kv_heads, x.size(1) / kv_heads}).permute({1, 2, 0, 3});
}

// [m, Hkv, D] -> [Hkv, Hq / Hkv, m, D], the same for all queries of a KV head
at::Tensor keys(const at::Tensor& x, int64_t heads) {
  return x.transpose(0, 1).unsqueeze(1).expand({x.size(1), heads / x.size(1), x.size(0), x.size(2)});
}

// [Hq, n] -> [Hkv, Hq / Hkv, n]
at::Tensor rows(const at::Tensor& x, int64_t kv_heads) {
  return x.unflatten(0, {kv_heads, x.size(0) / kv_heads});
}

// Where the one segment of a block ends.
at::Tensor boundaries(const at::Tensor& x) {
  return at::tensor({int64_t{0}, x.size(0)}, at::kInt).to(x.device(), /*non_blocking=*/true);
}

// `body` on runs of queries, so that a block of scores stays near kScores: [first, first + count).
template <class Body>
void for_each_rows(const at::Tensor& q, const at::Tensor& k, Body&& body) {
  const int64_t n = q.size(0), step = std::max<int64_t>(1, kScores / (q.size(1) * k.size(0)));
  for (int64_t first = 0; first < n; first += step) body(first, std::min(step, n - first));
}

// Scaled scores of some queries, in the type of the sums: [Hkv, Hq / Hkv, count, m].
at::Tensor scores(const at::Tensor& wide_q, const at::Tensor& wide_k) {
  return wide_q.matmul(wide_k.transpose(2, 3)).mul_(1 / std::sqrt(static_cast<double>(wide_q.size(3))));
}

}  // namespace

AttentionResult attention_block_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                        AttentionBackend backend) {
  const int64_t n = q.size(0), heads = q.size(1), kv_heads = k.size(1);
  const bool flash = by_flash(q, k, backend);
  if (flash && wants_float32(q)) {
    const AttentionResult wide = attention_block_forward(q.to(at::kFloat), k.to(at::kFloat), v.to(at::kFloat), backend);
    return {wide.out.to(q.scalar_type()), wide.lse};
  }
  if (flash && q.is_cpu()) {
    const auto [out, lse] = at::_scaled_dot_product_flash_attention_for_cpu(queries(q, kv_heads), keys(k, heads),
                                                                            keys(v, heads), 0.0, /*is_causal=*/false);
    return {out.permute({2, 0, 1, 3}).reshape(q.sizes()), lse.reshape({heads, n})};
  }
  if (flash) {
    const auto result = at::_flash_attention_forward(q, k, v, boundaries(q), boundaries(k), n, k.size(0), 0.0,
                                                     /*is_causal=*/false, /*return_debug_mask=*/false);
    return {std::get<0>(result), std::get<1>(result)};
  }
  const auto type = sum_type(q);
  AttentionResult result{at::empty(q.sizes(), q.options()), at::empty({heads, n}, q.options().dtype(type))};
  const at::Tensor wide_k = keys(k.to(type), heads), wide_v = keys(v.to(type), heads);
  for_each_rows(q, k, [&](int64_t first, int64_t count) {
    const at::Tensor s = scores(queries(q.narrow(0, first, count).to(type), kv_heads), wide_k);
    const at::Tensor lse = s.logsumexp(3);
    queries(result.out.narrow(0, first, count), kv_heads).copy_((s - lse.unsqueeze(3)).exp_().matmul(wide_v));
    rows(result.lse.narrow(1, first, count), kv_heads).copy_(lse);
  });
  return result;
}

void attention_block_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const AttentionResult& joined, const at::Tensor& dq, const at::Tensor& dk,
                              const at::Tensor& dv, AttentionBackend backend) {
  const int64_t n = q.size(0), heads = q.size(1), kv_heads = k.size(1);
  const auto type = sum_type(q);
  const bool flash = by_flash(q, k, backend);
  if (flash && wants_float32(q)) {
    return attention_block_backward(dout.to(at::kFloat), q.to(at::kFloat), k.to(at::kFloat), v.to(at::kFloat),
                                    {joined.out.to(at::kFloat), joined.lse}, dq, dk, dv, backend);
  }
  if (flash && q.is_cpu()) {
    const auto [q_grad, k_grad, v_grad] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
        queries(dout, kv_heads), queries(q, kv_heads), keys(k, heads), keys(v, heads), queries(joined.out, kv_heads),
        rows(joined.lse, kv_heads), 0.0, /*is_causal=*/false);
    queries(dq, kv_heads).add_(q_grad);
    dk.add_(k_grad.sum(1, /*keepdim=*/false, type).transpose(0, 1));
    dv.add_(v_grad.sum(1, /*keepdim=*/false, type).transpose(0, 1));
    return;
  }
  if (flash) {
    const at::Tensor no_dropout = at::empty({2}, q.options().dtype(at::kLong));
    const auto [q_grad, k_grad, v_grad] = at::_flash_attention_backward(
        dout, q, k, v, joined.out, joined.lse.contiguous(), boundaries(q), boundaries(k), n, k.size(0), 0.0,
        /*is_causal=*/false, no_dropout, no_dropout);
    dq.add_(q_grad);
    dk.add_(k_grad);
    dv.add_(v_grad);
    return;
  }
  // dv = p^T dout,  ds = p (dout v^T - rowsum(dout * out)),  dq = ds k * scale,  dk = ds^T q * scale.
  const double scale = 1 / std::sqrt(static_cast<double>(q.size(2)));
  const at::Tensor wide_k = keys(k.to(type), heads), wide_v = keys(v.to(type), heads);
  for_each_rows(q, k, [&](int64_t first, int64_t count) {
    const auto wide = [&](const at::Tensor& x) { return queries(x.narrow(0, first, count).to(type), kv_heads); };
    const at::Tensor some = wide(q), grad = wide(dout);
    const at::Tensor lse = rows(joined.lse.narrow(1, first, count), kv_heads).unsqueeze(3);
    const at::Tensor p = (scores(some, wide_k) - lse).exp_();
    const at::Tensor delta = (grad * wide(joined.out)).sum(3, /*keepdim=*/true);
    const at::Tensor ds = (grad.matmul(wide_v.transpose(2, 3)) - delta).mul_(p).mul_(scale);
    queries(dq.narrow(0, first, count), kv_heads).add_(ds.matmul(wide_k));
    dk.add_(ds.transpose(2, 3).matmul(some).sum(1).transpose(0, 1));
    dv.add_(p.transpose(2, 3).matmul(grad).sum(1).transpose(0, 1));
  });
}

void join_softmax(const at::Tensor& out, const at::Tensor& lse, const at::Tensor& more) {
  const at::Tensor both = at::logaddexp(lse, more);
  out.mul_((lse - both).exp_().unsqueeze(-1));
  lse.copy_(both);
}

}  // namespace longlora::ops

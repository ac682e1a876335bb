// Attention by plain tensor operations: every score of a block of query rows is written down, masked, and
// summed in float32 (float64 for float64). Slow and obvious; the oracle of the other backends.
#include <ATen/ATen.h>

#include <cmath>

#include "core/ops/attention_backends.h"
#include "core/ops/sum_type.h"

namespace longlora::ops::reference {
namespace {

// Rows of queries that are worked on at once, so that a block of scores stays near this many elements.
constexpr int64_t kScores = int64_t{1} << 24;

struct Block {
  int64_t begin, end;  // query rows
  int64_t first_key;   // the segment's start; keys reach to `end`
};

template <class Body>
void for_each_block(const HeadRange& range, Body&& body) {
  for (size_t s = 0; s + 1 < range.boundaries.size(); ++s) {
    const int64_t begin = range.boundaries[s], end = range.boundaries[s + 1];
    const int64_t rows = std::max<int64_t>(1, kScores / (range.count * (end - begin)));
    for (int64_t at = begin; at < end; at += rows) body(Block{at, std::min(at + rows, end), begin});
  }
}

// The KV head of each query head of the range: [count] int64.
at::Tensor kv_heads(const HeadRange& range, const GroupPlan& plan, const at::Device& device) {
  return at::arange(range.first, range.first + range.count, at::TensorOptions(at::kLong).device(device))
      .div(plan.heads / plan.kv_heads, "floor");
}

// Rows [begin, end) of the range's query heads, heads first, in the type of the sums: [count, rows, D].
at::Tensor queries(const at::Tensor& x, const HeadRange& range, int64_t begin, int64_t end) {
  return x.slice(0, begin, end).narrow(1, range.first, range.count).transpose(0, 1).to(sum_type(x));
}

// The same of keys or values, one copy a query head: [count, keys, D].
at::Tensor keys(const at::Tensor& x, const at::Tensor& kv, int64_t begin, int64_t end) {
  return x.slice(0, begin, end).index_select(1, kv).transpose(0, 1).to(sum_type(x));
}

// Scaled scores with -inf where a query may not look: [count, rows, keys].
at::Tensor scores(const at::Tensor& q, const at::Tensor& k, const Block& block, int64_t window, double scale) {
  const auto options = at::TensorOptions(at::kLong).device(q.device());
  const at::Tensor distance = at::arange(block.begin, block.end, options).unsqueeze(1) -
                              at::arange(block.first_key, block.end, options).unsqueeze(0);
  at::Tensor hidden = distance < 0;
  if (window > 0) hidden = hidden.logical_or(distance >= window);
  return q.matmul(k.transpose(1, 2)).mul_(scale).masked_fill_(hidden, -INFINITY);
}

}  // namespace

void forward(const AttentionForward& a) {
  const double scale = 1 / std::sqrt(static_cast<double>(a.q.size(2)));
  for (const HeadRange& range : head_ranges(a.plan)) {
    const at::Tensor kv = kv_heads(range, a.plan, a.q.device());
    for_each_block(range, [&](const Block& b) {
      const at::Tensor s =
          scores(queries(a.q, range, b.begin, b.end), keys(a.k, kv, b.first_key, b.end), b, a.plan.window, scale);
      const at::Tensor lse = s.logsumexp(2);
      const at::Tensor out = (s - lse.unsqueeze(2)).exp_().matmul(keys(a.v, kv, b.first_key, b.end));
      a.out.slice(0, b.begin, b.end).narrow(1, range.first, range.count).copy_(out.transpose(0, 1));
      a.lse.narrow(0, range.first, range.count).slice(1, b.begin, b.end).copy_(lse);
    });
  }
}

// dv = p^T dout,  ds = p (dout v^T - rowsum(dout * out)),  dq = ds k * scale,  dk = ds^T q * scale.
void backward(const AttentionBackward& a) {
  const double scale = 1 / std::sqrt(static_cast<double>(a.q.size(2)));
  at::Tensor dk = at::zeros(a.dk.sizes(), a.dk.options().dtype(sum_type(a.q)));
  at::Tensor dv = at::zeros_like(dk);
  for (const HeadRange& range : head_ranges(a.plan)) {
    const at::Tensor kv = kv_heads(range, a.plan, a.q.device());
    for_each_block(range, [&](const Block& b) {
      const at::Tensor q = queries(a.q, range, b.begin, b.end), k = keys(a.k, kv, b.first_key, b.end);
      const at::Tensor dout = queries(a.dout, range, b.begin, b.end), v = keys(a.v, kv, b.first_key, b.end);
      const at::Tensor lse = a.lse.narrow(0, range.first, range.count).slice(1, b.begin, b.end);
      const at::Tensor p = (scores(q, k, b, a.plan.window, scale) - lse.unsqueeze(2)).exp_();
      const at::Tensor delta = (dout * queries(a.out, range, b.begin, b.end)).sum(2, /*keepdim=*/true);
      const at::Tensor ds = (dout.matmul(v.transpose(1, 2)) - delta).mul_(p).mul_(scale);
      a.dq.slice(0, b.begin, b.end).narrow(1, range.first, range.count).copy_(ds.matmul(k).transpose(0, 1));
      const auto add = [&](at::Tensor& to, const at::Tensor& x) {
        to.slice(0, b.first_key, b.end).index_add_(1, kv, x.transpose(0, 1));
      };
      add(dk, ds.transpose(1, 2).matmul(q));
      add(dv, p.transpose(1, 2).matmul(dout));
    });
  }
  a.dk.copy_(dk);
  a.dv.copy_(dv);
}

}  // namespace longlora::ops::reference

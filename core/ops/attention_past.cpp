#include "core/ops/attention_past.h"

#include <cmath>
#include <limits>

#include "core/ops/attention_block.h"
#include "core/ops/sum_type.h"

namespace longlora::ops {

void join_past(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t window, at::Tensor& out,
               at::Tensor& lse) {
  constexpr int64_t kBlock = 1024;
  const int64_t n = q.size(0), heads = q.size(1), past = k.size(0), kv_heads = k.size(1), group = heads / kv_heads;
  const auto type = sum_type(q);
  const double scale = 1 / std::sqrt(static_cast<double>(q.size(2)));
  for (int64_t h = 0; h < kv_heads; ++h) {
    const at::Tensor queries = q.narrow(1, h * group, group).transpose(0, 1).to(type);  // [group, n, D]
    const at::Tensor joined =
        out.narrow(1, h * group, group).transpose(0, 1).to(type, /*non_blocking=*/false, /*copy=*/true);
    const at::Tensor weight =
        lse.narrow(0, h * group, group).to(type, /*non_blocking=*/false, /*copy=*/true);  // [group, n]
    for (int64_t first = 0; first < past; first += kBlock) {
      const int64_t size = std::min(kBlock, past - first);
      const at::Tensor keys = k.narrow(0, first, size).select(1, h).to(type),
                       values = v.narrow(0, first, size).select(1, h).to(type);
      at::Tensor scores = at::matmul(queries, keys.t()).mul_(scale);  // [group, n, size]
      if (window > 0) {  // query i stands at past + i, key j of this block at first + j
        const at::Tensor i = at::arange(n, q.options().dtype(at::kLong)).unsqueeze(1) + (past - first);
        const at::Tensor far = (i - at::arange(size, q.options().dtype(at::kLong))).ge(window);
        scores.masked_fill_(far, -std::numeric_limits<double>::infinity());
      }
      // The log-sum-exp is minus infinity where the window reaches none of these keys.
      join_softmax(joined, weight, scores.logsumexp(-1));
      joined.add_(at::matmul((scores - weight.unsqueeze(-1)).exp(), values));
    }
    out.narrow(1, h * group, group).copy_(joined.transpose(0, 1));
    lse.narrow(0, h * group, group).copy_(weight);
  }
}

}  // namespace longlora::ops

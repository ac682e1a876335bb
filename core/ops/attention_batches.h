// A plan as what LibTorch's attention functions take: heads that read whole KV heads, and runs of segments of one length as
// batches, all of them views of the tensors that are there.
#pragma once
#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "core/ops/attention_backends.h"

namespace longlora::ops {

// Query heads [head, head + heads) that read KV heads [kv, kv + kv_heads): heads / kv_heads query heads each.
struct HeadPiece {
  int64_t head, heads, kv, kv_heads;
};

// A half that begins or ends inside the query heads of a KV head is cut there. `several`: pieces of several KV heads at a
// time also where more than one query head reads a KV head.
inline std::vector<HeadPiece> head_pieces(const GroupPlan& plan, const HeadRange& range, bool several) {
  const int64_t ratio = plan.heads / plan.kv_heads, end = range.first + range.count;
  std::vector<HeadPiece> pieces;
  for (int64_t head = range.first; head < end; head += pieces.back().heads) {
    const bool whole = (several || ratio == 1) && head % ratio == 0 && end - head >= ratio;
    const int64_t heads = whole ? (end - head) / ratio * ratio : std::min((head / ratio + 1) * ratio, end) - head;
    pieces.push_back({head, heads, head / ratio, whole ? heads / ratio : 1});
  }
  return pieces;
}

// `count` segments of `length` tokens from token `begin`, and some heads.
struct Batch {
  int64_t begin, length, count;
  HeadPiece heads;
};

template <class Body>
void for_each_batch(const GroupPlan& plan, bool several, Body&& body) {
  for (const HeadRange& range : head_ranges(plan)) {
    const std::vector<int64_t>& cut = range.boundaries;
    for (size_t s = 0, next = 0; s + 1 < cut.size(); s = next) {
      const int64_t length = cut[s + 1] - cut[s];
      for (next = s; next + 1 < cut.size() && cut[next + 1] - cut[next] == length;) ++next;
      for (const HeadPiece& piece : head_pieces(plan, range, several)) {
        body(Batch{cut[s], length, static_cast<int64_t>(next - s), piece});
      }
    }
  }
}

// [T, H, D] -> [count, heads, length, D]
inline at::Tensor batch_view(const at::Tensor& x, const Batch& b, int64_t head, int64_t heads) {
  return x.narrow(0, b.begin, b.count * b.length)
      .narrow(1, head, heads)
      .unflatten(0, {b.count, b.length})
      .transpose(1, 2);
}
inline at::Tensor query_view(const at::Tensor& x, const Batch& b) {
  return batch_view(x, b, b.heads.head, b.heads.heads);
}
inline at::Tensor key_view(const at::Tensor& x, const Batch& b) {
  return batch_view(x, b, b.heads.kv, b.heads.kv_heads);
}

// [H, T] -> [count, heads, length]
inline at::Tensor lse_view(const at::Tensor& lse, const Batch& b) {
  return lse.narrow(0, b.heads.head, b.heads.heads)
      .narrow(1, b.begin, b.count * b.length)
      .unflatten(1, {b.count, b.length})
      .transpose(0, 1);
}

// Whether a KV head has query heads in both halves: its gradient has two parts.
inline bool shares_kv_head(const GroupPlan& plan) {
  return !plan.uniform() && plan.plain_heads % (plan.heads / plan.kv_heads) != 0;
}

}  // namespace longlora::ops

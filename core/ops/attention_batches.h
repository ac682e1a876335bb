// A plan as what LibTorch's attention functions take: heads that read whole KV heads, and runs of segments of one length as
// batches, all of them views of the tensors that are there.
#pragma once
#include <ATen/ATen.h>

#include <vector>

#include "core/ops/attention_backends.h"

namespace longlora::ops {

// `count` segments of `length` tokens from token `begin`, and query heads that read KV heads evenly.
struct Batch {
  int64_t begin, length, count;
  Range heads, kv_heads;
};

// `several`: several KV heads at a time also where more than one query head reads each.
template <class Body>
void for_each_batch(const GroupPlan& plan, bool several, Body&& body) {
  for (const HeadSection& section : head_sections(plan)) {
    const std::vector<int64_t>& cut = section.boundaries;
    const int64_t readers = section.heads.size() / section.kv_heads.size();  // query heads of a KV head
    const int64_t step = several || readers == 1 ? section.kv_heads.size() : 1;
    for (size_t s = 0, next = 0; s + 1 < cut.size(); s = next) {
      const int64_t length = cut[s + 1] - cut[s];
      for (next = s; next + 1 < cut.size() && cut[next + 1] - cut[next] == length;) ++next;
      for (int64_t kv = 0; kv < section.kv_heads.size(); kv += step) {
        const int64_t head = section.heads.begin + kv * readers, first = section.kv_heads.begin + kv;
        body(Batch{
            cut[s], length, static_cast<int64_t>(next - s), {head, head + step * readers}, {first, first + step}});
      }
    }
  }
}

// [T, H, D] -> [count, heads, length, D]
inline at::Tensor batch_view(const at::Tensor& x, const Batch& b, const Range& heads) {
  return x.narrow(0, b.begin, b.count * b.length)
      .narrow(1, heads.begin, heads.size())
      .unflatten(0, {b.count, b.length})
      .transpose(1, 2);
}
inline at::Tensor query_view(const at::Tensor& x, const Batch& b) {
  return batch_view(x, b, b.heads);
}
inline at::Tensor key_view(const at::Tensor& x, const Batch& b) {
  return batch_view(x, b, b.kv_heads);
}

// [H, T] -> [count, heads, length]
inline at::Tensor lse_view(const at::Tensor& lse, const Batch& b) {
  return lse.narrow(0, b.heads.begin, b.heads.size())
      .narrow(1, b.begin, b.count * b.length)
      .unflatten(1, {b.count, b.length})
      .transpose(0, 1);
}

// A part of the gradients of some KV heads: all of it, or (`shared`) added to what is there.
inline void put_part(const at::Tensor& to, const at::Tensor& part, bool shared) {
  shared ? to.add_(part) : to.copy_(part);
}

// Whether a KV head has query heads in both halves: its gradient has two parts.
inline bool shares_kv_head(const GroupPlan& plan) {
  return !plan.uniform() && plan.plain_heads % (plan.heads / plan.kv_heads) != 0;
}

}  // namespace longlora::ops

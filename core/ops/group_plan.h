// What S2-Attn means, as one value: which tokens each head may attend to.
//
// The tokens of a batch are cut into segments; a query attends causally to the keys of its own segment. The
// first half of the heads ("plain") uses one cut, the second half ("shifted") another (LongLoRA, arXiv
// 2309.12307, section 3.2, in the variant whose first and last half groups stand alone: nothing wraps round,
// no token sees a later one):
//
//   plain     every document is cut at 0, G, 2G, ...
//   shifted   every document is cut at 0, G/2, 3G/2, 5G/2, ...
//
// With the pattern "full" both cuts are the documents themselves. The dense reference, the CPU path and the
// CUDA kernels all consume this type and nothing else.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/base/range.h"

namespace longlora::ops {

namespace cuda_attention {
struct Tiles;
}

struct GroupPlan {
  int64_t tokens = 0;  // T, all rows flattened
  int64_t heads = 0, kv_heads = 0;
  int64_t plain_heads = 0;     // query heads [0, plain_heads) use `plain`, the rest `shifted`
  std::vector<int64_t> plain;  // boundaries: 0 = b0 < b1 < ... = T; segment i is [b_i, b_i+1)
  std::vector<int64_t> shifted;
  int64_t window = 0;  // sliding window: a query sees keys with query - key < window; 0: no limit
  // The CUDA kernels' work lists for this plan, made at its first use and found again in the next layer and by copies
  // (attention_cuda.cpp); a plan that was changed gets its own. Not for several threads at a time.
  mutable std::shared_ptr<cuda_attention::Tiles> tiles = nullptr;

  [[nodiscard]] bool uniform() const { return plain == shifted; }

  // The whole documents for all heads. `documents`: boundaries 0 < ... < T.
  static GroupPlan full(std::span<const int64_t> documents, int64_t heads, int64_t kv_heads, int64_t window = 0);

  // S2-Attn with groups of `group` >= 2 tokens inside each document. The heads are halved on whole KV heads,
  // or on query heads (the first half the larger) where the number of KV heads is odd.
  static GroupPlan s2(std::span<const int64_t> documents, int64_t group, int64_t heads, int64_t kv_heads,
                      int64_t window = 0);
};

// The (query, key) pairs of all query heads.
[[nodiscard]] double attention_pairs(const GroupPlan& plan);

// Query heads with one cut of the tokens, each of their KV heads read by the same number of them.
struct HeadSection {
  Range heads, kv_heads;
  const std::vector<int64_t>& boundaries;  // the plan's
};

// The plan's halves, a half that begins or ends inside the query heads of a KV head cut there.
[[nodiscard]] std::vector<HeadSection> head_sections(const GroupPlan& plan);

}  // namespace longlora::ops

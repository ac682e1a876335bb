// What ranks send one another, in bytes, by formula: for the plan of a run, and for tests that compare it with what a group
// counted (dist::Group::traffic).
#pragma once
#include <cstdint>

#include "core/ops/group_plan.h"

namespace longlora::train {

// What one rank sends (and receives) in the bandwidth-optimal ring algorithms (Patarasuk, Yuan 2009, section 3), where
// `bytes` is the size of the whole: what is summed, or what all ranks together have.
[[nodiscard]] int64_t all_reduce_bytes(int64_t bytes, int64_t ranks);  // 2 (W-1)/W
[[nodiscard]] int64_t gather_bytes(int64_t bytes, int64_t ranks);      // (W-1)/W; reduce-scatter too

// Sequence parallelism: the keys and values of earlier tokens that a rank needs for its own tokens [begin, end), in
// elements: for each half of the heads from the start of the segment in which `begin` lies. With S2-Attn of groups that
// start at `begin` that is half a group for half of the KV heads, 2 * G/2 * Hkv/2 * D; with full attention all that came
// before, begin * 2 * Hkv * D: later tokens are never needed.
[[nodiscard]] int64_t halo_elements(const ops::GroupPlan& plan, int64_t head_dim, int64_t begin);

// The (query, key) pairs that queries [begin, end) attend to, over all query heads.
[[nodiscard]] double attention_pairs(const ops::GroupPlan& plan, int64_t begin, int64_t end);

}  // namespace longlora::train

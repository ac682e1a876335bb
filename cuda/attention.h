// Causal softmax attention inside segments, forward and backward, on the GPU: what core/ops/attention.h says, for the
// two halves of the heads of an ops::GroupPlan in one launch. FlashAttention-2 (arXiv 2307.08691) with mma.sync and
// cp.async; keys and values are never expanded for grouped queries, the shift of the second half is in the segments'
// boundaries, nothing is copied or rolled.
//
//   s_ij = scale q_i . k_j  for keys j of i's segment with j <= i and (window == 0 or i - j < window)
//   out_i = sum_j p_ij v_j,  p_ij = exp(s_ij - lse_i),  lse_i = log sum_j exp(s_ij)
//
// Backward, one kernel holds a tile of keys and adds up dk and dv over all queries of all heads that read it. dq is either
// added up by a second kernel that holds a tile of queries (deterministic: every sum has its order), or by the first
// one with atomic operations in float32, which saves two of seven products.
//
// Sums are float32; p and ds are rounded to the element type before the second products, as in FlashAttention-2. lse is
// float32, so gradients need |scale q . k| below about 2^20 to mean anything.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "cuda/types.h"

namespace longlora::cuda {

struct AttentionShape {
  int64_t tokens = 0, heads = 0, kv_heads = 0;
  int64_t plain_heads = 0;  // query heads [0, plain_heads) use the first cut into segments, the rest the second
  int64_t window = 0;       // 0: none
  int head_size = 0;        // 64 or 128
  Element element = Element::bfloat16;  // or float16
  float scale = 1.0f;                   // of q . k, usually 1 / sqrt(head_size)
};

// [T, heads, head_size]: element (t, h, d) stands at data[t * token + h * head + d]. Strides in elements, any sign;
// data, token * 2 and head * 2 bytes must be multiples of 16.
struct ConstHeads {
  const void* data = nullptr;
  int64_t token = 0, head = 0;
};
struct Heads {
  void* data = nullptr;
  int64_t token = 0, head = 0;
};

// Work for one block and head: queries [row, row_end) of a segment that begins at `begin`.
struct QueryTile {
  int64_t row, row_end, begin;
  int32_t head, heads;  // for query heads [head, head + heads)
};

// Work for one block and KV head: keys [key, key_end), read by queries up to row_end[0] (plain heads) and row_end[1].
struct KeyTile {
  int64_t key, key_end;
  int64_t row_end[2];
  int32_t kv_head, kv_heads;
};

// The longest pieces first, so that the last blocks to start are short. Plain vectors; the launchers want them where the
// kernel can read them.
struct QuerySchedule {
  std::vector<QueryTile> tiles;
  int64_t heads = 0;  // the most that one tile is for
};
struct KeySchedule {
  std::vector<KeyTile> tiles;
  int64_t heads = 0;
};

constexpr int64_t kQueryTile = 128, kKeyTile = 128;

// `plain` and `shifted`: boundaries 0 = b0 < b1 < ... = tokens, as in ops::GroupPlan. Throws LaunchError on boundaries
// or head counts that make no sense. Of the shape: tokens, heads and window. The backward pass needs both, the forward pass
// the queries' alone.
[[nodiscard]] QuerySchedule query_schedule(const AttentionShape& shape, std::span<const int64_t> plain,
                                           std::span<const int64_t> shifted);
[[nodiscard]] KeySchedule key_schedule(const AttentionShape& shape, std::span<const int64_t> plain,
                                       std::span<const int64_t> shifted);

// The tiles as the GPU reads them (pointers it can read) and their numbers.
struct QueryWork {
  const QueryTile* tiles = nullptr;
  int64_t count = 0, heads = 0;  // of the schedule
};
struct KeyWork {
  const KeyTile* tiles = nullptr;
  int64_t count = 0, heads = 0;
};

// Writes out [T, heads, D] and lse [heads, T] (float32, contiguous, natural logarithm). Throws LaunchError when sizes,
// strides or alignment are not as said above, or the launch fails.
void attention_forward(const AttentionShape& shape, const QueryWork& work, const ConstHeads& q, const ConstHeads& k,
                       const ConstHeads& v, const Heads& out, float* lse, Stream stream);

// Writes dq, dk, dv in full. To work in: delta [heads, T] float32 (rows of out . dout), and dq_sum [T, heads, D] float32
// for atomic sums of dq, or null for the deterministic way.
void attention_backward(const AttentionShape& shape, const QueryWork& query_work, const KeyWork& key_work,
                        const ConstHeads& dout, const ConstHeads& q, const ConstHeads& k, const ConstHeads& v,
                        const ConstHeads& out, const float* lse, float* delta, float* dq_sum, const Heads& dq,
                        const Heads& dk, const Heads& dv, Stream stream);

}  // namespace longlora::cuda

// How the ranks of a sequence group share the tokens of a micro-batch, and what attention makes them send one another.
//
// Each rank has pieces of the flattened tokens. Inside them it attends as on one rank; only a segment of the GroupPlan
// that began before a piece needs keys and values of other tokens, all of them earlier than the piece: queries of the piece
// x keys before it, without a mask (a rectangle). In step k a rank sends to the rank k places on what that one needs, and
// receives from the rank k places back: a rank gets what causality, groups and documents let it use, and nothing else.
//
//   contiguous  piece p of P. With S2-Attn and whole groups a rank, the halo of the shifted half: G/2 tokens of half of
//               the KV heads, from the left neighbour alone.
//   zigzag      chunks p and 2P-1-p of 2P: causal attention to everything before is as much work on every rank
//               (ring attention's balance: zhuzilin/ring-flash-attention).
#pragma once
#include <vector>

#include "core/base/range.h"
#include "core/ops/group_plan.h"

namespace longlora::dist {

enum class Layout { contiguous, zigzag };

// Of a micro-batch that attends in S2-Attn's groups, or fully.
[[nodiscard]] constexpr Layout layout_of(bool grouped) {
  return grouped ? Layout::contiguous : Layout::zigzag;
}

// The tokens of a rank, in rising order. `tokens` >= 2 * size.
[[nodiscard]] std::vector<Range> pieces_of(Layout layout, int64_t tokens, int rank, int size);

// Rows are those of a rank's own tokens, its pieces one after the other. A slot is a piece and a section of the heads
// (ops::head_sections): number piece * sections + section.
struct Queries {
  Range rows, heads;
};
struct Keys {
  Range rows, kv_heads;
  size_t slot;                                                                     // of their owner
  [[nodiscard]] int64_t numbers() const { return rows.size() * kv_heads.size(); }  // of keys a head's dimension
};

// Of keys and values together; numbers of a head's dimension each.
[[nodiscard]] int64_t numbers(const std::vector<Keys>& message);

// All queries of a slot attend to all of keys[key].
struct Rectangle {
  size_t slot, key;
};

struct SequenceStep {
  int to, from;                    // ranks; both are this rank in step 0, where there is nothing to send
  std::vector<Keys> send;          // of this rank, which `to` needs
  std::vector<Keys> receive;       // of `from`, which this rank needs
  std::vector<Rectangle> compute;  // with what was received
};

struct SequencePlan {
  std::vector<Range> pieces;     // this rank's tokens
  ops::GroupPlan local;          // attention among them, inside each piece
  std::vector<Queries> queries;  // of every slot: those that attend to keys before their piece, or no rows
  std::vector<Keys> lent;        // of every slot: those that later pieces attend to, or no rows
  // As many on every rank: one for every rank of the group, but with contiguous pieces none further than a segment goes.
  std::vector<SequenceStep> steps;

  // Numbers that this rank sends in a layer of that head size: keys and values forward; backward both again and, for those
  // that it received, their gradients.
  [[nodiscard]] int64_t sent_forward(int64_t head_dim) const;
  [[nodiscard]] int64_t sent_backward(int64_t head_dim) const;
};

// `plan` is of the whole micro-batch, without a sliding window.
[[nodiscard]] SequencePlan plan_sequence(const ops::GroupPlan& plan, Layout layout, int rank, int size);

}  // namespace longlora::dist

#include "core/train/sequence_share.h"

#include <algorithm>

#include "core/dist/sequence_plan.h"

namespace longlora::train {
ops::GroupPlan batch_plan(const model::Config& config, int64_t rows, int64_t length, int64_t group) {
  std::vector<int64_t> documents;
  for (int64_t row = 0; row <= rows; ++row) documents.push_back(row * length);
  return group > 0 ? ops::GroupPlan::s2(documents, group, config.heads, config.kv_heads, config.sliding_window)
                   : ops::GroupPlan::full(documents, config.heads, config.kv_heads, config.sliding_window);
}

SequenceShare share_of_rank(const ops::GroupPlan& batch, int64_t head_dim, bool grouped, int rank, int size) {
  if (size == 1) return {.pairs = ops::attention_pairs(batch)};
  const dist::SequencePlan plan = dist::plan_sequence(batch, dist::layout_of(grouped), rank, size);
  SequenceShare share{.pairs = ops::attention_pairs(plan.local),
                      .forward = plan.sent_forward(head_dim),
                      .backward = plan.sent_backward(head_dim)};
  for (size_t k = 0; k < plan.steps.size(); ++k) {
    const dist::SequenceStep& step = plan.steps[k];
    for (const dist::Rectangle& r : step.compute) {
      const dist::Queries& queries = plan.queries[r.slot];
      share.pairs += static_cast<double>(queries.heads.size() * queries.rows.size()) *
                     static_cast<double>(step.receive[r.key].rows.size());
    }
    if (k > 0)
      share.message =
          std::max({share.message, head_dim * dist::numbers(step.send), head_dim * dist::numbers(step.receive)});
  }
  for (const dist::Queries& queries : plan.queries) share.sums += queries.rows.size() * queries.heads.size() * head_dim;
  share.sums += head_dim * dist::numbers(plan.lent);
  return share;
}

SequenceShare largest_share(const ops::GroupPlan& batch, int64_t head_dim, bool grouped, int size) {
  SequenceShare most;
  for (int rank = 0; rank < size; ++rank) {
    const SequenceShare share = share_of_rank(batch, head_dim, grouped, rank, size);
    most.pairs = std::max(most.pairs, share.pairs);
    most.forward = std::max(most.forward, share.forward);
    most.backward = std::max(most.backward, share.backward);
    most.message = std::max(most.message, share.message);
    most.sums = std::max(most.sums, share.sums);
  }
  return most;
}

}  // namespace longlora::train

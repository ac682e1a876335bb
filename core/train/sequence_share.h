// What a rank computes and sends in attention where ranks share rows: the sums of dist::SequencePlan, for the plan of a run.
#pragma once
#include <cstdint>

#include "core/model/config.h"
#include "core/ops/group_plan.h"

namespace longlora::train {

// How a micro-batch of `rows` rows of `length` tokens attends: `group` 0 is full.
[[nodiscard]] ops::GroupPlan batch_plan(const model::Config& config, int64_t rows, int64_t length, int64_t group);

// Of a layer.
struct SequenceShare {
  double pairs = 0;                   // (query, key), over all query heads
  int64_t forward = 0, backward = 0;  // numbers sent
  int64_t message = 0;                // numbers of the largest message
  int64_t sums = 0;                   // float32 numbers beside, of queries and keys that are joined with other ranks'
};
[[nodiscard]] SequenceShare share_of_rank(const ops::GroupPlan& batch, int64_t head_dim, bool grouped, int rank,
                                          int size);
// The most of each that a rank has.
[[nodiscard]] SequenceShare largest_share(const ops::GroupPlan& batch, int64_t head_dim, bool grouped, int size);

}  // namespace longlora::train

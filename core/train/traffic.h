// How many bytes a rank gives to the operations between ranks in a step, for what a run is cut up into (docs/parallel.md has a
// table). Counted as dist::Traffic counts; round a ring of W ranks (W - 1) / W of an all_reduce's bytes go out twice, of a
// reduce_scatter's once, and W - 1 times an all_gather's.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "core/model/llama.h"
#include "core/train/shard.h"

namespace longlora::train {

struct UnitSizes {
  std::vector<int64_t> trained;  // elements of each parameter
  std::vector<int64_t> frozen;   // bytes of each (stacked) matrix or vector
};
// By unit: embedding, layers, final norm and head.
[[nodiscard]] std::vector<UnitSizes> unit_sizes(model::Llama& llama);

struct StepBytes {
  int64_t all_reduce, reduce_scatter, all_gather;
};

struct StepShape {
  Shard shard;
  bool full;              // tune.mode full
  bool tied;              // the embedding is the head
  int ranks;              // at least 2
  int64_t value, master;  // bytes of an element
  int64_t micro_batches;  // a step, of the rank with the most rows
};

// Gradients, weights and the gradient norm; not the few numbers that losses and counts of targets take.
[[nodiscard]] StepBytes step_bytes(std::span<const UnitSizes> units, const StepShape& shape);

// One validation micro-batch.
[[nodiscard]] int64_t gathered_bytes_of_forward(std::span<const UnitSizes> units, const StepShape& shape);

}  // namespace longlora::train

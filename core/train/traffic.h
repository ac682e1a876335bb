// How many bytes a rank gives to the operations between ranks in a step, for what a run is cut up into (docs/parallel.md has a
// table). Counted as dist::Traffic counts; round a ring of W ranks (W - 1) / W of an all_reduce's bytes go out twice, of a
// reduce_scatter's once, and W - 1 times an all_gather's.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "core/model/llama.h"
#include "core/recipe/recipe.h"
#include "core/train/shard.h"

namespace longlora::train {

struct UnitSizes {
  std::vector<int64_t> trained;  // elements of each parameter
  std::vector<int64_t> frozen;   // bytes of each (stacked) matrix or vector
};
// NF4 with blocks of 64 and their scales in 8 bits (QLoRA, arXiv 2305.14314, section 3): 4.127 bits an element.
inline constexpr int64_t kNf4Bytes = 4127, kNf4Elements = 8000;

// Of the model that a recipe makes, from the shapes alone, by unit: embedding, layers, final norm and head.
[[nodiscard]] std::vector<UnitSizes> unit_sizes(const model::Config& config, const recipe::Recipe& recipe);

// Whether a recipe trains the tensor of this name itself, and whether it gives it LoRA.
[[nodiscard]] bool trains_whole(const recipe::Tune& tune, const std::string& tensor);
[[nodiscard]] bool adds_lora(const recipe::Tune& tune, const std::string& tensor);

struct StepBytes {
  int64_t all_reduce = 0, reduce_scatter = 0, all_gather = 0;
  int64_t weights = 0;  // of all_gather: weights that are computed with, not the new values after a step
};

// What goes out of a rank for them in the bandwidth-optimal ring algorithms (Patarasuk, Yuan 2009, section 3).
[[nodiscard]] double ring_bytes(const StepBytes& bytes, int64_t ranks);

struct StepShape {
  Shard shard;
  bool full;  // tune.mode full
  bool tied;  // the embedding is the head
  int ranks;
  int64_t value, master;  // bytes of an element
  int64_t micro_batches;  // a step, of the rank with the most rows
};

// Elements of the slices of a unit's trained parameters, and bytes of those of its weights where they are cut up (shard model).
[[nodiscard]] int64_t sliced(const UnitSizes& unit, int ranks);
[[nodiscard]] int64_t sliced_weights(const UnitSizes& unit, const StepShape& shape);

// Gradients, weights and the gradient norm; not the few numbers that losses and counts of targets take.
[[nodiscard]] StepBytes step_bytes(std::span<const UnitSizes> units, const StepShape& shape);

// One validation micro-batch.
[[nodiscard]] int64_t gathered_bytes_of_forward(std::span<const UnitSizes> units, const StepShape& shape);

}  // namespace longlora::train

// What a run will hold in memory, by component, before anything is allocated; and the choice of what to compute again
// in the backward pass: as little as fits, layer by layer.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/model/config.h"
#include "core/model/layer.h"
#include "core/recipe/recipe.h"
#include "core/train/shard.h"

namespace longlora::train {

// Elements of a model by what happens to them, from its config alone.
struct Counts {
  int64_t frozen = 0, trained = 0;
  int64_t largest_trained = 0;  // the largest matrix whose gradient is a matrix product
  [[nodiscard]] int64_t all() const { return frozen + trained; }
};
[[nodiscard]] Counts count_parameters(const model::Config& config, const recipe::Tune& tune);

// Over how many ranks a run is spread. `sequence` of them share a row.
struct Spread {
  int64_t ranks = 1, sequence = 1;
  Shard shard = Shard::none;
};

// Of a GPU's free memory: the rest is libraries' own, and lost between blocks.
inline constexpr double kUsable = 0.95;

// Bytes on one rank.
struct MemoryPlan {
  int64_t weights = 0;      // values that the kernels read
  int64_t trained = 0;      // master copies, gradients and both moments of what is trained
  int64_t activations = 0;  // kept for the backward pass, all layers
  int64_t work = 0;         // on top of these at the worst moment: of a layer's backward pass, or of the head
  int64_t head = 0;         // the head's part: hidden states, their gradient, a chunk of logits
  std::vector<model::Recompute> recompute;  // of every layer
  bool fits = false;
  [[nodiscard]] int64_t total() const { return weights + trained + activations + work; }
};

// Bytes that one layer keeps for the backward pass of `tokens` tokens.
[[nodiscard]] int64_t saved_bytes(const model::Config& config, model::Recompute policy, int64_t tokens,
                                  int64_t element);

// Bytes that the backward pass of one layer takes beside what was kept: what it computes again, and gradients.
[[nodiscard]] int64_t work_bytes(const model::Config& config, const recipe::Recipe& recipe, model::Recompute policy,
                                 int64_t tokens, int64_t element);

// The plan of a recipe whose context.length is filled in. With `recompute: auto` it is the fastest whose total stays within
// `available` bytes: as many of the last layers as possible with one policy, the others with the next one (all of them with
// the smallest when nothing fits). Last, because they are freed before the others compute again.
[[nodiscard]] MemoryPlan plan_memory(const model::Config& config, const recipe::Recipe& recipe, const Spread& spread,
                                     int64_t available);

// How a run is spread over `ranks` ranks, and its plan. parallel.shard auto is the least that fits, as cutting up costs
// traffic, and the most where nothing does; on one rank nothing is cut up that was not asked for.
struct SpreadPlan {
  Spread spread;
  MemoryPlan memory;
};
[[nodiscard]] SpreadPlan plan_spread(const model::Config& config, const recipe::Recipe& recipe, int64_t ranks,
                                     int64_t available);

[[nodiscard]] const char* to_string(model::Recompute policy);
// "gate_up", or "12 layers gate_up, 20 layers nothing" in the order of the layers.
[[nodiscard]] std::string describe(const std::vector<model::Recompute>& recompute);

}  // namespace longlora::train

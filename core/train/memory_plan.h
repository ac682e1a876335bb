// What a run will hold in memory, by component, before anything is allocated; and the choice of what to compute again
// in the backward pass: as little as fits.
#pragma once
#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/model/config.h"
#include "core/model/layer.h"
#include "core/recipe/recipe.h"

namespace longlora::train {

struct MemoryPlan {
  int64_t weights = 0;      // values that the kernels read
  int64_t trained = 0;      // master copies, gradients and both moments of what is trained
  int64_t activations = 0;  // kept for the backward pass, all layers
  int64_t work = 0;         // one layer's temporaries and the logits of a chunk
  model::Recompute recompute = model::Recompute::nothing;
  [[nodiscard]] int64_t total() const { return weights + trained + activations + work; }
};

// Bytes that one layer keeps for the backward pass of a micro-batch of `tokens` tokens.
[[nodiscard]] int64_t saved_bytes(const model::Config& config, model::Recompute policy, int64_t tokens,
                                  int64_t element);

// `parameters` of the model and `trained` ones among them (numbers of elements). With `recompute: auto` the policy is the
// fastest whose total stays within `available` bytes (the smallest one when none does).
[[nodiscard]] MemoryPlan plan_memory(const model::Config& config, const recipe::Recipe& recipe, at::ScalarType dtype,
                                     int64_t parameters, int64_t trained, int64_t available);

[[nodiscard]] const char* to_string(model::Recompute policy);

}  // namespace longlora::train

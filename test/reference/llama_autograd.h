// The same model as core/model/llama.h, as plainly as it can be said: dense attention under an explicit mask
// of allowed (query, key) pairs, one matrix per projection, gradients by autograd. The oracle for the
// written-out backward pass.
#pragma once
#include <ATen/ATen.h>

#include <map>
#include <string>

#include "core/data/batch.h"
#include "core/model/config.h"

namespace longlora::reference {

using Weights = std::map<std::string, at::Tensor>;  // by checkpoint name; LoRA pairs as NAME.lora_A.weight,
                                                    // ...lora_B.weight

// allowed[h][i][j]: head h lets query i see key j. Written from the definition of S2-Attn, not from
// GroupPlan; group 0 is full attention.
[[nodiscard]] at::Tensor allowed_pairs(const data::Batch& batch, int64_t group, const model::Config& config);

// The loss of every token, [T]; 0 without target. `lora_scale` multiplies B A. Differentiable in every
// weight.
[[nodiscard]] at::Tensor token_losses(const model::Config& config, const Weights& weights, double lora_scale,
                                      const data::Batch& batch, int64_t group);

}  // namespace longlora::reference

// The learning rate of a step. All three laws warm up linearly from 0 over the first steps.
#pragma once
#include <cmath>
#include <cstdint>
#include <numbers>

#include "core/recipe/recipe.h"

namespace longlora::train {

// `step` counts from 0. constant_with_warmup stays at lr; linear goes to 0 at the last step; cosine follows half a
// cosine to 0. The same values as transformers' schedules of these names.
[[nodiscard]] inline double learning_rate(const recipe::Schedule& schedule, double lr, int64_t step) {
  if (step < schedule.warmup_steps) return lr * static_cast<double>(step) / static_cast<double>(schedule.warmup_steps);
  const double left = static_cast<double>(schedule.steps - schedule.warmup_steps);
  const double progress = left > 0 ? static_cast<double>(step - schedule.warmup_steps) / left : 0;
  if (schedule.type == "linear") return lr * (1 - progress);
  if (schedule.type == "cosine") return lr * 0.5 * (1 + std::cos(std::numbers::pi * progress));
  return lr;
}

}  // namespace longlora::train

// From a model's settings and the recipe's wish to the settings it is trained with: the one place where a
// context grows.
#pragma once
#include <cstdint>
#include <string>

#include "core/model/config.h"
#include "core/recipe/recipe.h"

namespace longlora::model {

struct Extension {
  Config config;            // with the new RoPE settings and max_positions
  int64_t length = 0;       // the context asked for, in tokens
  std::string description;  // one line: "linear, factor 4 (128 -> 512)"
};

// The model's config for a context of `length` tokens (0: what it covers already).
//
// Factors count from the length the model was pre-trained for, also where it was extended before: a new
// factor replaces the old one as a whole and may not be smaller. "auto" is length over that pre-trained
// length, for `linear` its ceiling (as LongLoRA does); where the model covers `length` already, its settings
// stay. `ntk`, `dynamic-frozen` and `scaling-law` raise
// theta; the result is a plain model with that theta, and a further stage counts from it. Type "model" keeps the model's law.
// Exit 2 naming the choices: a length that the settings do not cover, a law on top of another one, a factor
// smaller than the model's own, options that the law does not have, settings that cannot work.
[[nodiscard]] Extension extend(const Config& config, const recipe::Rope& rope, int64_t length);

}  // namespace longlora::model

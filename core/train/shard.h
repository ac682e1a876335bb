// What of a run is cut up over its ranks (parallel.shard).
#pragma once
#include "core/recipe/recipe.h"

namespace longlora::train {

enum class Shard {
  none,       // every rank has everything
  optimizer,  // master copies and moments of what is trained
  model       // and the weights; with tune.mode full the gradients too
};

// `auto` is none; so is everything on one rank.
[[nodiscard]] Shard resolve_shard(const recipe::Recipe& recipe, int ranks);

}  // namespace longlora::train

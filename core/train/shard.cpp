#include "core/train/shard.h"

namespace longlora::train {

Shard resolve_shard(const recipe::Recipe& recipe, int ranks) {
  const std::string& asked = recipe.parallel.shard;
  if (ranks == 1) return Shard::none;
  return asked == "optimizer" ? Shard::optimizer : asked == "model" ? Shard::model : Shard::none;
}

}  // namespace longlora::train

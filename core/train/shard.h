// What of a run is cut up over its ranks (parallel.shard).
#pragma once

namespace longlora::train {

enum class Shard {
  none,       // every rank has everything
  optimizer,  // master copies and moments of what is trained
  model       // and the weights; with tune.mode full the gradients too
};

[[nodiscard]] inline const char* to_string(Shard shard) {
  return shard == Shard::model ? "model" : shard == Shard::optimizer ? "optimizer" : "none";
}

}  // namespace longlora::train

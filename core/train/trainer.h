// The training loop.
#pragma once
#include "core/base/error.h"
#include "core/train/setup.h"

namespace longlora::train {

// Trains as the recipe says and leaves the result in checkpoint.dir/final. With `resume` goes on from the newest
// checkpoint. Returns Exit::interrupted when a signal came: the run is saved and can be resumed.
[[nodiscard]] Exit train(const recipe::Recipe& recipe, bool resume);

}  // namespace longlora::train

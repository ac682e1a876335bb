// The training loop.
#pragma once
#include "core/base/error.h"
#include "core/recipe/read.h"
#include "core/train/setup.h"

namespace longlora::train {

// Trains (or, with Use::sft, fine-tunes on conversations) as the recipe says and leaves the result in checkpoint.dir/final. With `resume` goes on from the newest
// checkpoint. Returns Exit::interrupted when a signal came: the run is saved and can be resumed.
[[nodiscard]] Exit train(const recipe::Recipe& recipe, bool resume, recipe::Use use = recipe::Use::train);

}  // namespace longlora::train

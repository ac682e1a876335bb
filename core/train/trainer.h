// The training loop.
#pragma once
#include "core/base/error.h"
#include "core/dist/job.h"
#include "core/recipe/read.h"
#include "core/train/setup.h"

namespace longlora::train {

// Trains (or, with Use::sft, fine-tunes on conversations) as the recipe says and leaves the result in checkpoint.dir/final. With `resume` goes on from the newest
// checkpoint. Returns Exit::interrupted when a signal came: the run is saved and can be resumed.
[[nodiscard]] Exit train(const recipe::Recipe& recipe, bool resume, recipe::Use use = recipe::Use::train);

// Exit 2 where a recipe cannot be spread over so many ranks.
void check_ranks(const recipe::Recipe& recipe, const dist::Launch& launch);

// The same as a rank of a job. Every rank takes its share of each step's rows; the sum of the gradients, and so the step,
// is the same on all. Rank 0 alone writes; the others read what it wrote, so the folder is one that all nodes share.
[[nodiscard]] Exit train(const recipe::Recipe& recipe, bool resume, recipe::Use use, dist::Job& job);

}  // namespace longlora::train

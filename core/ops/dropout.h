// Dropout (Srivastava et al. 2014) as LoRA uses it: an element becomes 0 with probability p, else x / (1 - p). Which ones
// depends on a seed and on the place of the token in the global step, so that a step drops the same elements however it is
// cut into micro-batches, and the backward pass draws again what the forward pass drew.
#pragma once
#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "core/base/range.h"

namespace longlora::ops {

// The stream of one step; a user of it derives a seed of its own. Seed 0: nothing is dropped (evaluation).
struct Dropout {
  uint64_t seed = 0;
  int64_t first_token = 0;         // of this micro-batch in the global step
  std::vector<Range> pieces = {};  // the tokens of the micro-batch that the rows are; none: all of them
};

// x [T, d] contiguous -> [T, d]. 0 <= p < 1.
[[nodiscard]] at::Tensor dropout(const at::Tensor& x, double p, const Dropout& stream);

}  // namespace longlora::ops

// What a low-rank adapter makes of a weight, in float32: W + scale * B A, and DoRA's rescaling of it. The one place where
// merging and loading compute it.
#pragma once
#include <ATen/ATen.h>

#include "core/io/adapter.h"

namespace longlora::adapt {

// Rows [first, first + w.size(0)) of the weight, [rows, columns] float32, changed in place. The rows are those of the
// base's matrix: [out, in], or [vocab, hidden] for an embedding.
//
// DoRA (Liu et al. 2024, arXiv 2402.09353, equation 5): row i of W + scale * B A is scaled to the length magnitude[i].
void apply_low_rank(at::Tensor& w, const io::Adapter::LowRank& lora, int64_t first);

}  // namespace longlora::adapt

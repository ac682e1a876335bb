// What a low-rank adapter makes of a weight, in float64: W + scale * B A, and DoRA's rescaling of it. The one place where
// merging and loading compute it. (In float32 a sum that nearly cancels out is off by more than one unit in the last place of
// a bfloat16; the time is the disk's either way.)
#pragma once
#include <ATen/ATen.h>

#include "core/io/adapter.h"

namespace longlora::adapt {

// weight * scale * B A, rows [first, first + rows) of it as [rows, columns] float64. The rows are those of the base's matrix:
// [out, in], or [vocab, hidden] for an embedding.
[[nodiscard]] at::Tensor low_rank_change(const io::Adapter::LowRank& lora, double weight, int64_t first, int64_t rows);

// DoRA (Liu et al. 2024, arXiv 2402.09353, equation 5): row i of W + scale * B A is scaled to the length magnitude[first + i].
// For adapters without a magnitude nothing happens.
void rescale_rows(at::Tensor& w, const io::Adapter::LowRank& lora, int64_t first);

}  // namespace longlora::adapt

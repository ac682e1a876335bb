// What low-rank adapters make of a weight: W + scale * B A, and DoRA's rescaling of it. The one place where merging and
// loading compute it.
#pragma once
#include <ATen/ATen.h>

#include <span>

#include "core/io/adapter.h"

namespace longlora::adapt {

struct WeightedLowRank {
  const io::Adapter::LowRank* lora;
  double weight = 1;  // 1: as it was trained
};

// out = w + the sum of weight * scale * B A over `parts`, w being rows [first, first + w.size(0)) of the base's matrix ([out, in],
// or [vocab, hidden] for an embedding). Both are contiguous and of one type, float32 or bfloat16 (rounded once); they may be
// the same. Changes are summed before they are added, so that those that cancel out leave w as it was. Rows beyond a part's own
// (an embedding of another vocabulary) are not changed by it. No parts: nothing happens.
//
// In float32, but for elements whose sum is small beside the products it is made of: these are computed again in float64, as
// the error would be more than one unit in the last place of a bfloat16. (All in float64 took twice the time.)
void add_low_rank(const at::Tensor& w, std::span<const WeightedLowRank> parts, int64_t first, at::Tensor& out);

// DoRA (Liu et al. 2024, arXiv 2402.09353, equation 5): row i of W + scale * B A is scaled to the length magnitude[first + i],
// where there is one. For adapters without a magnitude nothing happens.
void rescale_rows(at::Tensor& w, const io::Adapter::LowRank& lora, int64_t first);

}  // namespace longlora::adapt

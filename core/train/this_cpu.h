// This machine's processor as something to plan for, like the GPUs of the table (core/train/gpus.h): its rates are measured
// when they are asked for, in about half a second.
#pragma once
#include "core/model/compute.h"
#include "core/train/gpus.h"

namespace longlora::train {

// For a model with heads of `head_dim` that is computed as `compute` says. Rates are those of one rank's threads.
[[nodiscard]] Gpu this_cpu(const model::Compute& compute, int64_t head_dim);

// What each of `ranks` ranks has where they share the threads that were measured.
[[nodiscard]] Gpu shared(const Gpu& cpu, int64_t ranks);

}  // namespace longlora::train

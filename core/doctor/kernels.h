// The attention backends side by side on this machine, and the one that attention.backend "auto" takes.
#pragma once
#include <ATen/ATen.h>

#include "core/doctor/findings.h"

namespace longlora::doctor {

// Forward and backward in milliseconds, for S2 and full attention of model-like shapes: some seconds on a GPU, half a minute
// on a CPU. A backend that cannot do a shape is named with the reason.
[[nodiscard]] Section examine_kernels(const at::Device& device);

}  // namespace longlora::doctor

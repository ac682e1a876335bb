// GPUs: what the driver says of them, whether LibTorch and this program's kernels (one of each file is launched) run on them,
// and their measured rates.
#pragma once
#include <ATen/ATen.h>

#include "core/doctor/findings.h"

namespace longlora::doctor {

[[nodiscard]] Section examine_gpus();

}  // namespace longlora::doctor

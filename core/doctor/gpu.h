// GPUs: what the driver says of them, whether this program can use them, and their measured rates.
#pragma once
#include <ATen/ATen.h>

#include "core/doctor/findings.h"

namespace longlora::doctor {

[[nodiscard]] Section examine_gpus();

}  // namespace longlora::doctor

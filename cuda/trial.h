// The smallest kernel there is: what happens when it is launched says whether this machine's driver and GPU take the program's
// kernels at all.
#pragma once
#include <cstdint>

#include "cuda/types.h"

namespace longlora::cuda {

constexpr int32_t kTrialMark = 20230921;

// Writes the mark. Throws LaunchError with the CUDA runtime's reason when kernels cannot be launched.
void trial(int32_t* to, Stream stream);

// The version of CUDA that the kernels were compiled with, 13000 for 13.0; 0 in the host build.
[[nodiscard]] int compiled_with();

}  // namespace longlora::cuda

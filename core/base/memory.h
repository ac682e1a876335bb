// How much memory the machine has to give and the process has taken.
#pragma once
#include <cstdint>

namespace longlora {

[[nodiscard]] int64_t available_memory();  // bytes that can be taken without swapping (MemAvailable)
[[nodiscard]] int64_t peak_memory();       // largest resident size of this process so far (VmHWM)

}  // namespace longlora

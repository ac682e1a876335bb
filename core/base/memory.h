// How much memory the machine has to give and the process has taken.
#pragma once
#include <cstdint>

namespace longlora {

[[nodiscard]] int64_t
available_memory();  // bytes that can be taken: without swapping, and within the limit of a batch job (cgroup v2)
[[nodiscard]] int64_t peak_memory();  // largest resident size of this process so far (VmHWM)

// Makes the C library keep freed blocks instead of giving them back: tensors of the same sizes come and go in every
// step, and fresh pages from the system cost as much as the arithmetic on them. Called once, at the start.
void keep_freed_memory();

}  // namespace longlora

// What gpu/memory.cu offers; a header of its own, because nvcc takes none of the host build's.
#pragma once
#include <cstddef>

namespace longlora::cuda::test {

[[nodiscard]] bool on_gpu();
[[nodiscard]] void* reachable_memory(size_t bytes);
void free_reachable_memory(void* memory);
void finish();
[[nodiscard]] bool have_gpu();

}  // namespace longlora::cuda::test

// Kernels on the host reach all memory, and are done when their launch returns.
#include <cstdlib>

#include "test/kernels/support.h"

namespace longlora::cuda::test {

bool on_gpu() {
  return false;
}
void* reachable_memory(size_t bytes) {
  void* memory = std::malloc(bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void free_reachable_memory(void* memory) {
  std::free(memory);
}
void finish() {}

}  // namespace longlora::cuda::test

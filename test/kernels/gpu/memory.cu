// Kernels on a GPU reach pinned memory of the host, at the host's addresses. Slow, and enough for tests.
#include <cuda_runtime.h>

#include <new>
#include <stdexcept>
#include <string>

#include "test/kernels/gpu/memory.h"

namespace longlora::cuda::test {
namespace {

void check(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(status));
}

}  // namespace

bool on_gpu() {
  return true;
}

void* reachable_memory(size_t bytes) {
  void* memory = nullptr;
  if (cudaHostAlloc(&memory, bytes == 0 ? 1 : bytes, cudaHostAllocMapped) != cudaSuccess) throw std::bad_alloc();
  return memory;
}

void free_reachable_memory(void* memory) {
  cudaFreeHost(memory);
}

void finish() {
  check(cudaGetLastError());
  check(cudaDeviceSynchronize());
}

bool have_gpu() {
  int devices = 0;
  return cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
}

}  // namespace longlora::cuda::test

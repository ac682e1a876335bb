// What the benches of CUDA kernels share: memory on the GPU, filled, and the time of what is launched.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <vector>

namespace longlora::cuda {

inline void check(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

// Bytes without a pattern; as bfloat16 and as float32, numbers of either sign from 0.5 to 2.
__global__ void fill(uint32_t* x, int64_t n) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < n; i += int64_t{gridDim.x} * blockDim.x) {
    uint64_t bits = (i + 1) * 0x9e3779b97f4a7c15ULL;
    bits ^= bits >> 29;
    x[i] = (static_cast<uint32_t>(bits) & 0x80ff80ffU) | 0x3f003f00U;
  }
}

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(int64_t n) : bytes_((n * sizeof(T) + 15) / 16 * 16) {
    check(cudaMalloc(&data_, bytes_));
    fill<<<1024, 256>>>(static_cast<uint32_t*>(data_), static_cast<int64_t>(bytes_ / 4));
  }
  explicit DeviceArray(const std::vector<T>& from) : DeviceArray(static_cast<int64_t>(from.size())) {
    check(cudaMemcpy(data_, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  [[nodiscard]] T* data() const { return static_cast<T*>(data_); }

 private:
  size_t bytes_;
  void* data_ = nullptr;
};

// The shortest of several runs, in milliseconds.
template <class Body>
double milliseconds(Body&& body) {
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  body();  // warm
  double best = 1e30;
  for (int i = 0; i < 10; ++i) {
    check(cudaEventRecord(begin));
    body();
    check(cudaEventRecord(end));
    check(cudaEventSynchronize(end));
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin, end));
    best = ms < best ? ms : best;
  }
  check(cudaEventDestroy(begin));
  check(cudaEventDestroy(end));
  return best;
}

// The exit status of measure(), which may throw. Without a GPU it says so and measures nothing.
template <class Body>
int on_a_gpu(Body&& measure) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("skip  no GPU here");
    return 0;
  }
  try {
    measure();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench: %s\n", error.what());
    return 1;
  }
}

}  // namespace longlora::cuda

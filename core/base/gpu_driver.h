// NVIDIA's driver, asked through its own library (libcuda.so.1, the CUDA Driver API), which is there wherever a driver is. So a
// machine whose LibTorch or kernels do not suit its driver can still be told why, and ranks can tell whose GPU is whose.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace longlora {

struct Gpu {
  std::string name;  // "NVIDIA H200"
  std::string id;    // 32 hexadecimal digits, no two GPUs (or MIG instances) in the world have the same; empty: unknown
  int major = 0, minor = 0;  // compute capability
  int64_t memory = 0;        // bytes
};

struct GpuDriver {
  bool there = false;     // a driver is loaded, whether or not it can be used
  int version = 0;        // of CUDA: 13000 is 13.0, the newest that it runs
  std::vector<Gpu> gpus;  // those that this process may see, in the order of their numbers
  std::string objection;  // why it names no GPUs, if there are none
};

// Asked once, at the first call.
[[nodiscard]] const GpuDriver& gpu_driver();

// "13.0" of 13000
[[nodiscard]] std::string cuda_version(int version);

}  // namespace longlora

// The plain types that launchers and kernels share. No CUDA header: this is what the rest of the program includes.
#pragma once
#include <cstdint>

struct CUstream_st;  // the CUDA runtime's stream; cudaStream_t points to one

namespace longlora::cuda {

using Stream = CUstream_st*;  // ignored by the host build, where a launch returns when the kernel is done

struct bf16 {
  uint16_t bits;  // the upper half of a float32
};
struct fp16 {
  uint16_t bits;  // IEEE 754 binary16
};

enum class Element { float32, bfloat16, float16 };

}  // namespace longlora::cuda

// LoRA's dropout on the GPU, bit for bit what core/ops/dropout.h does on the CPU: an element becomes 0 with probability p,
// else x / (1 - p). Which ones depends on a seed and on the token's place in the global step alone, so the backward pass
// draws the same mask again; dropout is its own gradient.
//
//   key_t = low 32 bits of derive_seed(seed, {first_token + t})      (core/base/random.h: SplitMix64)
//   kept  = mix(key_t ^ column * 0x9e3779b9) >= floor(p * 2^32)      mix: the finisher of MurmurHash3, 32 bits
//
// Bytes moved per element of b bytes: 2b. Accesses of 16 bytes where pointers, strides and d are multiples of 16 bytes.
#pragma once
#include <cstdint>

#include "cuda/types.h"

namespace longlora::cuda {

struct Dropout {
  Element element = Element::bfloat16;
  int64_t rows = 0, d = 0;
  const void* x = nullptr;  // [rows, d], rows `x_row` elements apart
  int64_t x_row = 0;
  void* y = nullptr;  // may be x
  int64_t y_row = 0;
  double p = 0;       // 0 <= p < 1
  uint64_t seed = 0;  // 0: nothing is dropped
  int64_t first_token = 0;
};

// Throws LaunchError for sizes or a p that make no sense or a launch that fails.
void dropout(const Dropout& arguments, Stream stream);

}  // namespace longlora::cuda

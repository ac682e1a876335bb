// Rotary position embedding (Su et al. 2021) on the GPU, as core/ops/rotary.h says it: in place, in the half-split
// convention of Llama checkpoints. The pair (x_i, x_{i + D/2}) turns by the angle position * frequency_i:
//
//   x_i' = x_i cos - x_{i+D/2} sin        x_{i+D/2}' = x_{i+D/2} cos + x_i sin        inverse: -sin
//
// Products are float32. Bytes moved per element of b bytes: 2b (the tables stay in the caches). Accesses of 16 bytes where
// pointers, strides and D/2 are multiples of 16 bytes.
#pragma once
#include <cstdint>

#include "cuda/types.h"

namespace longlora::cuda {

// Element (t, h, d) stands at x[t * token + h * head + d]; the query and key heads of a stacked buffer are one call.
struct Rotary {
  Element element = Element::bfloat16;
  int64_t tokens = 0, heads = 0, head_dim = 0;  // head_dim even
  void* x = nullptr;
  int64_t token = 0, head = 0;
  const int32_t* positions = nullptr;          // [tokens], rows of the tables
  const float *cos = nullptr, *sin = nullptr;  // [positions, head_dim / 2]
  bool inverse = false;                        // the gradient
};

// Throws LaunchError for sizes that make no sense or a launch that fails.
void rotate_in_place(const Rotary& arguments, Stream stream);

}  // namespace longlora::cuda

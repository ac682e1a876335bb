// SwiGLU (Shazeer 2020) on the GPU, as core/ops/swiglu.h says it: m = silu(g) * u with gate and up side by side.
//
//   s = 1 / (1 + exp(-g))     m = g s u     dg = dm u s (1 + g (1 - s))     du = dm g s
//
// Arithmetic is float32. Bytes moved per element of m of b bytes: forward 3b, backward 5b (6b with m). Accesses of 16
// bytes where pointers, strides and n are multiples of 16 bytes.
#pragma once
#include <cstdint>

#include "cuda/types.h"

namespace longlora::cuda {

struct SwigluForward {
  Element element = Element::bfloat16;
  int64_t rows = 0, n = 0;
  const void* gate_up = nullptr;  // [rows, 2 n], gate first; rows `gate_up_row` elements apart
  int64_t gate_up_row = 0;
  void* m = nullptr;  // [rows, n]
  int64_t m_row = 0;
};

struct SwigluBackward {
  Element element = Element::bfloat16;
  int64_t rows = 0, n = 0;
  void* gate_up = nullptr;  // replaced by its gradient
  int64_t gate_up_row = 0;
  const void* dm = nullptr;
  int64_t dm_row = 0;
  void* m = nullptr;  // written again, or null; may be dm
  int64_t m_row = 0;
};

// Both throw LaunchError for sizes that make no sense or a launch that fails.
void swiglu_forward(const SwigluForward& arguments, Stream stream);
void swiglu_backward_in_place(const SwigluBackward& arguments, Stream stream);

}  // namespace longlora::cuda

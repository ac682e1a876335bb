// RMSNorm (Zhang, Sennrich 2019) on the GPU, as core/ops/rmsnorm.h says it, with the sum before it in the same pass.
//
//   x  = round(x + residual)                                   where there is a residual
//   y  = w * round(x * rstd),  rstd = 1 / sqrt(mean(x^2) + eps)     rounded as Llama does
//   dx = residual + rstd * (w * dy - x * rstd^2 * mean(w * dy * x))
//   dw = dw + sum over rows of dy * x * rstd
//
// x, residual, y, dy, dx [T, d] and w [d] of one element type; sums are float32. Bytes moved per element of b bytes:
// forward 2b (4b with a residual); backward 3b (4b with a residual), and with dw 8 * rmsnorm_blocks(T) / T more.
// Accesses of 16 bytes where every pointer is a multiple of 16 and every stride and d of 16 bytes.
#pragma once
#include <cstdint>

#include "cuda/types.h"

namespace longlora::cuda {

// Rows begin `..._row` elements apart.
struct RmsNormForward {
  Element element = Element::bfloat16;
  int64_t rows = 0, d = 0;
  float eps = 0;
  void* x = nullptr;  // written only where there is a residual
  int64_t x_row = 0;
  const void* residual = nullptr;  // or null
  int64_t residual_row = 0;
  const void* w = nullptr;
  void* y = nullptr;
  int64_t y_row = 0;
  float* rstd = nullptr;  // [T], or null
};

struct RmsNormBackward {
  Element element = Element::bfloat16;
  int64_t rows = 0, d = 0;
  const void* x = nullptr;
  int64_t x_row = 0;
  const void* w = nullptr;
  const float* rstd = nullptr;  // [T]
  const void* dy = nullptr;
  int64_t dy_row = 0;
  const void* residual = nullptr;  // or null
  int64_t residual_row = 0;
  void* dx = nullptr;  // may be dy or residual
  int64_t dx_row = 0;
  float* dw = nullptr;    // [d], added to; null where w is frozen
  float* work = nullptr;  // [rmsnorm_blocks(rows), d] where there is dw
};

// How many partial sums dw is made of, whatever the GPU.
[[nodiscard]] int64_t rmsnorm_blocks(int64_t rows);

// Both throw LaunchError for sizes that make no sense or a launch that fails.
void rmsnorm_forward(const RmsNormForward& arguments, Stream stream);
void rmsnorm_backward(const RmsNormBackward& arguments, Stream stream);

}  // namespace longlora::cuda

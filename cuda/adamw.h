// The optimizer step over all trained tensors on the GPU, as core/train/adamw.h says it: AdamW (Loshchilov, Hutter 2019,
// algorithm 2) over float32 masters with the gradients clipped by their global norm, the 16-bit values refreshed and the
// gradients zeroed on the way. One launch for the norm (and a small one), one for the step, whatever the number of tensors.
//
//   g = clip * gradient                      clip = max_norm / (norm + 1e-6) where norm > max_norm, else 1
//   p = (1 - lr weight_decay) p              where the tensor decays
//   m = m + (1 - beta1) (g - m)              v = beta2 v + (1 - beta2) g^2
//   p = p - lr / (1 - beta1^step) m / (sqrt(v) / sqrt(1 - beta2^step) + eps)
//   value = round(to_value p)
//
// Every operation is rounded in the order in which LibTorch's fused AdamW on the CPU does it, so the bits are the same
// (but for the last elements of a tensor there, fewer than 16). The norm is a sum in float64, in a fixed order. Bytes moved
// per element: 4 for the norm, 32 for the step and the size of the value. Accesses of 16 bytes where a tensor's pointers
// are multiples of 16, and so the rows of its value.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "cuda/types.h"

namespace longlora::cuda {

// Element i of the master stands at value[(i / columns) * value_row + i % columns].
struct AdamWTensor {
  float *master = nullptr, *gradient = nullptr, *first = nullptr, *second = nullptr;  // [count]
  int64_t count = 0;
  bool decays = true;
  void* value = nullptr;  // or null
  Element element = Element::bfloat16;
  int64_t columns = 0, value_row = 0;  // columns >= 1 where there is a value
  float to_value = 1;
};

// A block's share of one tensor.
struct AdamWChunk {
  int64_t tensor, begin, end;
};

// What covers all tensors once. A plain vector; the launchers want it, and the tensors, where the kernel can read them.
[[nodiscard]] std::vector<AdamWChunk> adamw_chunks(std::span<const AdamWTensor> tensors);

struct AdamWWork {
  const AdamWTensor* tensors = nullptr;
  const AdamWChunk* chunks = nullptr;
  int64_t chunk_count = 0;
};

// Lies where kernels can write it; the host reads the norm after the stream has come to it.
struct GradientNorm {
  double norm = 0;  // before clipping
  float clip = 1;
};

// max_norm 0: no clipping. partial: [chunk_count] to work in. Throws LaunchError when the launch fails.
void gradient_norm(const AdamWWork& work, double max_norm, double* partial, GradientNorm* result, Stream stream);

struct AdamWStep {
  double lr = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  int64_t step = 1;  // from 1
};

// Changes nothing where the norm is not finite. Throws LaunchError when the launch fails.
void adamw(const AdamWWork& work, const AdamWStep& step, const GradientNorm* norm, Stream stream);

}  // namespace longlora::cuda

// The optimizer step over a list of tensors: AdamW (Loshchilov, Hutter 2019, algorithm 2) over float32 masters, the gradients
// clipped by a norm, the values that the kernels see refreshed and the gradients zeroed.
//
//   g = clip * gradient                      clip = max_norm / (norm + 1e-6) where norm > max_norm > 0, else 1
//   p = (1 - lr weight_decay) p              where the tensor decays
//   m = m + (1 - beta1) (g - m)              v = beta2 v + (1 - beta2) g^2
//   p = p - lr / (1 - beta1^step) m / (sqrt(v) / sqrt(1 - beta2^step) + eps)
//   value = to_value p
//
// On a GPU one launch of cuda/adamw.h for all tensors, elsewhere LibTorch's fused AdamW; both give the same bits (but for up to
// 15 elements at the end of a tensor, which LibTorch's CPU kernel rounds otherwise).
#pragma once
#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace longlora::ops {

// master, gradient, first and second: contiguous, of one size and of float32 (float64 for float64 models), whole parameters or
// slices of them. value: the master's shape in the compute dtype, any stride between its rows; undefined where somebody else
// refreshes it.
struct AdamWTensor {
  at::Tensor master, gradient, first, second;
  bool decays = true;
  at::Tensor value;
  double to_value = 1;
};

struct AdamWStep {
  double lr = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  double max_norm = 0;  // 0: no clipping
  int64_t step = 1;     // from 1
};

class AdamW {
 public:
  // The tensors are kept: they must stay where they are. All on one device.
  explicit AdamW(std::vector<AdamWTensor> tensors);

  // Over all gradients together, summed in float64 in a fixed order. Slices of other ranks are the caller's to add: the root
  // of the sum of the squares.
  [[nodiscard]] double gradient_norm() const;

  // `norm`: of the whole gradient. Where it is not finite nothing changes.
  void step(const AdamWStep& step, double norm);

 private:
  // The tensors as LibTorch wants them, those that decay and those that do not.
  struct Lists {
    std::vector<at::Tensor> masters, gradients, first, second, counts;
  };
  std::vector<AdamWTensor> tensors_;
  Lists lists_[2];
  at::Tensor table_, chunks_, partial_;  // what cuda/adamw.h reads and works in, on the GPU; undefined elsewhere
  int64_t chunk_count_ = 0;
};

}  // namespace longlora::ops

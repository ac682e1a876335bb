// AdamW (Loshchilov, Hutter 2019, algorithm 2) over the master copies, and gradient clipping by the global norm. Weight
// decay leaves norms and biases alone (one dimension), as is usual.
#pragma once
#include <ATen/ATen.h>

#include <vector>

#include "core/model/parameter.h"
#include "core/recipe/recipe.h"

namespace longlora::train {

class AdamW {
 public:
  AdamW(std::vector<model::Parameter*> parameters, const recipe::Optimizer& options);

  // Clips the gradients to max_grad_norm, updates the master copies with learning rate `lr`, refreshes the values that
  // the kernels see and zeroes the gradients. Returns the norm before clipping; when it is not finite nothing changes.
  double step(double lr);

  // The state, for checkpoints: first and second moments in the order of the parameters, and the number of steps.
  [[nodiscard]] const std::vector<model::Parameter*>& parameters() const { return parameters_; }
  [[nodiscard]] const std::vector<at::Tensor>& first() const { return first_; }
  [[nodiscard]] const std::vector<at::Tensor>& second() const { return second_; }
  [[nodiscard]] int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }

 private:
  struct Group {
    double weight_decay;
    std::vector<at::Tensor> masters, gradients, first, second, counts;
  };
  std::vector<model::Parameter*> parameters_;
  std::vector<at::Tensor> first_, second_;
  Group groups_[2];
  recipe::Optimizer options_;
  int64_t steps_ = 0;
};

}  // namespace longlora::train

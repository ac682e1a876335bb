// AdamW (Loshchilov, Hutter 2019, algorithm 2) over the master copies, or a rank's slices of them, and gradient clipping by the
// global norm. Weight decay leaves norms and biases alone (one dimension), as is usual.
#pragma once
#include "core/ops/adamw.h"
#include "core/recipe/recipe.h"
#include "core/train/trained.h"

namespace longlora::train {

class AdamW {
 public:
  // `trained` lives as long.
  AdamW(const Trained& trained, const recipe::Optimizer& options);

  // Clips the gradients to max_grad_norm and updates the master copies with learning rate `lr`. Returns the norm before
  // clipping, over all ranks; when it is not finite nothing changes. Otherwise the slices' gradients are zero afterwards.
  double step(double lr);

  // Number of steps done, for checkpoints; the moments are in the slices.
  [[nodiscard]] int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }

 private:
  [[nodiscard]] double gradient_norm() const;

  const Trained& trained_;
  recipe::Optimizer options_;
  ops::AdamW update_;
  int64_t steps_ = 0;
};

}  // namespace longlora::train

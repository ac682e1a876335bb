#include "core/train/adamw.h"

#include <cmath>

namespace longlora::train {
namespace {

// Values are not given: Trained::spread() has the other ranks' too.
std::vector<ops::AdamWTensor> tensors_of(const Trained& trained) {
  std::vector<ops::AdamWTensor> tensors;
  for (const Slice& slice : trained.slices()) {
    tensors.push_back({.master = slice.master,
                       .gradient = slice.grad,
                       .first = slice.first,
                       .second = slice.second,
                       .decays = slice.parameter->value.dim() >= 2,
                       .value = {}});
  }
  return tensors;
}

}  // namespace

AdamW::AdamW(const Trained& trained, const recipe::Optimizer& options)
    : trained_(trained), options_(options), update_(tensors_of(trained)) {}

// From squares in float64, added in the order of the parameters, then of the ranks: the same on every run.
double AdamW::gradient_norm() const {
  const double norm = update_.gradient_norm();
  if (!trained_.sliced()) return norm;
  const at::Tensor squares = at::full({1}, norm * norm, at::kDouble);
  trained_.group().all_reduce(squares);
  return std::sqrt(*squares.const_data_ptr<double>());
}

double AdamW::step(double lr) {
  const double norm = gradient_norm();
  if (!std::isfinite(norm)) return norm;
  update_.step({.lr = lr,
                .beta1 = options_.betas[0],
                .beta2 = options_.betas[1],
                .eps = options_.eps,
                .weight_decay = options_.weight_decay,
                .max_norm = options_.max_grad_norm,
                .step = ++steps_},
               norm);
  return norm;
}

}  // namespace longlora::train

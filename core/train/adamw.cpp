#include "core/train/adamw.h"

#include <cmath>

namespace longlora::train {

AdamW::AdamW(const Trained& trained, const recipe::Optimizer& options) : trained_(trained), options_(options) {
  groups_[0].weight_decay = options.weight_decay;
  groups_[1].weight_decay = 0;
  for (const Slice& slice : trained.slices()) {
    Group& group = groups_[slice.parameter->value.dim() >= 2 ? 0 : 1];
    group.masters.push_back(slice.master);
    group.gradients.push_back(slice.grad);
    group.first.push_back(slice.first);
    group.second.push_back(slice.second);
    group.counts.push_back(at::zeros({}, slice.master.options().dtype(at::kFloat)));
  }
}

// From squares in float64, added in the order of the parameters, then of the ranks: the same on every run.
double AdamW::gradient_norm() const {
  double squares = 0;
  for (const Slice& slice : trained_.slices()) {
    const double norm = at::linalg_vector_norm(slice.grad, 2, {}, false, at::kDouble).item<double>();
    squares += norm * norm;
  }
  if (trained_.sliced()) {
    const at::Tensor sum = at::full({1}, squares, trained_.slices().front().grad.options().dtype(at::kDouble));
    trained_.group().all_reduce(sum);
    squares = sum.item<double>();
  }
  return std::sqrt(squares);
}

double AdamW::step(double lr) {
  const double norm = gradient_norm();
  if (!std::isfinite(norm)) return norm;
  ++steps_;
  for (Group& group : groups_) {
    if (group.masters.empty()) continue;
    if (options_.max_grad_norm > 0 && norm > options_.max_grad_norm) {
      at::_foreach_mul_(group.gradients, options_.max_grad_norm / (norm + 1e-6));
    }
    for (at::Tensor& count : group.counts) count.fill_(static_cast<double>(steps_));
    at::_fused_adamw_(group.masters, group.gradients, group.first, group.second, {}, group.counts, lr,
                      options_.betas[0], options_.betas[1], group.weight_decay, options_.eps, /*amsgrad=*/false,
                      /*maximize=*/false);
  }
  return norm;
}

}  // namespace longlora::train

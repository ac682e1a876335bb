#include "core/train/adamw.h"

#include <cmath>

namespace longlora::train {

AdamW::AdamW(std::vector<model::Parameter*> parameters, const recipe::Optimizer& options)
    : parameters_(std::move(parameters)), options_(options) {
  groups_[0].weight_decay = options.weight_decay;
  groups_[1].weight_decay = 0;
  for (const model::Parameter* p : parameters_) {
    first_.push_back(at::zeros_like(p->master));
    second_.push_back(at::zeros_like(p->master));
    Group& group = groups_[p->master.dim() >= 2 ? 0 : 1];
    group.masters.push_back(p->master);
    group.gradients.push_back(p->grad);
    group.first.push_back(first_.back());
    group.second.push_back(second_.back());
    group.counts.push_back(at::zeros({}, p->master.options().dtype(at::kFloat)));
  }
}

double AdamW::step(double lr) {
  // Squared norms in float64, added in the order of the parameters: the same on every run.
  double squares = 0;
  for (const model::Parameter* p : parameters_) {
    const double norm = at::linalg_vector_norm(p->grad, 2, {}, false, at::kDouble).item<double>();
    squares += norm * norm;
  }
  const double norm = std::sqrt(squares);
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
    at::_foreach_zero_(group.gradients);
  }
  for (model::Parameter* p : parameters_) p->sync();
  return norm;
}

}  // namespace longlora::train

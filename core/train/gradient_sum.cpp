#include "core/train/gradient_sum.h"

namespace longlora::train {
namespace {

constexpr int64_t kBucket = int64_t{8} << 20;  // elements: enough to be carried at the full rate of a network

}  // namespace

GradientSum::GradientSum(const std::vector<model::Parameter*>& parameters, const dist::Group& group) {
  if (group.size() == 1) return;
  for (size_t begin = 0; begin < parameters.size();) {
    const at::ScalarType type = parameters[begin]->grad.scalar_type();
    size_t end = begin;
    int64_t elements = 0;
    do {
      elements += parameters[end++]->grad.numel();
    } while (end < parameters.size() && elements + parameters[end]->grad.numel() <= kBucket &&
             parameters[end]->grad.scalar_type() == type);
    if (end == begin + 1) {  // as it is
      buckets_.push_back(parameters[begin]->grad);
    } else {
      const at::Tensor bucket = at::zeros({elements}, parameters[begin]->grad.options());
      int64_t at = 0;
      for (size_t i = begin; i < end; ++i) {
        at::Tensor& grad = parameters[i]->grad;
        at::Tensor place = bucket.narrow(0, at, grad.numel()).view(grad.sizes());
        at += grad.numel();
        grad = place;
      }
      buckets_.push_back(bucket);
    }
    begin = end;
  }
}

void GradientSum::sum(dist::Group& group) const {
  for (const at::Tensor& bucket : buckets_) group.all_reduce(bucket);
}

}  // namespace longlora::train

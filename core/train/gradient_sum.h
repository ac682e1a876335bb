// The gradients of a step summed over the ranks, before the optimizer sees them.
#pragma once
#include <ATen/ATen.h>

#include <vector>

#include "core/dist/group.h"
#include "core/model/parameter.h"

namespace longlora::train {

class GradientSum {
 public:
  // With several ranks the gradients of small parameters are moved next to one another, so that one operation sums many: made
  // before anything else keeps a reference to a gradient.
  GradientSum(const std::vector<model::Parameter*>& parameters, const dist::Group& group);

  // In place; the same bits on every rank.
  void sum(dist::Group& group) const;

 private:
  std::vector<at::Tensor> buckets_;
};

}  // namespace longlora::train

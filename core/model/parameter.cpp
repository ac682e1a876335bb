#include "core/model/parameter.h"

#include <algorithm>

#include "core/model/memory.h"
#include "core/ops/sum_type.h"

namespace longlora::model {

int64_t Cut::count(int64_t numel) const {
  constexpr int64_t kVector = 16;  // floats of the widest
  const int64_t each = (numel + ranks - 1) / ranks;
  return (each + kVector - 1) / kVector * kVector;
}

at::Tensor Cut::of(const at::Tensor& tensor) const {
  const int64_t numel = tensor.numel(), n = count(numel), begin = std::min(numel, rank * n);
  const int64_t there = std::min(n, numel - begin);
  at::Tensor slice = at::zeros({n}, tensor.options());
  slice.narrow(0, 0, there).copy_(tensor.reshape({-1}).narrow(0, begin, there));
  return slice;
}

void Parameter::make_trainable() {
  if (trainable()) return;
  master = (cut.whole() ? value : cut.of(value)).to(ops::sum_type(value)).div(to_value).contiguous();
  grad = at::zeros(value.sizes(), master.options());
}

void Parameter::assign(const at::Tensor& whole) {
  const at::Tensor wide = whole.to(master.device(), master.scalar_type());
  master.copy_(cut.whole() ? wide : cut.of(wide));
  if (!has_memory(value)) return;
  value.copy_(scaled(wide));
}

void Parameter::sync() {
  value.copy_(scaled(master));
}

at::Tensor Parameter::scaled(const at::Tensor& wide) const {
  return to_value == 1 ? wide : wide * to_value;
}

}  // namespace longlora::model

#include "core/model/parameter.h"

#include <algorithm>

#include "core/model/memory.h"

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
  const auto wide = value.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  master = (cut.whole() ? value : cut.of(value)).to(wide).div(to_value).contiguous();
  grad = at::zeros(value.sizes(), master.options());
}

void Parameter::assign(const at::Tensor& whole) {
  const at::Tensor wide = whole.to(master.device(), master.scalar_type());
  master.copy_(cut.whole() ? wide : cut.of(wide));
  if (!has_memory(value)) return;
  if (to_value == 1) {
    value.copy_(wide);
  } else {
    value.copy_(wide * to_value);
  }
}

void Parameter::sync() {
  if (to_value == 1) {
    value.copy_(master);
  } else {
    value.copy_(master * to_value);
  }
}

}  // namespace longlora::model

#include "core/model/parameter.h"

namespace longlora::model {

void Parameter::make_trainable() {
  if (trainable()) return;
  const auto wide = value.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  master = value.to(wide).div(to_value).contiguous();
  grad = at::zeros_like(master);
}

void Parameter::sync() {
  if (to_value == 1) {
    value.copy_(master);
  } else {
    value.copy_(master * to_value);
  }
}

}  // namespace longlora::model

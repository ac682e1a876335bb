#include "core/adapt/low_rank.h"

#include "core/model/tensors.h"

namespace longlora::adapt {

void apply_low_rank(at::Tensor& w, const io::Adapter::LowRank& lora, int64_t first) {
  const int64_t rows = w.size(0);
  const at::Tensor a = model::as_tensor(lora.a), b = model::as_tensor(lora.b);
  const at::Tensor left = lora.embedding ? a.narrow(1, first, rows).t() : b.narrow(0, first, rows);  // [rows, r]
  const at::Tensor right = lora.embedding ? b.t() : a;                                               // [r, columns]
  w.addmm_(left.to(at::kFloat), right.to(at::kFloat), 1, lora.scale);
  if (!lora.magnitude) return;
  const at::Tensor magnitude = model::as_tensor(*lora.magnitude).narrow(0, first, rows).to(at::kFloat);
  w.mul_((magnitude / at::linalg_vector_norm(w, 2, {1})).unsqueeze(1));
}

}  // namespace longlora::adapt

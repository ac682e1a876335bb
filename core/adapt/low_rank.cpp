#include "core/adapt/low_rank.h"

#include "core/model/tensors.h"

namespace longlora::adapt {

at::Tensor low_rank_change(const io::Adapter::LowRank& lora, double weight, int64_t first, int64_t rows) {
  const at::Tensor a = model::as_tensor(lora.a), b = model::as_tensor(lora.b);
  const at::Tensor left = lora.embedding ? a.narrow(1, first, rows).t() : b.narrow(0, first, rows);  // [rows, r]
  const at::Tensor right = lora.embedding ? b.t() : a;                                               // [r, columns]
  return at::mm(left.to(at::kDouble), right.to(at::kDouble)).mul_(lora.scale * weight);
}

void rescale_rows(at::Tensor& w, const io::Adapter::LowRank& lora, int64_t first) {
  if (!lora.magnitude) return;
  const at::Tensor magnitude = model::as_tensor(*lora.magnitude).narrow(0, first, w.size(0)).to(at::kDouble);
  w.mul_((magnitude / at::linalg_vector_norm(w, 2, {1})).unsqueeze(1));
}

}  // namespace longlora::adapt

#include "core/adapt/low_rank.h"

#include <cmath>
#include <vector>

#include "core/model/tensors.h"

namespace longlora::adapt {
namespace {

// Sums below this share of the norms' product are computed again: the product's own error in float32 is then some 2^-11 of
// the sum, a quarter of a unit in the last place of a bfloat16.
constexpr double kSmall = 0x1p-10;

// The factors of some rows of one part, in float32.
struct Factors {
  at::Tensor left, right;  // [rows, r], [r, columns], contiguous
  double scale;

  Factors(const WeightedLowRank& part, int64_t first, int64_t rows) : scale(part.lora->scale * part.weight) {
    const at::Tensor a = model::as_tensor(part.lora->a), b = model::as_tensor(part.lora->b);
    const bool embedding = part.lora->embedding;
    left = (embedding ? a.narrow(1, first, rows).t() : b.narrow(0, first, rows)).to(at::kFloat).contiguous();
    right = (embedding ? b.t() : a).to(at::kFloat).contiguous();
  }
  [[nodiscard]] at::Tensor bounds() const {  // of |left_i| |right_j|, for each row i
    const at::Tensor columns = at::linalg_vector_norm(right, 2, {0});
    return at::linalg_vector_norm(left, 2, {1}) * (std::abs(scale) * columns.max().item<double>());
  }
  [[nodiscard]] double exact(int64_t i, int64_t j) const {
    const int64_t rank = right.size(0), columns = right.size(1);
    const float *l = left.const_data_ptr<float>() + i * rank, *r = right.const_data_ptr<float>() + j;
    double sum = 0;
    for (int64_t k = 0; k < rank; ++k) sum += static_cast<double>(l[k]) * static_cast<double>(r[k * columns]);
    return scale * sum;
  }
};

// w += change, for row `row` of those that `factors` are of.
void add(float* w, const float* change, int64_t row, int64_t columns, float small,
         const std::vector<Factors>& factors) {
  constexpr int64_t kBlock = 512;
  for (int64_t begin = 0; begin < columns; begin += kBlock) {
    const int64_t end = std::min(columns, begin + kBlock);
    int any = 0;
    for (int64_t i = begin; i < end; ++i) any |= std::abs(w[i] + change[i]) < small ? 1 : 0;
    if (any == 0) {
      for (int64_t i = begin; i < end; ++i) w[i] += change[i];
      continue;
    }
    for (int64_t i = begin; i < end; ++i) {
      const float sum = w[i] + change[i];
      double exact = 0;
      if (std::abs(sum) < small) {
        for (const Factors& part : factors) exact += part.exact(row, i);
        exact += static_cast<double>(w[i]);
      }
      w[i] = std::abs(sum) < small ? static_cast<float>(exact) : sum;
    }
  }
}

}  // namespace

void add_low_rank(at::Tensor& w, std::span<const WeightedLowRank> parts, int64_t first) {
  constexpr int64_t kBlockElements = 1 << 18;  // a block of w and its change stay in a core's cache
  if (parts.empty() || w.numel() == 0) return;
  const int64_t rows = w.size(0), columns = w.size(1);
  std::vector<Factors> factors;
  at::Tensor small = at::zeros({rows}, at::kFloat);
  for (const WeightedLowRank& part : parts) small.add_(factors.emplace_back(part, first, rows).bounds(), kSmall);
  const int64_t step = std::max<int64_t>(1, kBlockElements / columns);
  for (int64_t begin = 0; begin < rows; begin += step) {
    const int64_t some = std::min(step, rows - begin);
    at::Tensor change;
    for (const Factors& part : factors) {
      const at::Tensor one = at::mm(part.left.narrow(0, begin, some), part.right).mul_(part.scale);
      change = change.defined() ? change.add_(one) : one;
    }
    for (int64_t i = 0; i < some; ++i) {
      add(w.mutable_data_ptr<float>() + (begin + i) * columns, change.const_data_ptr<float>() + i * columns, begin + i,
          columns, small.const_data_ptr<float>()[begin + i], factors);
    }
  }
}

void rescale_rows(at::Tensor& w, const io::Adapter::LowRank& lora, int64_t first) {
  if (!lora.magnitude) return;
  const at::Tensor magnitude = model::as_tensor(*lora.magnitude).narrow(0, first, w.size(0)).to(at::kDouble);
  w.mul_((magnitude / at::linalg_vector_norm(w, 2, {1}, false, at::kDouble)).unsqueeze(1).to(w.scalar_type()));
}

}  // namespace longlora::adapt

#include "core/adapt/low_rank.h"

#include <algorithm>
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
  at::Tensor left, right;  // [rows, r], [r, columns]; contiguous
  double scale;

  Factors(const WeightedLowRank& part, int64_t first, int64_t rows) : scale(part.lora->scale * part.weight) {
    const at::Tensor a = model::as_tensor(part.lora->a), b = model::as_tensor(part.lora->b);
    const bool embedding = part.lora->embedding;
    left = (embedding ? a.narrow(1, first, rows).t() : b.narrow(0, first, rows)).to(at::kFloat).contiguous();
    right = (embedding ? b.t() : a).to(at::kFloat).contiguous();
  }
  [[nodiscard]] at::Tensor bounds() const {  // of |left_i| |right_j|, for each row i
    return at::linalg_vector_norm(left, 2, {1}) * (std::abs(scale) * std::sqrt(largest_square()));
  }
  // Of the columns of `right` (a reduction over the outer dimension, which the library does slowly).
  [[nodiscard]] float largest_square() const {
    const int64_t columns = right.size(1);
    std::vector<float> squares(static_cast<size_t>(columns));
    for (const float *r = right.const_data_ptr<float>(), *end = r + right.numel(); r < end; r += columns)
      for (int64_t j = 0; j < columns; ++j) squares[static_cast<size_t>(j)] += r[j] * r[j];
    return std::ranges::max(squares);
  }
  [[nodiscard]] double exact(int64_t i, int64_t j) const {
    const int64_t rank = right.size(0), columns = right.size(1);
    const float *l = left.const_data_ptr<float>() + i * rank, *r = right.const_data_ptr<float>() + j;
    double sum = 0;
    for (int64_t k = 0; k < rank; ++k) sum += static_cast<double>(l[k]) * static_cast<double>(r[k * columns]);
    return scale * sum;
  }
};

// w += change, for row `row` of those that `factors` are of. Compiled for wider vectors too: it is run for every weight.
[[gnu::target_clones("default", "avx2", "avx512f")]] void add(float* __restrict w, const float* __restrict change,
                                                              int64_t row, int64_t columns, float small,
                                                              const std::vector<Factors>& factors) {
  constexpr int64_t kBlock = 128;  // few enough to have none that is small, mostly
  float sum[kBlock];
  for (int64_t begin = 0; begin < columns; begin += kBlock) {
    const int64_t count = std::min(kBlock, columns - begin);
    int any = 0;
    for (int64_t i = 0; i < count; ++i) {
      sum[i] = w[begin + i] + change[begin + i];
      any |= std::abs(sum[i]) < small ? 1 : 0;
    }
    for (int64_t i = 0; any != 0 && i < count; ++i) {
      if (!(std::abs(sum[i]) < small)) continue;
      double exact = w[begin + i];
      for (const Factors& part : factors) exact += part.exact(row, begin + i);
      sum[i] = static_cast<float>(exact);
    }
    std::copy_n(sum, count, w + begin);
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
      const at::Tensor one = at::mm(part.left.narrow(0, begin, some).mul(part.scale), part.right);
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

#include "core/adapt/low_rank.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "core/model/tensors.h"
#include "core/ops/product.h"

namespace longlora::adapt {
namespace {

// Sums below this share of the norms' product are computed again: the product's own error in float32 is then some 2^-11 of
// the sum, a quarter of a unit in the last place of a bfloat16.
constexpr double kSmall = 0x1p-10;

// How many of the rows [first, first + rows) the change has: fewer where its vocabulary is smaller than the model's.
int64_t rows_in(const io::Adapter::LowRank& lora, int64_t first, int64_t rows) {
  return std::clamp<int64_t>(lora.rows() - first, 0, rows);
}

// The factors of some rows of one part, in float32; zero in rows that it does not have.
struct Factors {
  at::Tensor left, right;  // [rows, r], [r, columns]; contiguous
  double scale;

  Factors(const WeightedLowRank& part, int64_t first, int64_t rows) : scale(part.lora->scale * part.weight) {
    const at::Tensor a = model::as_tensor(part.lora->a), b = model::as_tensor(part.lora->b);
    const bool embedding = part.lora->embedding;
    const int64_t own = rows_in(*part.lora, first, rows);
    const int64_t begin = std::min(first, part.lora->rows());
    left = (embedding ? a.narrow(1, begin, own).t() : b.narrow(0, begin, own)).to(at::kFloat).contiguous();
    if (own < rows) left = at::constant_pad_nd(left, {0, 0, 0, rows - own});
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

// Values of a row: float32, or bfloat16 as its bits.
float from_bits(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}
uint16_t to_bits(float value) {  // to the nearest, of two as near the even one
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t nearest = (bits + 0x7fff + (bits >> 16 & 1)) >> 16, nan = (bits >> 16) | 0x40;
  return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? nan : nearest);
}

#if defined(__x86_64__)
#define LONGLORA_ALSO_WIDER [[gnu::target_clones("default", "avx2", "avx512f")]]
#else
#define LONGLORA_ALSO_WIDER
#endif

// out = w + change for row `row` of those that `factors` are of; `out` may be `w`. Compiled for wider vectors too: it is run
// for every weight.
LONGLORA_ALSO_WIDER void add(const void* w, const float* change, void* out, bool bfloat16, int64_t row, int64_t columns,
                             float small, const std::vector<Factors>& factors) {
  constexpr int64_t kBlock = 128;  // few enough to have none that is small, mostly
  float before[kBlock], sum[kBlock];
  for (int64_t begin = 0; begin < columns; begin += kBlock) {
    const int64_t count = std::min(kBlock, columns - begin);
    if (bfloat16) {
      for (int64_t i = 0; i < count; ++i) before[i] = from_bits(static_cast<const uint16_t*>(w)[begin + i]);
    } else {
      std::copy_n(static_cast<const float*>(w) + begin, count, before);
    }
    int any = 0;
    for (int64_t i = 0; i < count; ++i) {
      sum[i] = before[i] + change[begin + i];
      any |= std::abs(sum[i]) < small ? 1 : 0;
    }
    for (int64_t i = 0; any != 0 && i < count; ++i) {
      if (!(std::abs(sum[i]) < small)) continue;
      double exact = before[i];
      for (const Factors& part : factors) exact += part.exact(row, begin + i);
      sum[i] = static_cast<float>(exact);
    }
    if (bfloat16) {
      for (int64_t i = 0; i < count; ++i) static_cast<uint16_t*>(out)[begin + i] = to_bits(sum[i]);
    } else {
      std::copy_n(sum, count, static_cast<float*>(out) + begin);
    }
  }
}

}  // namespace

void add_low_rank(const at::Tensor& w, std::span<const WeightedLowRank> parts, int64_t first, at::Tensor& out) {
  constexpr int64_t kBlockElements = 1 << 17;  // a change stays in a core's cache
  TORCH_CHECK(w.scalar_type() == out.scalar_type() && w.is_contiguous() && out.is_contiguous());
  if (parts.empty() || w.numel() == 0) return;
  const int64_t columns = w.size(1), row_bytes = columns * w.element_size();
  const bool bfloat16 = w.scalar_type() == at::kBFloat16;
  int64_t rows = 0;
  for (const WeightedLowRank& part : parts) rows = std::max(rows, rows_in(*part.lora, first, w.size(0)));
  if (!w.is_same(out) && rows < w.size(0))
    out.narrow(0, rows, w.size(0) - rows).copy_(w.narrow(0, rows, w.size(0) - rows));
  if (rows == 0) return;
  std::vector<Factors> factors;
  at::Tensor small = at::zeros({rows}, at::kFloat);
  for (const WeightedLowRank& part : parts) small.add_(factors.emplace_back(part, first, rows).bounds(), kSmall);
  const int64_t step = std::clamp<int64_t>(kBlockElements / columns, 1, rows);
  at::Tensor change = at::empty({step, columns}, at::kFloat);
  const auto* from = static_cast<const std::byte*>(w.const_data_ptr());
  auto* to = static_cast<std::byte*>(out.mutable_data_ptr());
  for (int64_t begin = 0; begin < rows; begin += step) {
    const int64_t some = std::min(step, rows - begin);
    at::Tensor block = change.narrow(0, 0, some);
    for (const Factors& part : factors) {
      const at::Tensor left = part.left.narrow(0, begin, some).mul(part.scale);
      if (&part == &factors.front()) {
        ops::product_into(block, {{left, part.right}}, ops::ProductBackend::native);
      } else {
        ops::product_add(block, left, part.right, ops::ProductBackend::native);
      }
    }
    for (int64_t i = begin; i < begin + some; ++i) {
      add(from + i * row_bytes, block.const_data_ptr<float>() + (i - begin) * columns, to + i * row_bytes, bfloat16, i,
          columns, small.const_data_ptr<float>()[i], factors);
    }
  }
}

void rescale_rows(at::Tensor& w, const io::Adapter::LowRank& lora, int64_t first) {
  const int64_t rows = rows_in(lora, first, w.size(0));
  if (!lora.magnitude || rows == 0) return;
  const at::Tensor magnitude = model::as_tensor(*lora.magnitude).narrow(0, first, rows).to(at::kDouble);
  at::Tensor own = w.narrow(0, 0, rows);
  own.mul_((magnitude / at::linalg_vector_norm(own, 2, {1}, false, at::kDouble)).unsqueeze(1).to(w.scalar_type()));
}

}  // namespace longlora::adapt

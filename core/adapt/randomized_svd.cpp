#include "core/adapt/randomized_svd.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <optional>
#include <tuple>
#include <vector>

#include "core/base/random.h"
#include "core/model/random_tensor.h"
#include "core/ops/product.h"

namespace longlora::adapt {
namespace {

// Measured on spectra from flat (random matrices) to steep, 1024 to 4096 rows: with these the residual stays below 1.01
// times the optimum.
constexpr int kPowerIterations = 3;
constexpr int64_t kFirstBlock = 64;     // where the rank is not known
constexpr double kExactFrom = 0.5;      // of all singular values
constexpr double kSmallestLoss = 1e-6;  // below it the rounding of float32 products counts
constexpr int64_t kChunk = int64_t{1} << 22;

int64_t oversampling(int64_t rank) {
  return std::max<int64_t>(32, rank / 2);
}

at::Tensor product(const at::Tensor& a, const at::Tensor& b) {
  return ops::product(a, b, ops::ProductBackend::native);  // float32 or float64
}

at::Tensor orthonormal(const at::Tensor& y) {
  return std::get<0>(at::linalg_qr(y, "reduced"));
}

// The columns of y without their parts along q, orthonormal. Twice: what cancels in the first round is noise that may lie
// along q again.
at::Tensor orthonormal_beside(const at::Tensor& q, at::Tensor y) {
  if (q.size(1) == 0) return orthonormal(y);
  for (int round = 0; round < 2; ++round) {
    const at::Tensor beside = y.clone();
    ops::product_add(beside, q, product(q.t(), y), ops::ProductBackend::native, -1);
    y = orthonormal(beside);
  }
  return y;
}

// Float32 leaves columns orthonormal to 1e-7, always to the same side; the sum of many squares would show it.
at::Tensor polished(const at::Tensor& q) {
  const at::Tensor wide = q.to(at::kDouble);
  const at::Tensor factor = at::linalg_cholesky(product(wide.t(), wide));
  return at::linalg_solve_triangular(factor, wide.t(), /*upper=*/false).t().to(at::kFloat).contiguous();
}

// d [k, n], q [k, l] -> `count` more orthonormal columns that hold most of what q leaves over.
at::Tensor more_directions(const at::Tensor& d, const at::Tensor& q, int64_t count, uint64_t seed,
                           const std::function<void()>& between) {
  at::Tensor start = at::empty({d.size(1), count}, at::kFloat);
  model::fill_normal(start, 1, seed);
  at::Tensor y = orthonormal_beside(q, product(d, start));
  for (int i = 0; i < kPowerIterations; ++i) {
    between();
    y = orthonormal_beside(q, product(d, orthonormal(product(d.t(), y))));
  }
  between();
  return y;
}

// d d^T in float64.
at::Tensor gram(const at::Tensor& d, const std::function<void()>& between) {
  at::Tensor g = at::zeros({d.size(0), d.size(0)}, at::kDouble);
  const int64_t step = std::max<int64_t>(1, kChunk / d.size(0));
  for (int64_t first = 0; first < d.size(1); first += step) {
    between();
    const at::Tensor part = d.narrow(1, first, std::min(step, d.size(1) - first)).to(at::kDouble);
    ops::product_add(g, part, part.t(), ops::ProductBackend::native);
  }
  return g;
}

struct Eigen {
  at::Tensor values, vectors;  // float64, from the largest; vectors in columns
};

Eigen eigen(const at::Tensor& symmetric) {
  const auto [values, vectors] = at::linalg_eigh(symmetric);
  return {values.flip(0).clamp_min(0), vectors.flip(1)};
}

// The fewest of the first `among` values that lose at most `allowed` of `total`; empty when all of them lose more.
std::optional<int64_t> least_rank(const at::Tensor& values, int64_t among, double total, double allowed) {
  const double* value = values.const_data_ptr<double>();
  double left = total;
  for (int64_t r = 1; r <= among; ++r) {
    left -= value[r - 1];
    if (left <= allowed) return r;
  }
  return std::nullopt;
}

// d = basis * rows; without a basis d = rows.
TruncatedSvd assemble(const at::Tensor& basis, const at::Tensor& rows, const Eigen& e, int64_t rank, bool swapped) {
  const at::Tensor w = e.vectors.narrow(1, 0, rank).to(at::kFloat), s = e.values.narrow(0, 0, rank).sqrt();
  // A value of 0 has any vector for a partner: none here.
  const at::Tensor inverse = at::where(s > 1e-12 * s[0], s.reciprocal(), at::zeros_like(s)).to(at::kFloat);
  at::Tensor u = basis.defined() ? product(basis, w) : w.contiguous();
  at::Tensor v = product(rows.t(), w).mul_(inverse);
  if (swapped) std::swap(u, v);
  return {u, s.contiguous(), v, !basis.defined()};
}

}  // namespace

double squared_norm(const at::Tensor& matrix) {
  const at::Tensor whole = matrix.contiguous();
  const int64_t rows = whole.size(0), columns = whole.size(1);
  const float* data = whole.const_data_ptr<float>();
  std::vector<double> sums(static_cast<size_t>(rows));
  at::parallel_for(0, rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* at = data + row * columns;
      std::array<double, 8> lanes = {};
      int64_t i = 0;
      for (; i + 8 <= columns; i += 8) {
        for (size_t lane = 0; lane < 8; ++lane) lanes[lane] += double{at[i + lane]} * double{at[i + lane]};
      }
      for (; i < columns; ++i) lanes[0] += double{at[i]} * double{at[i]};
      sums[static_cast<size_t>(row)] = std::accumulate(lanes.begin(), lanes.end(), 0.0);
    }
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

TruncatedSvd truncated_svd(const at::Tensor& matrix, const SvdGoal& goal, uint64_t seed,
                           const std::function<void()>& between) {
  const bool tall = matrix.size(0) > matrix.size(1);
  const at::Tensor d = tall ? matrix.t() : matrix;  // [k, n], k <= n
  const int64_t k = d.size(0), most = std::min(goal.max_rank, k);
  const double total = goal.loss > 0 ? squared_norm(matrix) : 0, allowed = goal.loss * total;
  const auto exact_from = static_cast<int64_t>(kExactFrom * static_cast<double>(k));

  const bool sketch = goal.loss == 0 || goal.loss >= kSmallestLoss;

  at::Tensor q = at::empty({k, 0}, at::kFloat);
  int64_t wanted = goal.loss > 0 ? std::min(most, kFirstBlock) : most;
  while (sketch && q.size(1) + wanted + oversampling(wanted) <= exact_from) {
    const uint64_t block_seed = derive_seed(seed, {static_cast<uint64_t>(q.size(1))});
    const at::Tensor block = more_directions(d, q, wanted + oversampling(wanted), block_seed, between);
    q = polished(at::cat({q, block}, 1));
    const at::Tensor rows = product(q.t(), d);
    const Eigen e = eigen(gram(rows, between));
    if (goal.loss == 0) return assemble(q, rows, e, most, tall);
    const int64_t good = std::min(most, q.size(1) - oversampling(wanted));  // the last of a sketch come out too small
    if (const auto rank = least_rank(e.values, good, total, allowed)) return assemble(q, rows, e, *rank, tall);
    if (good == most) return assemble(q, rows, e, most, tall);
    // At least `more`, as no value to come is larger than the last; half as many again, as they fall.
    const double left = total - e.values.narrow(0, 0, good).sum().item<double>() - allowed;
    const double more = std::ceil(left / std::max(e.values[good - 1].item<double>(), 1e-300));
    wanted = std::max(good / 2, static_cast<int64_t>(std::min(1.5 * more, static_cast<double>(k))));
    wanted = std::min(wanted, most - good);
  }
  const Eigen e = eigen(gram(d, between));
  const int64_t rank = goal.loss > 0 ? least_rank(e.values, most, total, allowed).value_or(most) : most;
  return assemble({}, d, e, rank, tall);
}

}  // namespace longlora::adapt

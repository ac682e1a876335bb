// The leading singular values and vectors of a matrix: as many as a rank, or a share of the matrix's squared Frobenius norm,
// asks for.
//
// Randomized subspace iteration (Halko, Martinsson, Tropp 2011, arXiv 0909.4061, algorithms 4.4 and 5.1): the range of a
// random sketch, sharpened by power iterations with a QR factorization after every product. Where the number of values is
// not known beforehand the sketch grows by blocks, each drawn from what the blocks before it leave over (the blocked scheme
// of Yu, Gu, Li 2018, arXiv 1606.09402), and the basis found so far is kept. Where more than half of all values would be
// needed, they are the eigenvalues of the smaller Gram matrix in float64, which is exact.
#pragma once
#include <ATen/ATen.h>

#include <cstdint>
#include <functional>

namespace longlora::adapt {

struct SvdGoal {
  int64_t max_rank = 0;  // at least 1; never more values than this
  double loss = 0;       // the fewest values that lose at most this share of the squared norm; 0: max_rank values
};

// matrix = u diag(s) v^T + what is left over.
struct TruncatedSvd {
  at::Tensor u, s, v;  // [m, r] float32, [r] float64 from the largest, [n, r] float32
  bool exact;          // from the Gram matrix
};

// matrix: [m, n] float32, finite. r = min(max_rank, m, n) where the goal has no loss, else at least 1. The same seed gives
// the same result on the same number of threads. `between` is called every few products and may throw.
[[nodiscard]] TruncatedSvd truncated_svd(const at::Tensor& matrix, const SvdGoal& goal, uint64_t seed,
                                         const std::function<void()>& between);

// The sum of the squares of all elements of a float32 matrix, added up in float64.
[[nodiscard]] double squared_norm(const at::Tensor& matrix);

}  // namespace longlora::adapt

// The kernel of dropout.h.
#include "cuda/dropout.h"

#include "cuda/vector.cuh"

namespace longlora::cuda {
namespace {

// core/base/random.h
HOST_DEVICE uint64_t mix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

DEVICE uint32_t mix32(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x85ebca6bU;
  x = (x ^ (x >> 13)) * 0xc2b2ae35U;
  return x ^ (x >> 16);
}

template <class T, int N>
__global__ void __launch_bounds__(256)
    dropout_kernel(Dropout a, uint64_t mixed_seed, uint32_t threshold, float scale, unsigned per_row) {
  const RowPlace place = row_place(per_row);
  const int64_t i = place.item * N;
  if (i >= a.d) return;
  const auto key = static_cast<uint32_t>(mix64(mixed_seed ^ mix64(static_cast<uint64_t>(a.first_token + place.row))));
  float x[N];
  load(static_cast<const T*>(a.x) + place.row * a.x_row + i, x);
  UNROLL
  for (int j = 0; j < N; ++j) {
    const bool kept = mix32(key ^ (static_cast<uint32_t>(i + j) * 0x9e3779b9U)) >= threshold;
    x[j] = kept ? x[j] * scale : 0.0f;
  }
  store(static_cast<T*>(a.y) + place.row * a.y_row + i, x);
}

}  // namespace

void dropout(const Dropout& a, Stream stream) {
  check_sizes("dropout", a.rows, a.d);
  if (!(a.p >= 0 && a.p < 1)) throw LaunchError("dropout: a probability of " + std::to_string(a.p));
  const double p = a.seed == 0 ? 0 : a.p;
  for_element(a.element, [&](auto type) {
    using T = decltype(type);
    const bool wide = allows_vectors(static_cast<const T*>(a.x), a.x_row) &&
                      allows_vectors(static_cast<const T*>(a.y), a.y_row) && a.d % kVector<T> == 0;
    for_width<T>(wide, [&](auto width) {
      constexpr int N = decltype(width)::value;
      const RowPieces pieces = row_pieces(a.rows, a.d / N);
      launch(dropout_kernel<T, N>, grid_of(pieces.blocks), dim3(pieces.threads), 0, stream, a, mix64(a.seed),
             static_cast<uint32_t>(p * 0x1p32), static_cast<float>(1 / (1 - p)), pieces.per_row);
    });
  });
}

}  // namespace longlora::cuda

// The kernel of embedding.h: a thread has some columns of one token's row and goes over the token's places.
#include "cuda/embedding.h"

#include "cuda/vector.cuh"

namespace longlora::cuda {
namespace {

constexpr int kAhead = 4;  // rows that are read before they are added

template <class T, int N>
__global__ void __launch_bounds__(256) embedding_backward_kernel(EmbeddingBackward a, unsigned per_row) {
  const RowPlace place = row_place(per_row);
  const int64_t i = place.item * N;
  if (i >= a.d) return;
  const TokenRun run = a.runs[place.row];
  float* to = a.dtable + run.token * a.dtable_row + i;
  const T* from = static_cast<const T*>(a.dx) + i;
  float sum[N];
  load(to, sum);
  for (int64_t first = run.begin; first < run.end; first += kAhead) {
    Vector<T, N> rows[kAhead];
    UNROLL
    for (int k = 0; k < kAhead; ++k) {
      if (first + k < run.end) rows[k] = load<N>(from + a.order[first + k] * a.dx_row);
    }
    UNROLL
    for (int k = 0; k < kAhead; ++k) {
      if (first + k >= run.end) break;
      UNROLL
      for (int j = 0; j < N; ++j) sum[j] += rows[k][j];
    }
  }
  store(to, sum);
}

}  // namespace

void embedding_backward(const EmbeddingBackward& a, Stream stream) {
  check_sizes("embedding", a.run_count, a.d);
  for_element(a.element, [&](auto type) {
    using T = decltype(type);
    const bool wide = allows_vectors(static_cast<const T*>(a.dx), a.dx_row) && allows_vectors(a.dtable, a.dtable_row) &&
                      a.d % kVector<T> == 0;
    for_width<T>(wide, [&](auto width) {
      constexpr int N = decltype(width)::value;
      const RowPieces pieces = row_pieces(a.run_count, a.d / N);
      launch(embedding_backward_kernel<T, N>, grid_of(pieces.blocks), dim3(pieces.threads), 0, stream, a,
             pieces.per_row);
    });
  });
}

}  // namespace longlora::cuda

// The kernels of swiglu.h: a vector of gates, its ups and what becomes of them a thread.
#include "cuda/swiglu.h"

#include "cuda/vector.cuh"

namespace longlora::cuda {
namespace {

template <class T, int N>
__global__ void __launch_bounds__(256) swiglu_forward_kernel(SwigluForward a, unsigned per_row) {
  const RowPlace place = row_place(per_row);
  const int64_t i = place.item * N;
  if (i >= a.n) return;
  const T* gate = static_cast<const T*>(a.gate_up) + place.row * a.gate_up_row + i;
  float g[N], u[N];
  load(gate, g);
  load(gate + a.n, u);
  UNROLL
  for (int j = 0; j < N; ++j) g[j] = g[j] / (1.0f + exponential<T>(-g[j])) * u[j];
  store(static_cast<T*>(a.m) + place.row * a.m_row + i, g);
}

template <class T, int N>
__global__ void __launch_bounds__(256) swiglu_backward_kernel(SwigluBackward a, unsigned per_row) {
  const RowPlace place = row_place(per_row);
  const int64_t i = place.item * N;
  if (i >= a.n) return;
  T* gate = static_cast<T*>(a.gate_up) + place.row * a.gate_up_row + i;
  float g[N], u[N], d[N], m[N];
  load(gate, g);
  load(gate + a.n, u);
  load(static_cast<const T*>(a.dm) + place.row * a.dm_row + i, d);
  UNROLL
  for (int j = 0; j < N; ++j) {
    const float sigmoid = 1.0f / (1.0f + exponential<T>(-g[j])), silu = g[j] * sigmoid;
    m[j] = silu * u[j];
    g[j] = d[j] * u[j] * sigmoid * (1.0f + g[j] * (1.0f - sigmoid));
    u[j] = d[j] * silu;
  }
  store(gate, g);
  store(gate + a.n, u);
  if (a.m != nullptr) store(static_cast<T*>(a.m) + place.row * a.m_row + i, m);
}

template <class T>
bool halves_allow_vectors(const void* gate_up, int64_t row, int64_t n) {
  return allows_vectors(static_cast<const T*>(gate_up), row) && n % kVector<T> == 0;
}

}  // namespace

void swiglu_forward(const SwigluForward& a, Stream stream) {
  check_sizes("swiglu", a.rows, a.n);
  for_element(a.element, [&](auto type) {
    using T = decltype(type);
    const bool wide =
        halves_allow_vectors<T>(a.gate_up, a.gate_up_row, a.n) && allows_vectors(static_cast<const T*>(a.m), a.m_row);
    for_width<T>(wide, [&](auto width) {
      constexpr int N = decltype(width)::value;
      const RowPieces pieces = row_pieces(a.rows, a.n / N);
      launch(swiglu_forward_kernel<T, N>, grid_of(pieces.blocks), dim3(pieces.threads), 0, stream, a, pieces.per_row);
    });
  });
}

void swiglu_backward_in_place(const SwigluBackward& a, Stream stream) {
  check_sizes("swiglu", a.rows, a.n);
  for_element(a.element, [&](auto type) {
    using T = decltype(type);
    const bool wide = halves_allow_vectors<T>(a.gate_up, a.gate_up_row, a.n) &&
                      allows_vectors(static_cast<const T*>(a.dm), a.dm_row) &&
                      (a.m == nullptr || allows_vectors(static_cast<const T*>(a.m), a.m_row));
    for_width<T>(wide, [&](auto width) {
      constexpr int N = decltype(width)::value;
      const RowPieces pieces = row_pieces(a.rows, a.n / N);
      launch(swiglu_backward_kernel<T, N>, grid_of(pieces.blocks), dim3(pieces.threads), 0, stream, a, pieces.per_row);
    });
  });
}

}  // namespace longlora::cuda

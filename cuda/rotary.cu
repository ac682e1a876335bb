// The kernel of rotary.h. A block has a token; a thread has the same columns of several heads, whose cos and sin it keeps.
#include "cuda/rotary.h"

#include "cuda/vector.cuh"

namespace longlora::cuda {
namespace {

constexpr int64_t kThreads = 128;

template <class T, int N>
__global__ void __launch_bounds__(kThreads) rotary_kernel(Rotary a) {
  const int64_t half = a.head_dim / 2, t = blockIdx.x;
  const int64_t row = int64_t{a.positions[t]} * half;
  for (int64_t i = int64_t{threadIdx.x} * N; i < half; i += int64_t{blockDim.x} * N) {
    float cos[N], sin[N];
    load(a.cos + row + i, cos);
    load(a.sin + row + i, sin);
    for (int64_t h = threadIdx.y; h < a.heads; h += blockDim.y) {
      T* low = static_cast<T*>(a.x) + t * a.token + h * a.head + i;
      float x[N], y[N];
      load(low, x);
      load(low + half, y);
      UNROLL
      for (int j = 0; j < N; ++j) {
        const float s = a.inverse ? -sin[j] : sin[j], turned = x[j] * cos[j] - y[j] * s;
        y[j] = y[j] * cos[j] + x[j] * s;
        x[j] = turned;
      }
      store(low, x);
      store(low + half, y);
    }
  }
}

}  // namespace

void rotate_in_place(const Rotary& a, Stream stream) {
  check_sizes("rotary", a.tokens, a.head_dim);
  if (a.head_dim % 2 != 0) throw LaunchError("rotary: head size " + std::to_string(a.head_dim) + " is odd");
  if (a.heads == 0) return;
  for_element(a.element, [&](auto type) {
    using T = decltype(type);
    const T* x = static_cast<const T*>(a.x);
    const int64_t half = a.head_dim / 2;
    const bool wide = allows_vectors(x, a.token) && allows_vectors(x, a.head) && half % kVector<T> == 0 &&
                      allows_vectors(a.cos, half) && allows_vectors(a.sin, half);
    for_width<T>(wide, [&](auto width) {
      constexpr int N = decltype(width)::value;
      const int64_t columns = smaller(ceil_div(half, N), kThreads), heads = smaller(a.heads, kThreads / columns);
      launch(rotary_kernel<T, N>, grid_of(a.tokens), dim3(static_cast<unsigned>(columns), static_cast<unsigned>(heads)),
             0, stream, a);
    });
  });
}

}  // namespace longlora::cuda

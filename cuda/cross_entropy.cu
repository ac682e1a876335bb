// The kernel of cross_entropy.h: a block has a row.
#include "cuda/cross_entropy.h"

#include "cuda/vector.cuh"

namespace longlora::cuda {
namespace {

constexpr int kThreads = 512;

// The largest number so far and the sum of exp(x - largest). A row of nothing but -inf has base 0.
template <class T>
struct Softmax {
  float top = -INFINITY, sum = 0.0f;
  DEVICE float base() const { return top == -INFINITY ? 0.0f : top; }
  DEVICE void raise(float to) {
    const float before = top;
    top = larger(top, to);
    sum *= exponential<T>(before - base());
  }
  template <int N>
  DEVICE void add(const float (&x)[N]) {
    float most = x[0];
    UNROLL
    for (int j = 1; j < N; ++j) most = larger(most, x[j]);
    if (most > top) raise(most);
    UNROLL
    for (int j = 0; j < N; ++j) sum += exponential<T>(x[j] - base());
  }
};

// body(first column, integral_constant of the columns) for this thread's part of a row: vectors where its addresses allow
// them, single elements before and after.
template <class T, class Body>
DEVICE void over_row(const T* row, int64_t n, Body&& body) {
  constexpr int N = kVector<T>;
  const auto past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(row) % 16 / sizeof(T));
  const int64_t head = smaller<int64_t>(n, (N - past) % N), vectors = (n - head) / N, tail = head + vectors * N;
  if (threadIdx.x < head) body(threadIdx.x, std::integral_constant<int, 1>());
  for (int64_t i = threadIdx.x; i < vectors; i += kThreads) body(head + i * N, std::integral_constant<int, N>());
  if (tail + threadIdx.x < n) body(tail + threadIdx.x, std::integral_constant<int, 1>());
}

template <class T>
__global__ void __launch_bounds__(kThreads) cross_entropy_kernel(CrossEntropy a) {
  STATIC_SMEM(float, tops, kWarp);
  STATIC_SMEM(float, sums, kWarp);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t t = blockIdx.x, target = a.targets[t];
  T* row = static_cast<T*>(a.logits) + t * a.row;
  if (target < 0) {
    if (threadIdx.x == 0) a.losses[t] = 0.0f;
    if (!a.gradient) return;
    over_row(row, a.vocab, [&](int64_t i, auto width) {
      const float zeros[decltype(width)::value] = {};
      store(row + i, zeros);
    });
    return;
  }

  const float at_target = threadIdx.x == 0 ? to_float(row[target]) : 0.0f;  // before it is overwritten
  Softmax<T> mine;
  over_row(row, a.vocab, [&](int64_t i, auto width) {
    float x[decltype(width)::value];
    load(row + i, x);
    mine.add(x);
  });
  mine.raise(warp_max(mine.top));
  mine.sum = warp_sum(mine.sum);
  if (lane == 0) {
    tops[warp] = mine.top;
    sums[warp] = mine.sum;
  }
  __syncthreads();
  if (lane < kThreads / kWarp) {
    mine.top = tops[lane];
    mine.sum = sums[lane];
  } else {
    mine = Softmax<T>();
  }
  mine.raise(warp_max(mine.top));
  mine.sum = warp_sum(mine.sum);

  if (threadIdx.x == 0) a.losses[t] = mine.top - at_target + logf(mine.sum);
  if (!a.gradient) return;
  const float factor = a.scale / mine.sum;
  over_row(row, a.vocab, [&](int64_t i, auto width) {
    constexpr int N = decltype(width)::value;
    float x[N];
    load(row + i, x);
    UNROLL
    for (int j = 0; j < N; ++j) {
      x[j] = exponential<T>(x[j] - mine.base()) * factor;
      if (i + j == target) x[j] -= a.scale;
    }
    store(row + i, x);
  });
}

}  // namespace

void cross_entropy(const CrossEntropy& a, Stream stream) {
  check_sizes("cross_entropy", a.rows, a.vocab);
  for_element(a.element, [&](auto type) {
    launch(cross_entropy_kernel<decltype(type)>, grid_of(a.rows), dim3(kThreads), 0, stream, a);
  });
}

}  // namespace longlora::cuda

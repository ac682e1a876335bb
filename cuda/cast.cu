// The kernel of cast.h.
#include "cuda/cast.h"

#include "cuda/vector.cuh"

namespace longlora::cuda {
namespace {

// N elements a thread, what is left over one by one.
template <class From, class To, int N>
__global__ void __launch_bounds__(256) cast_kernel(const From* from, To* to, int64_t n) {
  const int64_t item = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, whole = n / N;
  if (item < whole) {
    float x[N];
    load(from + item * N, x);
    store(to + item * N, x);
  } else if (const int64_t i = whole * N + item - whole; i < n) {
    to[i] = from_float<To>(to_float(from[i]));
  }
}

}  // namespace

void cast(Element from_element, const void* from, Element to_element, void* to, int64_t n, Stream stream) {
  check_sizes("cast", n, 1);
  for_element(from_element, [&](auto from_type) {
    for_element(to_element, [&](auto to_type) {
      using From = decltype(from_type);
      using To = decltype(to_type);
      const auto* source = static_cast<const From*>(from);
      auto* target = static_cast<To*>(to);
      using Narrow = std::conditional_t<(sizeof(From) < sizeof(To)), From, To>;
      for_width<Narrow>(allows_vectors(source, 0) && allows_vectors(target, 0), [&](auto width) {
        constexpr int N = decltype(width)::value;
        const int64_t items = n / N + n % N;
        launch(cast_kernel<From, To, N>, grid_of(ceil_div(items, 256)), dim3(threads_for(items, 256)), 0, stream,
               source, target, n);
      });
    });
  });
}

}  // namespace longlora::cuda

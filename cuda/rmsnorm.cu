// The kernels of rmsnorm.h. A block has one row at a time; what of it fits into kHeld vectors a thread stays in registers
// between the sum and its use, the rest of a longer row is read again.
#include "cuda/rmsnorm.h"

#include "cuda/vector.cuh"

namespace longlora::cuda {
namespace {

constexpr int kHeld = 2;           // vectors a thread
constexpr int64_t kThreads = 512;  // most of them

// first(k, i) for this thread's vectors i = threadIdx.x + k * blockDim.x < n with k < kHeld known when compiling, then
// rest(i) for the others.
template <class First, class Rest>
DEVICE void over_vectors(int64_t n, First&& first, Rest&& rest) {
  UNROLL
  for (int k = 0; k < kHeld; ++k) {
    const int64_t i = threadIdx.x + int64_t{blockDim.x} * k;
    if (i < n) first(k, i);
  }
  for (int64_t i = threadIdx.x + int64_t{blockDim.x} * kHeld; i < n; i += blockDim.x) rest(i);
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads) rmsnorm_forward_kernel(RmsNormForward a) {
  STATIC_SMEM(float, room, kWarp);
  const int64_t row = blockIdx.x, n = a.d / N;
  T* x = static_cast<T*>(a.x) + row * a.x_row;
  const T* residual = a.residual == nullptr ? nullptr : static_cast<const T*>(a.residual) + row * a.residual_row;
  const T* w = static_cast<const T*>(a.w);
  T* y = static_cast<T*>(a.y) + row * a.y_row;

  float squares = 0.0f;
  const auto summed = [&](int64_t i) {
    Vector<T, N> v = load<N>(x + i * N);
    if (residual != nullptr) {
      const Vector<T, N> other = load<N>(residual + i * N);
      float sum[N];
      UNROLL
      for (int j = 0; j < N; ++j) sum[j] = v[j] + other[j];
      v = rounded<T>(sum);
      store(x + i * N, v);
    }
    UNROLL
    for (int j = 0; j < N; ++j) squares += v[j] * v[j];
    return v;
  };
  Vector<T, N> held[kHeld];
  over_vectors(
      n, [&](int k, int64_t i) { held[k] = summed(i); }, [&](int64_t i) { summed(i); });

  const float rstd = 1.0f / sqrtf(block_sum(squares, room) / static_cast<float>(a.d) + a.eps);
  if (threadIdx.x == 0 && a.rstd != nullptr) a.rstd[row] = rstd;
  const auto normed = [&](int64_t i, const Vector<T, N>& v) {
    float weight[N], result[N];
    load(w + i * N, weight);
    UNROLL
    for (int j = 0; j < N; ++j) result[j] = weight[j] * to_float(from_float<T>(v[j] * rstd));
    store(y + i * N, result);
  };
  over_vectors(
      n, [&](int k, int64_t i) { normed(i, held[k]); }, [&](int64_t i) { normed(i, load<N>(x + i * N)); });
}

// Block b has the rows [T b / blocks, T (b + 1) / blocks). Its sum of dw is kept where its vectors are: in registers,
// for those beyond kHeld in its row of a.work.
template <class T, int N, bool kWeight>
__global__ void __launch_bounds__(kThreads) rmsnorm_backward_kernel(RmsNormBackward a) {
  STATIC_SMEM(float, room, 2 * kWarp);
  const int64_t n = a.d / N, block = blockIdx.x, blocks = gridDim.x;
  const T* w = static_cast<const T*>(a.w);
  float* partial = kWeight ? a.work + block * a.d : nullptr;
  float dw[kHeld][N] = {};
  if constexpr (kWeight) {
    const float zeros[N] = {};
    over_vectors(
        n, [](int, int64_t) {}, [&](int64_t i) { store(partial + i * N, zeros); });
  }

  const int64_t end = a.rows * (block + 1) / blocks;
  for (int64_t row = a.rows * block / blocks; row < end; ++row) {
    const T* x = static_cast<const T*>(a.x) + row * a.x_row;
    const T* dy = static_cast<const T*>(a.dy) + row * a.dy_row;
    const T* residual = a.residual == nullptr ? nullptr : static_cast<const T*>(a.residual) + row * a.residual_row;
    T* dx = static_cast<T*>(a.dx) + row * a.dx_row;
    const float rstd = a.rstd[row];

    float dot = 0.0f;
    const auto add = [&](int64_t i, const Vector<T, N>& xs, const Vector<T, N>& dys) {
      float weight[N];
      load(w + i * N, weight);
      UNROLL
      for (int j = 0; j < N; ++j) dot += weight[j] * dys[j] * (xs[j] * rstd);
    };
    Vector<T, N> held_x[kHeld], held_dy[kHeld], held_residual[kHeld];
    over_vectors(
        n,
        [&](int k, int64_t i) {
          held_x[k] = load<N>(x + i * N);
          held_dy[k] = load<N>(dy + i * N);
          if (residual != nullptr) held_residual[k] = load<N>(residual + i * N);
          add(i, held_x[k], held_dy[k]);
        },
        [&](int64_t i) { add(i, load<N>(x + i * N), load<N>(dy + i * N)); });
    // Rows take turns with two rooms: who writes the one has passed the barrier after which all have read the other.
    const float mean = block_sum(dot, room + (row % 2) * kWarp) / static_cast<float>(a.d);

    const auto finish = [&](int64_t i, const Vector<T, N>& xs, const Vector<T, N>& dys, const Vector<T, N>& others,
                            float(&sums)[N]) {
      float weight[N], result[N];
      load(w + i * N, weight);
      UNROLL
      for (int j = 0; j < N; ++j) {
        const float normed = xs[j] * rstd, g = dys[j];
        result[j] = rstd * (weight[j] * g - normed * mean);
        if (residual != nullptr) result[j] += others[j];
        sums[j] += g * normed;
      }
      store(dx + i * N, result);
    };
    over_vectors(
        n, [&](int k, int64_t i) { finish(i, held_x[k], held_dy[k], held_residual[k], dw[k]); },
        [&](int64_t i) {
          const Vector<T, N> xs = load<N>(x + i * N), dys = load<N>(dy + i * N);
          const Vector<T, N> others = residual == nullptr ? xs : load<N>(residual + i * N);
          float sums[N] = {};
          if constexpr (kWeight) load(partial + i * N, sums);
          finish(i, xs, dys, others, sums);
          if constexpr (kWeight) store(partial + i * N, sums);
        });
  }
  if constexpr (kWeight) {
    over_vectors(
        n, [&](int k, int64_t i) { store(partial + i * N, dw[k]); }, [](int64_t) {});
  }
}

// dw[column] += the partial sums of a column: 32 columns a block, each warp every 32nd partial sum, then the warps' sums
// in order.
constexpr int kColumnWarps = 32;
__global__ void __launch_bounds__(kColumnWarps* kWarp)
    sum_columns_kernel(const float* partial, int64_t blocks, int64_t d, float* dw) {
  STATIC_SMEM(float, sums, kColumnWarps* kWarp);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t column = int64_t{blockIdx.x} * kWarp + lane;
  float sum = 0.0f;
  if (column < d) {
    for (int64_t b = warp; b < blocks; b += kColumnWarps) sum += partial[b * d + column];
  }
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (warp != 0 || column >= d) return;
  for (int i = 1; i < kColumnWarps; ++i) sum += sums[i * kWarp + lane];
  dw[column] += sum;
}

template <class T>
bool vectors(const void* data, int64_t row) {
  return data == nullptr || allows_vectors(static_cast<const T*>(data), row);
}

}  // namespace

int64_t rmsnorm_blocks(int64_t rows) {
  return smaller<int64_t>(ceil_div(rows, 4), 512);
}

void rmsnorm_forward(const RmsNormForward& a, Stream stream) {
  check_sizes("rmsnorm", a.rows, a.d);
  for_element(a.element, [&](auto type) {
    using T = decltype(type);
    const bool wide = vectors<T>(a.x, a.x_row) && vectors<T>(a.residual, a.residual_row) && vectors<T>(a.w, a.d) &&
                      vectors<T>(a.y, a.y_row);
    for_width<T>(wide, [&](auto width) {
      constexpr int N = decltype(width)::value;
      launch(rmsnorm_forward_kernel<T, N>, grid_of(a.rows), dim3(threads_for(ceil_div(a.d / N, kHeld), kThreads)), 0,
             stream, a);
    });
  });
}

void rmsnorm_backward(const RmsNormBackward& a, Stream stream) {
  check_sizes("rmsnorm", a.rows, a.d);
  if (a.rows == 0) return;
  const int64_t blocks = rmsnorm_blocks(a.rows);
  for_element(a.element, [&](auto type) {
    using T = decltype(type);
    const bool wide = vectors<T>(a.x, a.x_row) && vectors<T>(a.w, a.d) && vectors<T>(a.dy, a.dy_row) &&
                      vectors<T>(a.residual, a.residual_row) && vectors<T>(a.dx, a.dx_row) &&
                      vectors<float>(a.work, a.d);
    for_width<T>(wide, [&](auto width) {
      constexpr int N = decltype(width)::value;
      const dim3 threads(threads_for(ceil_div(a.d / N, kHeld), kThreads));
      if (a.dw != nullptr) {
        launch(rmsnorm_backward_kernel<T, N, true>, grid_of(blocks), threads, 0, stream, a);
      } else {
        launch(rmsnorm_backward_kernel<T, N, false>, grid_of(blocks), threads, 0, stream, a);
      }
    });
  });
  if (a.dw == nullptr) return;
  launch(sum_columns_kernel, grid_of(ceil_div(a.d, kWarp)), dim3(kColumnWarps * kWarp), 0, stream, a.work, blocks, a.d,
         a.dw);
}

}  // namespace longlora::cuda

// The kernels of adamw.h: a block has a chunk.
#include "cuda/adamw.h"

#include "cuda/vector.cuh"

namespace longlora::cuda {
namespace {

constexpr int kThreads = 256, kSumThreads = 1024;
constexpr int kWide = 8;  // elements a thread at a time

// body(first element, integral_constant of the elements) for this thread's part of the chunk.
template <class Body>
DEVICE void over_chunk(const AdamWChunk& chunk, bool wide, Body&& body) {
  int64_t rest = chunk.begin;
  if (wide) {
    const int64_t whole = (chunk.end - chunk.begin) / kWide;
    for (int64_t i = threadIdx.x; i < whole; i += kThreads) {
      body(chunk.begin + i * kWide, std::integral_constant<int, kWide>());
    }
    rest += whole * kWide;
  }
  for (int64_t i = rest + threadIdx.x; i < chunk.end; i += kThreads) body(i, std::integral_constant<int, 1>());
}

DEVICE bool aligned(const void* p) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

// The sum over the block, right in thread 0. room: kWarp doubles.
DEVICE double block_sum(double x, double* room) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  UNROLL
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  if (lane == 0) room[warp] = x;
  __syncthreads();
  double sum = 0;
  for (int i = 0; i < static_cast<int>(blockDim.x) / kWarp; ++i) sum += room[i];
  return sum;
}

__global__ void __launch_bounds__(kThreads)
    squares_kernel(const AdamWTensor* tensors, const AdamWChunk* chunks, double* partial) {
  STATIC_SMEM(double, room, kWarp);
  const AdamWChunk chunk = chunks[blockIdx.x];
  const float* gradient = tensors[chunk.tensor].gradient;
  double sum = 0;
  over_chunk(chunk, aligned(gradient), [&](int64_t i, auto width) {
    float g[decltype(width)::value];
    load(gradient + i, g);
    UNROLL
    for (int j = 0; j < decltype(width)::value; ++j) sum += static_cast<double>(g[j]) * static_cast<double>(g[j]);
  });
  sum = block_sum(sum, room);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kSumThreads)
    norm_kernel(const double* partial, int64_t count, double max_norm, GradientNorm* result) {
  STATIC_SMEM(double, room, kWarp);
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kSumThreads) sum += partial[i];
  sum = block_sum(sum, room);
  if (threadIdx.x != 0) return;
  const double norm = sqrt(sum);
  result->norm = norm;
  result->clip = max_norm > 0 && norm > max_norm ? static_cast<float>(max_norm / (norm + 1e-6)) : 1.0f;
}

// The step's numbers in float32, as LibTorch rounds them.
struct Factors {
  float decay;  // 1 - lr weight_decay
  float toward_gradient,
      from_gradient;  // m + toward_gradient (g - m), or g + from_gradient (g - m) where that is exact
  bool near_gradient;
  float beta2, square;  // v = beta2 v + square g g
  float step_size, root, eps;
};

DEVICE void update(float& p, float g, float& m, float& v, bool decays, const Factors& f) {
  if (decays) p = product(p, f.decay);
  m = f.near_gradient ? fmaf(f.from_gradient, g - m, g) : fmaf(f.toward_gradient, g - m, m);
  v = fmaf(product(g, f.square), g, product(v, f.beta2));
  p -= product(f.step_size, m) / (sqrtf(v) / f.root + f.eps);
}

__global__ void __launch_bounds__(kThreads)
    adamw_kernel(const AdamWTensor* tensors, const AdamWChunk* chunks, Factors f, const GradientNorm* norm) {
  if (!(norm->norm < INFINITY)) return;
  const AdamWChunk chunk = chunks[blockIdx.x];
  const AdamWTensor t = tensors[chunk.tensor];
  const float clip = norm->clip;
  const bool whole_rows = t.columns >= t.count || (t.columns % kWide == 0 && t.value_row % kWide == 0);
  const bool wide = aligned(t.master) && aligned(t.gradient) && aligned(t.first) && aligned(t.second) &&
                    (t.value == nullptr || (aligned(t.value) && whole_rows));
  over_chunk(chunk, wide, [&](int64_t i, auto width) {
    constexpr int N = decltype(width)::value;
    float p[N], g[N], m[N], v[N];
    load(t.master + i, p);
    load(t.gradient + i, g);
    load(t.first + i, m);
    load(t.second + i, v);
    UNROLL
    for (int j = 0; j < N; ++j) update(p[j], product(g[j], clip), m[j], v[j], t.decays, f);
    store(t.master + i, p);
    store(t.first + i, m);
    store(t.second + i, v);
    UNROLL
    for (int j = 0; j < N; ++j) g[j] = 0.0f;
    store(t.gradient + i, g);
    if (t.value == nullptr) return;
    UNROLL
    for (int j = 0; j < N; ++j) p[j] = product(p[j], t.to_value);
    const int64_t row = t.columns >= t.count ? 0 : i / t.columns, at = row * t.value_row + i - row * t.columns;
    switch (t.element) {
      case Element::float32:
        return store(static_cast<float*>(t.value) + at, p);
      case Element::bfloat16:
        return store(static_cast<bf16*>(t.value) + at, p);
      case Element::float16:
        return store(static_cast<fp16*>(t.value) + at, p);
    }
  });
}

}  // namespace

void gradient_norm(const AdamWWork& work, double max_norm, double* partial, GradientNorm* result, Stream stream) {
  launch(squares_kernel, grid_of(work.chunk_count), dim3(kThreads), 0, stream, work.tensors, work.chunks, partial);
  launch(norm_kernel, dim3(1), dim3(kSumThreads), 0, stream, partial, work.chunk_count, max_norm, result);
}

void adamw(const AdamWWork& work, const AdamWStep& s, const GradientNorm* norm, Stream stream) {
  const auto steps = static_cast<double>(s.step);
  const auto toward = static_cast<float>(1 - s.beta1);
  Factors f{};
  f.decay = static_cast<float>(1 - s.lr * s.weight_decay);
  f.toward_gradient = toward;
  f.from_gradient = toward - 1.0f;
  f.near_gradient = toward >= 0.5f;
  f.beta2 = static_cast<float>(s.beta2);
  f.square = static_cast<float>(1 - s.beta2);
  f.step_size = static_cast<float>(s.lr / (1 - std::pow(s.beta1, steps)));
  f.root = static_cast<float>(std::sqrt(1 - std::pow(s.beta2, steps)));
  f.eps = static_cast<float>(s.eps);
  launch(adamw_kernel, grid_of(work.chunk_count), dim3(kThreads), 0, stream, work.tensors, work.chunks, f, norm);
}

}  // namespace longlora::cuda

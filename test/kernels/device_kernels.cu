// Small kernels that use every function of device.cuh once, for the tests of device.cuh itself.
#include "cuda/device.cuh"
#include "test/kernels/kernels.h"

namespace longlora::cuda::test {
namespace {

__global__ void block_sum_kernel(const float* x, float* sums, int64_t n) {
  STATIC_SMEM(float, partial, 32);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const float* mine = x + static_cast<int64_t>(blockIdx.x) * n;
  float sum = 0.0f;
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) sum += mine[i];
  sum = warp_sum(sum);
  if (lane == 0) partial[warp] = sum;
  __syncthreads();
  if (warp == 0) {
    sum = warp_sum(lane < static_cast<int>(blockDim.x) / kWarp ? partial[lane] : 0.0f);
    if (lane == 0) sums[blockIdx.x] = sum;
  }
}

template <class T>
__global__ void small_product_kernel(const T* a, const T* b, float* c, bool b_columns, Layout layout) {
  STATIC_SMEM(uint4, raw, 64);
  T* tile_a = reinterpret_cast<T*>(raw);            // [16][16]
  T* tile_b = reinterpret_cast<T*>(raw) + 16 * 16;  // [8][16] columns, or [16][8] rows
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 16 * 16; i += kWarp) tile_a[i] = a[i];
  for (int i = lane; i < 16 * 8; i += kWarp) tile_b[i] = b[i];
  __syncthreads();
  uint32_t fa[4], fb[4];
  // Matrices of ldmatrix: rows 0-7 and 8-15 of columns 0-7, then of columns 8-15.
  ldmatrix_x4(fa, tile_a + lane % 16 * 16 + lane / 16 * 8);
  if (b_columns || layout == Layout::not_transposed) {
    ldmatrix_x4(fb, tile_b + lane % 8 * 16 + lane / 8 % 2 * 8);
  } else {
    ldmatrix_x4_trans(fb, tile_b + lane % 16 * 8);
  }
  if (layout == Layout::a_swapped) {
    const uint32_t other = fa[1];
    fa[1] = fa[2];
    fa[2] = other;
  }
  const int second = layout == Layout::b_swapped ? 0 : 1;
  const uint32_t pair[2] = {fb[1 - second], fb[second]};
  float d[4] = {};
  mma_m16n8k16<T>(d, fa, pair, d);
  const int g = lane / 4, t = lane % 4;
  c[g * 8 + 2 * t] = d[0];
  c[g * 8 + 2 * t + 1] = d[1];
  c[(g + 8) * 8 + 2 * t] = d[2];
  c[(g + 8) * 8 + 2 * t + 1] = d[3];
}

__global__ void copy_pipeline_kernel(const float* in, float* out, int64_t n) {
  constexpr int kRows = 32, kColumns = 4;  // 16 bytes a thread and stage
  DYN_SMEM(memory);
  unsigned char* cursor = memory;
  float* stages[2] = {smem_take<float>(cursor, kRows * kColumns), smem_take<float>(cursor, kRows * kColumns)};
  const int lane = static_cast<int>(threadIdx.x);
  const int64_t tiles = ceil_div(n, kRows * kColumns);
  const auto fetch = [&](int64_t tile) {
    const int64_t at = tile * kRows * kColumns + lane * kColumns;
    if (tile < tiles) cp_async16(stages[tile % 2] + lane * kColumns, at < n ? in + at : in, at < n);
    cp_async_commit();
  };
  fetch(0);
  for (int64_t tile = 0; tile < tiles; ++tile) {
    fetch(tile + 1);
    cp_async_wait<1>();
    __syncthreads();
    const int other = (lane + 1) % kRows;  // what another thread brought
    for (int c = 0; c < kColumns; ++c) {
      out[tile * kRows * kColumns + other * kColumns + c] = 2.0f * stages[tile % 2][other * kColumns + c];
    }
    __syncthreads();
  }
}

__global__ void shuffles_kernel(uint32_t* out) {
  const int lane = static_cast<int>(threadIdx.x);
  out[lane] = __shfl_sync(kAllLanes, static_cast<uint32_t>(lane), 5);
  out[32 + lane] = __shfl_up_sync(kAllLanes, static_cast<uint32_t>(lane), 3);
  out[64 + lane] = __shfl_down_sync(kAllLanes, static_cast<uint32_t>(lane), 2, 8);
  if (lane < 16) {
    out[96 + lane] = __shfl_xor_sync(0x0000ffffu, static_cast<uint32_t>(lane), 4);
  } else {
    out[96 + lane] = __shfl_xor_sync(0xffff0000u, static_cast<uint32_t>(lane), 8);
  }
  __syncwarp();
  out[128 + lane] = __ballot_sync(kAllLanes, lane % 3 == 0);
}

__global__ void named_barriers_kernel(int* out) {
  STATIC_SMEM(int, values, 128);
  STATIC_SMEM(int, total, 1);
  const int thread = static_cast<int>(threadIdx.x), half = thread / 64;
  if (thread == 0) total[0] = 0;
  __syncthreads();
  values[thread] = thread;
  bar_sync(static_cast<unsigned>(1 + half), 64);
  atomicAdd(total, values[half * 64 + 63 - thread % 64]);
  __syncthreads();
  if (thread == 0) out[0] = total[0];
}

}  // namespace

void block_sums(const float* x, float* sums, int64_t blocks, int64_t n, unsigned threads, Stream stream) {
  launch(block_sum_kernel, grid_of(blocks), dim3(threads), 0, stream, x, sums, n);
}

template <class T>
void small_product(const T* a, const T* b, float* c, bool b_columns, Layout layout, Stream stream) {
  launch(small_product_kernel<T>, dim3(1), dim3(kWarp), 0, stream, a, b, c, b_columns, layout);
}
template void small_product<bf16>(const bf16*, const bf16*, float*, bool, Layout, Stream);
template void small_product<fp16>(const fp16*, const fp16*, float*, bool, Layout, Stream);

void copy_pipeline(const float* in, float* out, int64_t n, Stream stream) {
  launch(copy_pipeline_kernel, dim3(1), dim3(kWarp), 2 * 32 * 4 * sizeof(float), stream, in, out, n);
}

void shuffles(uint32_t* out, Stream stream) {
  launch(shuffles_kernel, dim3(1), dim3(kWarp), 0, stream, out);
}

void named_barriers(int* out, Stream stream) {
  launch(named_barriers_kernel, dim3(1), dim3(128), 0, stream, out);
}

}  // namespace longlora::cuda::test

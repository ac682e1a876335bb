// What a kernel may use, on a GPU and on the host. Kernels are CUDA C++ over this header: CUDA's own names for thread
// indices, barriers, shuffles and atomics, and the functions below for shared memory, tensor cores and asynchronous
// copies. nvcc takes device_gpu.cuh; any other compiler takes host/device_host.h, which runs a block's threads as fibers
// and checks what they do (docs/kernels.md).
//
//   __global__, DEVICE, HOST_DEVICE, UNROLL    kernels, device functions, functions of both, an unrolled loop
//   launch(kernel, grid, block, shared_bytes, stream, args...)          in place of <<<>>>; throws when it fails
//   STATIC_SMEM(T, name, n)                    T name[n] in shared memory, in place of __shared__
//   DYN_SMEM(name)                             unsigned char* name: the launch's shared_bytes, 1024-byte aligned
//   smem_take<T>(cursor, n)                    T[n] cut from it (whole 16 bytes); on the host a red zone follows
//   __syncthreads(), __syncwarp(mask), bar_sync(id, threads)            id 1..15, threads a multiple of 32
//   __shfl_sync, __shfl_xor_sync, __shfl_up_sync, __shfl_down_sync, __ballot_sync, __any_sync, __all_sync
//   atomicAdd, atomicMax, atomicExch, atomicCAS
//   ldmatrix_x4(r, row), ldmatrix_x4_trans(r, row)                      row: 16 bytes of shared memory a lane
//   SharedAddress(p) + bytes, ^ bits           an address for ldmatrix and cp_async in one register, cheap to vary
//   mma_m16n8k16<T>(d, a, b, c)                T bf16 or fp16, float32 sums; fragments as in docs/kernels.md
//   cp_async16(dst, src, valid)                16 bytes global to shared; zeros, src untouched, when not valid
//   cp_async4(dst, src, valid)                 4 bytes
//   cp_async_commit(), cp_async_wait<N>()      close a group; wait for all but the N youngest groups
//   to_float(x), from_float<T>(x)              bf16, fp16, float; rounds to nearest even
//   pack2<T>(low, high), unpack2<T>(bits)      two values in 32 bits
//   fast_exp2(x), fast_log2(x), rsqrtf(x), smaller(a, b), larger(a, b)
#pragma once
#include <cstddef>
#include <cstdint>

#include "cuda/types.h"

#ifdef __CUDACC__
#include "cuda/device_gpu.cuh"
#else
#include "cuda/host/device_host.h"
#endif

namespace longlora::cuda {

constexpr int kWarp = 32;
constexpr uint32_t kAllLanes = 0xffffffffu;

template <class T>
HOST_DEVICE constexpr T smaller(T a, T b) {
  return b < a ? b : a;
}
template <class T>
HOST_DEVICE constexpr T larger(T a, T b) {
  return a < b ? b : a;
}
HOST_DEVICE constexpr int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// The elementwise types by one name each: to_float, from_float<T>, pack2<T>, unpack2<T>.
DEVICE float to_float(float x) {
  return x;
}
DEVICE float to_float(bf16 x) {
  return bf16_to_float(x);
}
DEVICE float to_float(fp16 x) {
  return fp16_to_float(x);
}

template <class T>
struct Convert;
template <>
struct Convert<float> {
  DEVICE static float from(float x) { return x; }
};
template <>
struct Convert<bf16> {
  DEVICE static bf16 from(float x) { return {static_cast<uint16_t>(pack_bf16x2(x, 0.0f))}; }
  DEVICE static uint32_t pack(float low, float high) { return pack_bf16x2(low, high); }
};
template <>
struct Convert<fp16> {
  DEVICE static fp16 from(float x) { return {static_cast<uint16_t>(pack_fp16x2(x, 0.0f))}; }
  DEVICE static uint32_t pack(float low, float high) { return pack_fp16x2(low, high); }
};
template <class T>
DEVICE T from_float(float x) {
  return Convert<T>::from(x);
}
template <class T>
DEVICE uint32_t pack2(float low, float high) {
  return Convert<T>::pack(low, high);
}
template <class T>
DEVICE float2 unpack2(uint32_t bits) {
  return {to_float(T{static_cast<uint16_t>(bits)}), to_float(T{static_cast<uint16_t>(bits >> 16)})};
}

// Sum and maximum over a warp, the same in every lane.
DEVICE float warp_sum(float x) {
  UNROLL
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  return x;
}
DEVICE float warp_max(float x) {
  UNROLL
  for (int offset = 16; offset > 0; offset /= 2) x = larger(x, __shfl_xor_sync(kAllLanes, x, offset));
  return x;
}

// A grid of `blocks` in x; throws where the hardware has no such grid.
inline dim3 grid_of(int64_t blocks) {
  if (blocks < 0 || blocks > 0x7fffffff) throw LaunchError("a grid of " + std::to_string(blocks) + " blocks");
  return dim3(static_cast<unsigned>(blocks));
}

}  // namespace longlora::cuda

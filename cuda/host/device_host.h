// device.cuh as a host compiler sees it: CUDA's names over host/runtime.h. Every call carries its file and line.
#pragma once
#include <bit>
#include <cmath>
#include <cstring>
#include <string>
#include <tuple>
#include <type_traits>

#include "cuda/host/convert.h"
#include "cuda/host/dim3.h"
#include "cuda/host/runtime.h"
#include "cuda/types.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ use_STATIC_SMEM_or_DYN_SMEM_instead_of___shared__
#define DEVICE inline
#define HOST_DEVICE inline
#define UNROLL
#define DYN_SMEM(name) unsigned char* name = ::longlora::cuda::host::dynamic_shared()
#define STATIC_SMEM(T, name, n)                                      \
  T(&name)                                                           \
  [n] = *static_cast<T(*)[n]>(::longlora::cuda::host::static_shared( \
      [] {                                                           \
        static char key_of_this_array;                               \
        return &key_of_this_array;                                   \
      }(),                                                           \
      sizeof(T) * (n), alignof(T)))
#define threadIdx (::longlora::cuda::host::place->thread)
#define blockIdx (::longlora::cuda::host::place->block)
#define blockDim (::longlora::cuda::host::place->block_size)
#define gridDim (::longlora::cuda::host::place->grid_size)

#define LONGLORA_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(LONGLORA_HERE) {
  longlora::cuda::host::barrier(0, 0, "__syncthreads", file, line);
}
inline void __syncwarp(uint32_t mask = 0xffffffffu, LONGLORA_HERE) {
  longlora::cuda::host::warp_barrier(mask, file, line);
}
inline void __threadfence() {}

namespace longlora::cuda::host {
template <class T>
T shuffle_value(Shuffle kind, uint32_t mask, T value, int lane_or_delta, int width, const char* file, int line) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = shuffle(kind, mask, bits, lane_or_delta, width, file, line);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}
}  // namespace longlora::cuda::host

template <class T>
T __shfl_sync(uint32_t mask, T value, int lane, int width = 32, LONGLORA_HERE) {
  return longlora::cuda::host::shuffle_value(longlora::cuda::host::Shuffle::index, mask, value, lane, width, file,
                                             line);
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int lanes, int width = 32, LONGLORA_HERE) {
  return longlora::cuda::host::shuffle_value(longlora::cuda::host::Shuffle::exclusive_or, mask, value, lanes, width,
                                             file, line);
}
template <class T>
T __shfl_up_sync(uint32_t mask, T value, int delta, int width = 32, LONGLORA_HERE) {
  return longlora::cuda::host::shuffle_value(longlora::cuda::host::Shuffle::up, mask, value, delta, width, file, line);
}
template <class T>
T __shfl_down_sync(uint32_t mask, T value, int delta, int width = 32, LONGLORA_HERE) {
  return longlora::cuda::host::shuffle_value(longlora::cuda::host::Shuffle::down, mask, value, delta, width, file,
                                             line);
}
inline uint32_t __ballot_sync(uint32_t mask, bool predicate, LONGLORA_HERE) {
  return longlora::cuda::host::ballot(mask, predicate, file, line);
}
inline bool __any_sync(uint32_t mask, bool predicate, LONGLORA_HERE) {
  return longlora::cuda::host::ballot(mask, predicate, file, line) != 0;
}
inline bool __all_sync(uint32_t mask, bool predicate, LONGLORA_HERE) {
  return longlora::cuda::host::ballot(mask, predicate, file, line) == mask;
}

// Threads take turns, so plain code is atomic; it must not count as a plain access in race mode.
#define LONGLORA_ATOMIC \
  template <class T>    \
  __attribute__((noinline, no_sanitize("thread"))) T
LONGLORA_ATOMIC atomicAdd(T* at, std::type_identity_t<T> value) {
  longlora::cuda::host::note_atomic(at, sizeof(T));
  const T old = *at;
  *at = old + value;
  return old;
}
LONGLORA_ATOMIC atomicMax(T* at, std::type_identity_t<T> value) {
  longlora::cuda::host::note_atomic(at, sizeof(T));
  const T old = *at;
  *at = old < value ? value : old;
  return old;
}
LONGLORA_ATOMIC atomicExch(T* at, std::type_identity_t<T> value) {
  longlora::cuda::host::note_atomic(at, sizeof(T));
  const T old = *at;
  *at = value;
  return old;
}
LONGLORA_ATOMIC atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  longlora::cuda::host::note_atomic(at, sizeof(T));
  const T old = *at;
  if (old == expected) *at = value;
  return old;
}
#undef LONGLORA_ATOMIC

template <class T>
T __ldg(const T* at) {
  return *at;
}
inline uint32_t __float_as_uint(float x) {
  return std::bit_cast<uint32_t>(x);
}
inline float __uint_as_float(uint32_t x) {
  return std::bit_cast<float>(x);
}
inline int __popc(uint32_t x) {
  return __builtin_popcount(x);
}
inline float rsqrtf(float x) {
  return 1.0f / std::sqrt(x);
}

namespace longlora::cuda {

template <class T>
T* smem_take(unsigned char*& cursor, int64_t n) {
  return reinterpret_cast<T*>(host::take_shared(cursor, static_cast<size_t>(n) * sizeof(T)));
}

inline float bf16_to_float(bf16 x) {
  return host::bf16_bits_to_float(x.bits);
}
inline float fp16_to_float(fp16 x) {
  return host::fp16_bits_to_float(x.bits);
}
inline uint32_t pack_bf16x2(float low, float high) {
  return host::float_to_bf16_bits(low) | static_cast<uint32_t>(host::float_to_bf16_bits(high)) << 16;
}
inline uint32_t pack_fp16x2(float low, float high) {
  return host::float_to_fp16_bits(low) | static_cast<uint32_t>(host::float_to_fp16_bits(high)) << 16;
}
inline float fast_exp2(float x) {
  return std::exp2(x);
}
inline float fast_log2(float x) {
  return std::log2(x);
}

struct SharedAddress {
  void* at;
  explicit SharedAddress(const void* p) : at(const_cast<void*>(p)) {}
  SharedAddress operator+(uint32_t bytes) const { return SharedAddress(static_cast<unsigned char*>(at) + bytes); }
  SharedAddress operator^(uint32_t bits) const {
    return SharedAddress(reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(at) ^ bits));
  }
};

inline void ldmatrix_x4(uint32_t (&r)[4], SharedAddress row, LONGLORA_HERE) {
  host::ldmatrix(r, row.at, false, file, line);
}
inline void ldmatrix_x4_trans(uint32_t (&r)[4], SharedAddress row, LONGLORA_HERE) {
  host::ldmatrix(r, row.at, true, file, line);
}
inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, LONGLORA_HERE) {
  host::ldmatrix(r, row, false, file, line);
}
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, LONGLORA_HERE) {
  host::ldmatrix(r, row, true, file, line);
}
template <class T>
void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4], LONGLORA_HERE) {
  static_assert(std::is_same_v<T, bf16> || std::is_same_v<T, fp16>);
  host::mma(d, a, b, c, std::is_same_v<T, bf16>, file, line);
}

inline void cp_async16(void* dst, const void* src, bool valid, LONGLORA_HERE) {
  host::copy_async(dst, src, 16, valid, "cp_async16", file, line);
}
inline void cp_async4(void* dst, const void* src, bool valid, LONGLORA_HERE) {
  host::copy_async(dst, src, 4, valid, "cp_async4", file, line);
}
inline void cp_async16(SharedAddress dst, const void* src, bool valid, LONGLORA_HERE) {
  host::copy_async(dst.at, src, 16, valid, "cp_async16", file, line);
}
inline void cp_async4(SharedAddress dst, const void* src, bool valid, LONGLORA_HERE) {
  host::copy_async(dst.at, src, 4, valid, "cp_async4", file, line);
}
inline void cp_async_commit() {
  host::commit_copies();
}
template <int N>
void cp_async_wait(LONGLORA_HERE) {
  host::wait_copies(N, file, line);
}
inline void bar_sync(unsigned id, unsigned threads, LONGLORA_HERE) {
  host::barrier(id, threads, "bar_sync", file, line);
}

template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, Stream, A&&... args) {
  struct Call {
    void (*kernel)(P...);
    std::tuple<P...> parameters;
  } call{kernel, std::tuple<P...>(static_cast<P>(args)...)};
  host::run_grid(
      grid, block, shared_bytes,
      [](void* argument) {
        Call& mine = *static_cast<Call*>(argument);
        std::apply(mine.kernel, mine.parameters);
      },
      &call);
}

}  // namespace longlora::cuda

#undef LONGLORA_HERE

// What the elementwise kernels share: 16 bytes at a time, sums over a block, and the instance for an element type.
#pragma once
#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>

#include "cuda/device.cuh"
#include "cuda/launch_error.h"

namespace longlora::cuda {

template <class T>
constexpr int kVector = 16 / static_cast<int>(sizeof(T));

// 16 bytes of global memory at once: of what C++ says nvcc makes four stores, and where pointers come out of a table four
// loads. A thread that stored with anything else may not load16 the same bytes.
#ifdef __CUDACC__
DEVICE uint4 load16(const void* from) {
  uint4 v;
  asm volatile("ld.global.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(__cvta_generic_to_global(from)));
  return v;
}
DEVICE void store16(void* to, uint4 v) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(v.x), "r"(v.y),
               "r"(v.z), "r"(v.w)
               : "memory");
}
#else
inline uint4 load16(const void* from) {
  return *static_cast<const uint4*>(from);
}
inline void store16(void* to, uint4 v) {
  *static_cast<uint4*>(to) = v;
}
#endif

// N neighbouring elements, read and written 16 bytes at a time where N > 1 (the address must allow it).
template <class T, int N>
struct Vector {
  static constexpr int kWords = N * static_cast<int>(sizeof(T)) / 4;
  uint32_t words[kWords];
  DEVICE float operator[](int i) const {
    if constexpr (sizeof(T) == 4) {
      return __uint_as_float(words[i]);
    } else {
      const float2 both = unpack2<T>(words[i / 2]);
      return i % 2 == 0 ? both.x : both.y;
    }
  }
};
template <class T>
struct Vector<T, 1> {
  T element;
  DEVICE float operator[](int) const { return to_float(element); }
};

template <int N, class T>
DEVICE Vector<T, N> load(const T* from) {
  if constexpr (N == 1) {
    return {*from};
  } else {
    Vector<T, N> v;
    UNROLL
    for (int i = 0; i < v.kWords; i += 4) {
      const uint4 four = load16(from + i * 4 / sizeof(T));
      v.words[i] = four.x;
      v.words[i + 1] = four.y;
      v.words[i + 2] = four.z;
      v.words[i + 3] = four.w;
    }
    return v;
  }
}
template <class T, int N>
DEVICE void store(T* to, const Vector<T, N>& v) {
  if constexpr (N == 1) {
    *to = v.element;
  } else {
    UNROLL
    for (int i = 0; i < v.kWords; i += 4) {
      store16(to + i * 4 / sizeof(T), make_uint4(v.words[i], v.words[i + 1], v.words[i + 2], v.words[i + 3]));
    }
  }
}
template <class T, int N>
DEVICE Vector<T, N> rounded(const float (&x)[N]) {
  if constexpr (N == 1) {
    return {from_float<T>(x[0])};
  } else {
    Vector<T, N> v;
    UNROLL
    for (int i = 0; i < v.kWords; ++i) {
      if constexpr (sizeof(T) == 4) {
        v.words[i] = __float_as_uint(x[i]);
      } else {
        v.words[i] = pack2<T>(x[2 * i], x[2 * i + 1]);
      }
    }
    return v;
  }
}

// The same as float32, rounded to T on the way back.
template <class T, int N>
DEVICE void load(const T* from, float (&x)[N]) {
  const Vector<T, N> v = load<N>(from);
  UNROLL
  for (int i = 0; i < N; ++i) x[i] = v[i];
}
template <class T, int N>
DEVICE void store(T* to, const float (&x)[N]) {
  store(to, rounded<T>(x));
}

// a * b rounded to float32, which nvcc may not fuse into a sum that follows.
DEVICE float product(float a, float b) {
#ifdef __CUDACC__
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}
// exp(x) for results that are stored as T: two units in the last place of float32, more where T has 16 bits.
template <class T>
DEVICE float exponential(float x) {
  if constexpr (sizeof(T) == 4) {
    return expf(x);
  } else {
    return fast_exp2(x * 1.4426950408889634f);
  }
}

// The sum of x over the block in every thread, in an order that depends on nothing but the number of threads. `room`:
// kWarp floats of shared memory; a barrier must stand between two uses.
DEVICE float block_sum(float x, float* room) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  x = warp_sum(x);
  if (lane == 0) room[warp] = x;
  __syncthreads();
  return warp_sum(lane < static_cast<int>(blockDim.x) / kWarp ? room[lane] : 0.0f);
}

// Whether rows of T that begin at `data`, `stride` elements apart, allow accesses of 16 bytes.
template <class T>
bool allows_vectors(const T* data, int64_t stride) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride % kVector<T> == 0;
}

// Threads for `items` pieces of work: whole warps, at most `most`.
inline unsigned threads_for(int64_t items, int64_t most) {
  return static_cast<unsigned>(larger<int64_t>(1, ceil_div(smaller(items, most), kWarp)) * kWarp);
}

// Rows cut into pieces of one item (N elements) a thread, for kernels in which no thread needs another: the grid, and this
// thread's place in it (item may lie past the row's end).
struct RowPieces {
  unsigned threads, per_row;
  int64_t blocks;
};
inline RowPieces row_pieces(int64_t rows, int64_t items) {
  const unsigned threads = threads_for(items, 256);
  const int64_t per_row = ceil_div(items, threads);
  return {threads, grid_of(per_row).x, rows * per_row};
}
struct RowPlace {
  int64_t row, item;
};
DEVICE RowPlace row_place(unsigned per_row) {
  const unsigned piece = blockIdx.x % per_row;
  return {blockIdx.x / per_row, int64_t{piece} * blockDim.x + threadIdx.x};
}

// body(a value of the element type)
template <class Body>
void for_element(Element element, Body&& body) {
  switch (element) {
    case Element::float32:
      return body(float{});
    case Element::bfloat16:
      return body(bf16{});
    case Element::float16:
      return body(fp16{});
  }
}

// body(integral_constant of the elements at a time): a vector's where `vectors`, else one.
template <class T, class Body>
void for_width(bool vectors, Body&& body) {
  if (vectors) return body(std::integral_constant<int, kVector<T>>());
  body(std::integral_constant<int, 1>());
}

inline void check_sizes(const char* kernel, int64_t rows, int64_t columns) {
  if (rows >= 0 && columns > 0) return;
  throw LaunchError(std::string(kernel) + ": " + std::to_string(rows) + " rows of " + std::to_string(columns));
}

}  // namespace longlora::cuda

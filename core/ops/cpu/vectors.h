// Vectors of the instruction set's width, in which the CPU kernels compute: loading and storing them from any element type,
// powers, and the loop over a row with its rest.
#pragma once
#include "core/ops/cpu/element.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace longlora::LONGLORA_CPU_NAMESPACE {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

#define LONGLORA_INLINE inline __attribute__((always_inline))

template <class S>
struct Lanes {
  static constexpr int kCount = kVectorBytes / static_cast<int>(sizeof(S));
  typedef S Vec __attribute__((vector_size(kVectorBytes), may_alias));
  typedef S Loose __attribute__((vector_size(kVectorBytes), may_alias, aligned(sizeof(S))));
};
template <class S>
using Vec = typename Lanes<S>::Vec;

template <class S>
LONGLORA_INLINE Vec<S> load_vector(const S* from) {
  return *reinterpret_cast<const Vec<S>*>(from);
}
template <class S>
LONGLORA_INLINE void store_vector(S* to, const Vec<S>& x) {
  *reinterpret_cast<Vec<S>*>(to) = x;
}
template <class S>
LONGLORA_INLINE Vec<S> all_lanes(S x) {
  return x - Vec<S>{};
}
// a where either is NaN. GCC 12 compares and blends here, which is slow in AVX2 only.
template <class S>
LONGLORA_INLINE Vec<S> larger(const Vec<S>& a, const Vec<S>& b) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  if constexpr (sizeof(S) == 4) return _mm256_max_ps(b, a);
#endif
  return a < b ? b : a;
}
template <class S>
LONGLORA_INLINE Vec<S> smaller(const Vec<S>& a, const Vec<S>& b) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  if constexpr (sizeof(S) == 4) return _mm256_min_ps(b, a);
#endif
  return b < a ? b : a;
}

// Bits of a vector of float.
typedef uint32_t Bits __attribute__((vector_size(kVectorBytes)));
// As many bfloat16.
typedef uint16_t Narrow __attribute__((vector_size(kVectorBytes / 2), may_alias, aligned(sizeof(uint16_t))));

// GCC 12 turns __builtin_convertvector into several times the instructions of the ones written out here.
LONGLORA_INLINE Vec<float> widen(const Narrow& x) {
#if defined(__AVX512F__)
  const auto bits = reinterpret_cast<Bits>(_mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(x)));
#elif defined(__AVX2__)
  const auto bits = reinterpret_cast<Bits>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(x)));
#else
  const Bits bits = __builtin_convertvector(x, Bits);
#endif
  return reinterpret_cast<Vec<float>>(bits << 16);
}
// Round to nearest, ties to even; NaN stays NaN. AVX-512's instruction takes numbers below 2^-126 for 0.
LONGLORA_INLINE Narrow narrow(const Vec<float>& x) {
#if defined(__AVX512BF16__)
  return reinterpret_cast<Narrow>(_mm512_cvtneps_pbh(x));
#else
  const Bits bits = reinterpret_cast<Bits>(x);
  const Bits rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
  const Bits upper = rounded | (reinterpret_cast<Bits>(x != x) & 0x7fc0U);
#if defined(__AVX2__)
  const __m256i all = reinterpret_cast<__m256i>(upper);
  return reinterpret_cast<Narrow>(_mm_packus_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1)));
#else
  return __builtin_convertvector(upper, Narrow);
#endif
#endif
}

// As many elements as sums fit a vector, from memory that is aligned to an element.
LONGLORA_INLINE Vec<double> load_lanes(const double* from) {
  return *reinterpret_cast<const Lanes<double>::Loose*>(from);
}
LONGLORA_INLINE Vec<float> load_lanes(const float* from) {
  return *reinterpret_cast<const Lanes<float>::Loose*>(from);
}
LONGLORA_INLINE Vec<float> load_lanes(const bf16* from) {
  return widen(*reinterpret_cast<const Narrow*>(from));
}
LONGLORA_INLINE void store_lanes(double* to, const Vec<double>& x) {
  *reinterpret_cast<Lanes<double>::Loose*>(to) = x;
}
LONGLORA_INLINE void store_lanes(float* to, const Vec<float>& x) {
  *reinterpret_cast<Lanes<float>::Loose*>(to) = x;
}
LONGLORA_INLINE void store_lanes(bf16* to, const Vec<float>& x) {
  *reinterpret_cast<Narrow*>(to) = narrow(x);
}

// x as the element type would hold it.
template <class T>
LONGLORA_INLINE Vec<sum_t<T>> rounded_lanes(const Vec<sum_t<T>>& x) {
  if constexpr (sizeof(T) == 2)
    return widen(narrow(x));
  else
    return x;
}

// A place in rows of elements: a whole vector from element `i`.
template <class S>
struct Whole {
  int64_t i;
  template <class T>
  LONGLORA_INLINE Vec<S> load(const T* row) const {
    return load_lanes(row + i);
  }
  template <class T>
  LONGLORA_INLINE void store(T* row, const Vec<S>& x) const {
    store_lanes(row + i, x);
  }
  LONGLORA_INLINE Vec<S> with_zeros(const Vec<S>& x) const { return x; }
};

// The last `count` elements of rows, from element `i`; the lanes beyond are read as 0.
template <class S>
struct Rest {
  int64_t i, count;
#if defined(__AVX512F__)
  // Half a vector, of heads of 48 numbers for instance, is read and written as such: reading what overlaps the range of a
  // masked store waits for the store, though the mask keeps them apart.
  static constexpr int64_t kHalf = Lanes<S>::kCount / 2;
  [[nodiscard]] LONGLORA_INLINE uint16_t mask() const {
    return static_cast<uint16_t>((1U << count) - 1);
  }

  LONGLORA_INLINE Vec<double> load(const double* row) const {
    return _mm512_maskz_loadu_pd(mask(), row + i);
  }
  LONGLORA_INLINE void store(double* row, const Vec<double>& x) const {
    _mm512_mask_storeu_pd(row + i, mask(), x);
  }
  LONGLORA_INLINE Vec<float> load(const float* row) const {
    if (count == kHalf) return _mm512_zextps256_ps512(_mm256_loadu_ps(row + i));
    return _mm512_maskz_loadu_ps(mask(), row + i);
  }
  LONGLORA_INLINE void store(float* row, const Vec<float>& x) const {
    if (count == kHalf)
      _mm256_storeu_ps(row + i, _mm512_castps512_ps256(x));
    else
      _mm512_mask_storeu_ps(row + i, mask(), x);
  }
  LONGLORA_INLINE Vec<float> load(const bf16* row) const {
    const auto* from = reinterpret_cast<const __m128i*>(row + i);
    if (count == kHalf) return widen(reinterpret_cast<Narrow>(_mm256_zextsi128_si256(_mm_loadu_si128(from))));
    return widen(reinterpret_cast<Narrow>(_mm256_maskz_loadu_epi16(mask(), from)));
  }
  LONGLORA_INLINE void store(bf16* row, const Vec<float>& x) const {
    const auto narrowed = reinterpret_cast<__m256i>(narrow(x));
    if (count == kHalf)
      _mm_storeu_si128(reinterpret_cast<__m128i*>(row + i), _mm256_castsi256_si128(narrowed));
    else
      _mm256_mask_storeu_epi16(row + i, mask(), narrowed);
  }
#else
  template <class T>
  LONGLORA_INLINE Vec<S> load(const T* row) const {
    T all[Lanes<S>::kCount] = {};
    for (int64_t l = 0; l < count; ++l) all[l] = row[i + l];
    return load_lanes(all);
  }
  template <class T>
  LONGLORA_INLINE void store(T* row, const Vec<S>& x) const {
    T all[Lanes<S>::kCount];
    store_lanes(all, x);
    for (int64_t l = 0; l < count; ++l) row[i + l] = all[l];
  }
#endif
  // 0 in the lanes beyond.
  LONGLORA_INLINE Vec<S> with_zeros(Vec<S> x) const {
    for (int l = 0; l < Lanes<S>::kCount; ++l) x[l] = l < count ? x[l] : S(0);
    return x;
  }
};

// body(at) for each vector of a row of n elements of T, `at` a Whole or at last a Rest.
template <class T, class Body>
LONGLORA_INLINE void each(int64_t n, Body&& body) {
  using S = sum_t<T>;
  constexpr int lanes = Lanes<S>::kCount;
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) body(Whole<S>{i});
  if (i < n) body(Rest<S>{i, n - i});
}

// The sum of a row of n elements of term(at). Two vectors of sums are under way at once.
template <class T, class Term>
LONGLORA_INLINE sum_t<T> sum(int64_t n, Term&& term) {
  using S = sum_t<T>;
  constexpr int lanes = Lanes<S>::kCount;
  Vec<S> total[2] = {};
  int64_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    total[0] += term(Whole<S>{i});
    total[1] += term(Whole<S>{i + lanes});
  }
  if (i + lanes <= n) {
    total[0] += term(Whole<S>{i});
    i += lanes;
  }
  if (i < n) {
    const Rest<S> rest = {i, n - i};
    total[1] += rest.with_zeros(term(rest));
  }
  const Vec<S> both = total[0] + total[1];
  S lane[lanes];
  store_lanes(lane, both);
  for (int half = lanes / 2; half > 0; half /= 2) {
    for (int l = 0; l < half; ++l) lane[l] += lane[l + half];
  }
  return lane[0];
}

// 2^x for x in [-126, 127]; 0 below, NaN stays NaN. Not 2^-126: a hidden pair's gradient would be a denormal number, and
// sums with those are ten times slower (measured: 13 GFLOP/s instead of 60 in segments of 64 tokens). The polynomial is the minimax fit of 2^r on
// [-1/2, 1/2]: relative error 2.6e-6 for degree 4, 1.9e-9 for degree 6.
template <int degree>
LONGLORA_INLINE Vec<float> exp2(Vec<float> x) {
  static_assert(degree == 4 || degree == 6);
  const Vec<float> lowest = all_lanes(-126.0f),
                   shift = all_lanes(12582912.0f);  // 1.5 * 2^23: rounds to an integer
  const auto none = x < lowest;
  x = larger<float>(x, lowest);
  const Vec<float> shifted = x + shift;
  const Vec<float> r = x - (shifted - shift);
  Vec<float> p;
  if constexpr (degree == 4) {
    p = 9.570101947e-03f * r + 5.591786159e-02f;
    p = p * r + 2.402474484e-01f;
    p = p * r + 6.931218146e-01f;
    p = p * r + 9.999992614e-01f;
  } else {
    p = 1.534581200e-04f * r + 1.339993136e-03f;
    p = p * r + 9.618488958e-03f;
    p = p * r + 5.550328777e-02f;
    p = p * r + 2.402264689e-01f;
    p = p * r + 6.931472057e-01f;
    p = p * r + 1.000000001f;
  }
  const Vec<float> power =
      reinterpret_cast<Vec<float>>(reinterpret_cast<Bits>(p) + (reinterpret_cast<Bits>(shifted) << 23));
  return none ? Vec<float>{} : power;
}
template <int>
inline Vec<double> exp2(Vec<double> x) {
  for (int i = 0; i < Lanes<double>::kCount; ++i) x[i] = __builtin_exp2(x[i]);
  return x;
}

// log2 of positive normal numbers: the exponent and a straight line, made exact by Newton steps on 2^y = x.
inline Vec<float> log2(const Vec<float>& x) {
  Vec<float> y = __builtin_convertvector(reinterpret_cast<Vec<int32_t>>(x) - 0x3f800000, Vec<float>) * 0x1p-23f;
  for (int step = 0; step < 3; ++step) y += (x * exp2<6>(-y) - 1.0f) * 1.44269504f;
  return y;
}
inline Vec<double> log2(Vec<double> x) {
  for (int i = 0; i < Lanes<double>::kCount; ++i) x[i] = __builtin_log2(x[i]);
  return x;
}

// e^x by 2^n * p(r), |r| <= ln 2 / 2, p of degree 6 (Cephes expf): about 1 ulp. Between -87.3 and 87.3, beyond that what it
// is there: e^x and its reciprocal are normal numbers.
LONGLORA_INLINE Vec<float> exponential(Vec<float> x) {
  const Vec<float> lowest = all_lanes(-87.3f), highest = all_lanes(87.3f), shift = all_lanes(12582912.0f);
  x = smaller<float>(larger<float>(x, lowest), highest);
  const Vec<float> shifted = x * 1.44269504f + shift;  // the nearest integer in its last bits
  const Vec<float> n = shifted - shift;
  const Vec<float> r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec<float> p = 1.9875691500e-4f * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * reinterpret_cast<Vec<float>>((reinterpret_cast<Bits>(shifted) << 23) + 0x3f800000U);
}
LONGLORA_INLINE Vec<double> exponential(Vec<double> x) {
  for (int i = 0; i < Lanes<double>::kCount; ++i) x[i] = __builtin_exp(x[i]);
  return x;
}

// 1 / x for 1 <= x: within 1 ulp, at a fifth of a division's time where there is an estimate to start from.
LONGLORA_INLINE Vec<float> reciprocal(const Vec<float>& x) {
#if defined(__AVX512F__)
  const Vec<float> estimate = _mm512_rcp14_ps(x);
  return estimate + estimate * (1.0f - x * estimate);
#else
  return 1.0f / x;
#endif
}
LONGLORA_INLINE Vec<double> reciprocal(const Vec<double>& x) {
  return 1.0 / x;
}

// 1 / (1 + e^-x); 0 where that is no normal number, so that x * sigmoid(x) is 0 for any finite x far below 0.
template <class S>
LONGLORA_INLINE Vec<S> sigmoid(const Vec<S>& x) {
  const Vec<S> inside = reciprocal(1 + exponential(-x));
  return x < all_lanes(S(-87.3)) ? Vec<S>{} : inside;
}

}  // namespace longlora::LONGLORA_CPU_NAMESPACE

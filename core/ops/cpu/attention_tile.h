// The pieces that CPU attention is made of: packed operands and the small matrix product that does the work.
//
// Operands are stored in "units" along the dimension that is summed over: a unit is one float or double, or,
// where the processor multiplies bfloat16 (AVX-512 BF16), a pair of bfloat16. A product C += A B reads A row
// by row, one unit broadcast to all lanes, and B as vectors of units: B[k / pair][columns].
#pragma once
#include "core/ops/cpu/vectors.h"

namespace longlora::LONGLORA_CPU_NAMESPACE {
namespace attention {

// A panel: the most vectors of columns that one product works on at once, such that its sums fit the registers.
constexpr int kPanel = kVectorBytes == 64 ? 4 : kVectorBytes == 32 ? 3 : 2;
constexpr int kDiagonalStep = kPanel > 2 ? 2 : kPanel;  // vectors of queries whose keys are counted apart
constexpr int kRowGroup = 8;                            // rows of A come in eights
constexpr int64_t kColumns = 64, kKeys = 64;            // a tile of scores: queries (columns) by keys (rows)

// How many of the `rows` keys from token `key` the queries [query, query + columns) see together; none where not above 0.
inline int64_t seen_keys(int64_t query, int64_t columns, int64_t key, int64_t rows) {
  const int64_t seen = query + columns - key;
  return seen < rows ? seen : rows;
}

// 1 in some bit when a > b in some lane.
template <class S>
LONGLORA_INLINE int exceeds(const Vec<S>& a, const Vec<S>& b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(S) == 4)
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ);
  else
    return _mm512_cmp_pd_mask(a, b, _CMP_GT_OQ);
#else
  const auto mask = a > b;
  int some = 0;
  for (int l = 0; l < Lanes<S>::kCount; ++l) some |= mask[l] != 0;
  return some;
#endif
}

// Puts kHidden where query - key < 0 or >= window. s[r][v]: key `key` + r and the lanes' queries from `query`
// + v * lanes.
constexpr double kHidden = -1e37;
template <class S, int rows, int n>
LONGLORA_INLINE void hide(Vec<S> (&s)[rows][n], int64_t query, int64_t key, int64_t window) {
  constexpr int lanes = Lanes<S>::kCount;
  const Vec<S> hidden = all_lanes(static_cast<S>(kHidden));
  Vec<S> lane;
  for (int l = 0; l < lanes; ++l) lane[l] = static_cast<S>(l);
  for (int v = 0; v < n; ++v) {
    const int64_t distance = query + v * lanes - key;
    const S first = static_cast<S>(-distance), beyond = window > 0 ? static_cast<S>(window - distance) : S(1e9);
    for (int r = 0; r < rows; ++r) {
      s[r][v] = lane < all_lanes(first + static_cast<S>(r)) ? hidden : s[r][v];
      s[r][v] = lane >= all_lanes(beyond + static_cast<S>(r)) ? hidden : s[r][v];
    }
  }
}

// Unit and S of an element type, and how sums become operands. Here: units are the type of the sums itself.
template <class T>
struct Operand {
  using S = sum_t<T>;
  using Unit = S;
  static constexpr int kPair = 1;
  static constexpr int kExpDegree = 6;

  static LONGLORA_INLINE Vec<S> multiply_add(const Vec<S>& c, Unit a, const Vec<Unit>& b) { return c + a * b; }
  // Two neighbouring rows into B[k / pair][columns].
  static LONGLORA_INLINE void store_rows(Unit* to, int64_t stride, const Vec<S>& row0, const Vec<S>& row1) {
    store_vector(to, row0);
    store_vector(to + stride, row1);
  }
  // Neighbouring columns of one row of A.
  static LONGLORA_INLINE void store_columns(Unit* to, const Vec<S>& x) { store_vector(to, x); }
  static LONGLORA_INLINE void load_row(Unit* to, const T* from, int64_t n) {
    each<T>(n, [=](auto at) { at.store(to, at.load(from)); });
  }
};

#if defined(__AVX512BF16__)
template <>
struct Operand<bf16> {
  using S = float;
  using Unit = uint32_t;
  static constexpr int kPair = 2;
  static constexpr int kExpDegree = 4;

  static LONGLORA_INLINE Vec<S> multiply_add(const Vec<S>& c, Unit a, const Vec<Unit>& b) {
    return _mm512_dpbf16_ps(c, reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(a))),
                            reinterpret_cast<__m512bh>(b));
  }
  static LONGLORA_INLINE void store_rows(Unit* to, int64_t, const Vec<S>& row0, const Vec<S>& row1) {
    alignas(64) static constexpr uint16_t kOrder[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512bh both = _mm512_cvtne2ps_pbh(row1, row0);
    _mm512_store_si512(to, _mm512_permutexvar_epi16(_mm512_load_si512(kOrder), reinterpret_cast<__m512i>(both)));
  }
  static LONGLORA_INLINE void store_columns(Unit* to, const Vec<S>& x) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)));
  }
  static LONGLORA_INLINE void load_row(Unit* to, const bf16* from, int64_t n) {
    constexpr int64_t kPiece = 16;
    int64_t i = 0;
    for (; i + kPiece <= n; i += kPiece) __builtin_memcpy(to + i / 2, from + i, kPiece * sizeof(bf16));
    if (i < n) __builtin_memcpy(to + i / 2, from + i, (n - i) * sizeof(bf16));
  }
};
#endif

// Calls body.template operator()<n>() for n in 1 ... kPanel.
template <class Body>
LONGLORA_INLINE void with_vectors(int64_t n, Body&& body) {
  switch (n) {
    case 1:
      return body.template operator()<1>();
    case 2:
      return body.template operator()<2>();
    case 3:
      if constexpr (kPanel >= 3) return body.template operator()<3>();
      break;
    case 4:
      if constexpr (kPanel >= 4) return body.template operator()<4>();
      break;
    default:
      break;
  }
}

// Rows of A that go together with `vectors` vectors of columns: 8 to 16 sums are under way at once, which
// hides the latency of the additions.
template <int vectors>
constexpr int kRows = vectors > kPanel / 2 ? 4 : 8;

// c[rows][vectors] += A B over k units. A: rows of stride lda, B: rows of stride ldb.
template <class T, int rows, int vectors>
LONGLORA_INLINE void multiply(Vec<typename Operand<T>::S> (&c)[rows][vectors], const typename Operand<T>::Unit* a,
                              int64_t lda, const typename Operand<T>::Unit* b, int64_t ldb, int64_t k) {
  using Unit = typename Operand<T>::Unit;
  constexpr int lanes = Lanes<Unit>::kCount;
  for (int64_t i = 0; i < k; ++i) {
    Vec<Unit> column[vectors];
    for (int v = 0; v < vectors; ++v) column[v] = load_vector(b + i * ldb + v * lanes);
    for (int r = 0; r < rows; ++r) {
      const Unit unit = a[r * lda + i];
      for (int v = 0; v < vectors; ++v) c[r][v] = Operand<T>::multiply_add(c[r][v], unit, column[v]);
    }
  }
}

// C += A B in memory. C: `rows` (a multiple of kRowGroup) by `vectors` vectors; k(row) tells where the sum
// over units begins for the group of rows from `row` (B's first rows are skipped where A is known to be
// zero).
template <class T, class First>
LONGLORA_INLINE void accumulate(typename Operand<T>::S* c, int64_t ldc, const typename Operand<T>::Unit* a, int64_t lda,
                                const typename Operand<T>::Unit* b, int64_t ldb, int64_t rows, int64_t vectors,
                                int64_t k, First&& first) {
  using S = typename Operand<T>::S;
  constexpr int lanes = Lanes<S>::kCount;
  for (int64_t from = 0; from < vectors; from += kPanel) {
    with_vectors(vectors - from < kPanel ? vectors - from : kPanel, [&]<int n>() {
      for (int64_t row = 0; row < rows; row += kRows<n>) {
        Vec<S> sum[kRows<n>][n];
        S* to = c + row * ldc + from * lanes;
        for (int r = 0; r < kRows<n>; ++r) {
          for (int v = 0; v < n; ++v) sum[r][v] = load_vector(to + r * ldc + v * lanes);
        }
        const int64_t skip = first(row);
        multiply<T, kRows<n>, n>(sum, a + row * lda + skip, lda, b + skip * ldb + from * lanes, ldb, k - skip);
        for (int r = 0; r < kRows<n>; ++r) {
          for (int v = 0; v < n; ++v) store_vector(to + r * ldc + v * lanes, sum[r][v]);
        }
      }
    });
  }
}

template <int bytes>
struct Integer {
  using type = int32_t;
};
template <>
struct Integer<8> {
  using type = int64_t;
};

// One step of turning a square of lanes: blocks of `step` lanes change places between the rows i and i +
// step.
template <class U, int step>
struct Exchange {
  static constexpr int kLanes = Lanes<U>::kCount;
  using Index = Vec<typename Integer<sizeof(U)>::type>;
  static constexpr Index order(bool upper) {
    Index index{};
    for (int l = 0; l < kLanes; ++l) {
      const bool high = (l & step) != 0;
      index[l] = upper ? (high ? kLanes + l : l + step) : (high ? kLanes + l - step : l);
    }
    return index;
  }
  static LONGLORA_INLINE void run(Vec<U> (&row)[kLanes]) {
    const Index low = order(false), high = order(true);
    for (int i = 0; i < kLanes; ++i) {
      if ((i & step) != 0) continue;
      const Vec<U> a = row[i], b = row[i + step];
      row[i] = __builtin_shuffle(a, b, low);
      row[i + step] = __builtin_shuffle(a, b, high);
    }
    if constexpr (step * 2 < kLanes) Exchange<U, step * 2>::run(row);
  }
};

// to[j][i] = from[i][j]; both multiples of the lanes.
template <class U>
void transpose(U* to, int64_t to_stride, const U* from, int64_t from_stride, int64_t rows, int64_t columns) {
  constexpr int lanes = Lanes<U>::kCount;
  for (int64_t i = 0; i < rows; i += lanes) {
    for (int64_t j = 0; j < columns; j += lanes) {
      Vec<U> square[lanes];
      for (int r = 0; r < lanes; ++r) square[r] = load_vector(from + (i + r) * from_stride + j);
      Exchange<U, 1>::run(square);
      for (int r = 0; r < lanes; ++r) store_vector(to + (j + r) * to_stride + i, square[r]);
    }
  }
}

// One head's rows in the caller's memory.
template <class T>
struct HeadRows {
  T* data;
  int64_t stride;
  T* operator[](int64_t token) const { return data + token * stride; }
};
template <class T>
HeadRows<T> head_rows(const cpu::HeadMatrix& x, int64_t head) {
  return {static_cast<T*>(x.data) + head * x.head_stride, x.token_stride};
}

inline int64_t round_up(int64_t n, int64_t to) {
  return (n + to - 1) / to * to;
}

// How the D numbers of a head lie in packed form.
template <class T>
struct Shape {
  static constexpr int kPair = Operand<T>::kPair, kLanes = Lanes<typename Operand<T>::S>::kCount;
  int64_t d;
  int64_t depth = (d + kPair - 1) / kPair;                              // units to sum over
  int64_t units = round_up(depth, kLanes);                              // stride of packed rows
  int64_t wide = round_up(d, kLanes > kRowGroup ? kLanes : kRowGroup);  // D in whole vectors and row groups
  int64_t vectors = wide / kLanes;
};

// Packs up to 64 tokens of a head into the forms that products want; what lies outside the tokens or beyond
// the head's D numbers is zero.
template <class T>
struct Pack {
  using Unit = typename Operand<T>::Unit;
  static constexpr int kPair = Operand<T>::kPair;
  static constexpr int64_t kTokens = 64;

  // [64][units]: A, summed over D.
  static void rows(Unit* to, const HeadRows<T>& from, int64_t token, int64_t count, const Shape<T>& shape) {
    for (int64_t t = 0; t < kTokens; ++t) {
      Unit* row = to + t * shape.units;
      if (t >= count || shape.d != shape.units * kPair) __builtin_memset(row, 0, shape.units * sizeof(Unit));
      if (t < count) Operand<T>::load_row(row, from[token + t], shape.d);
    }
  }
  // [units][64]: B, summed over D; from rows().
  static void columns(Unit* to, const Unit* rows, const Shape<T>& shape) {
    transpose(to, kTokens, rows, shape.units, kTokens, shape.units);
  }
  // [64 / pair][units * pair]: B, summed over tokens; from rows().
  static void pairs(Unit* to, const Unit* rows, const Shape<T>& shape) {
    if constexpr (kPair == 1) {
      __builtin_memcpy(to, rows, kTokens * shape.units * sizeof(Unit));
    } else {
      for (int64_t t = 0; t < kTokens / 2; ++t) {
        const Unit *even = rows + 2 * t * shape.units, *odd = even + shape.units;
        Unit* row = to + t * 2 * shape.units;
        for (int64_t u = 0; u < shape.units; ++u) {
          row[2 * u] = (even[u] & 0xffffU) | (odd[u] << 16);
          row[2 * u + 1] = (even[u] >> 16) | (odd[u] & 0xffff0000U);
        }
      }
    }
  }
  // [units * pair][64 / pair]: A, summed over tokens; from pairs().
  static void turned(Unit* to, const Unit* pairs, const Shape<T>& shape) {
    transpose(to, kTokens / kPair, pairs, shape.units * kPair, kTokens / kPair, shape.units * kPair);
  }
};

// Hands out pieces of the caller's scratch memory, or only counts them when there is none.
class Scratch {
 public:
  explicit Scratch(void* memory) : at_(static_cast<char*>(memory)) {}
  template <class U>
  U* take(int64_t count) {
    const int64_t bytes = round_up(count * static_cast<int64_t>(sizeof(U)), 64);
    U* piece = reinterpret_cast<U*>(at_);
    if (at_ != nullptr) at_ += bytes;
    used_ += bytes;
    return piece;
  }
  [[nodiscard]] int64_t used() const { return used_; }

 private:
  char* at_;
  int64_t used_ = 0;
};

}  // namespace attention
}  // namespace longlora::LONGLORA_CPU_NAMESPACE

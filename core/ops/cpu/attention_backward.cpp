// Attention, backward, for the query heads of one KV head inside one segment (arXiv 2307.08691, algorithm 2):
//
//   P = exp(S - lse),  dV += P^T dO,  dP = dO V^T,  dS = P (dP - delta),  delta = rowsum(dO o out)
//   dQ = dS K * scale,  dK += dS^T Q * scale
//
// As in the forward pass scores are worked out turned, S^T = K Q^T and dP^T = V dO^T, so that lse and delta
// of a query are lanes of a vector, and P^T and dS^T are in the form that the products for dV and dK read. dQ
// is summed turned too. All sums over a segment stay in float32 (float64) scratch; one task owns dK and dV,
// so nothing depends on threads.
#include "core/ops/cpu/amx.h"
#include "core/ops/cpu/attention.h"
#include "core/ops/cpu/attention_tile.h"

namespace longlora::LONGLORA_CPU_NAMESPACE {
namespace attention {
namespace {

constexpr int64_t kSpan = 512;  // keys whose packed forms and sums are in use at once

template <class T>
class Backward {
  using Op = Operand<T>;
  using S = typename Op::S;
  using Unit = typename Op::Unit;
  static constexpr int kPair = Op::kPair, kLanes = Lanes<S>::kCount;

 public:
  Backward(const cpu::AttentionBackward& a, int64_t longest, Scratch scratch)
      : a_(a), shape_{a.forward.head_dim}, packed_(kKeys * shape_.units) {
    const int64_t tokens = round_up(longest, kKeys);
    const int64_t span = tokens < kSpan ? tokens : kSpan;
    rows_ = scratch.take<Unit>(packed_);
    pairs_ = scratch.take<Unit>(packed_);
    q_columns_ = scratch.take<Unit>(packed_);
    q_pairs_ = scratch.take<Unit>(packed_);
    dout_columns_ = scratch.take<Unit>(packed_);
    dout_pairs_ = scratch.take<Unit>(packed_);
    k_ = scratch.take<Unit>(span * shape_.units);
    v_ = scratch.take<Unit>(span * shape_.units);
    k_turned_ = scratch.take<Unit>(span * shape_.units);
    p_ = scratch.take<Unit>(kKeys * kColumns / kPair);
    ds_ = scratch.take<Unit>(kKeys * kColumns / kPair);
    ds_rows_ = scratch.take<Unit>(kKeys * kColumns / kPair);
    lse_ = scratch.take<S>(kColumns);
    delta_ = scratch.take<S>(kColumns);
    turned_ = scratch.take<S>(kColumns * shape_.wide);
    dq_ = scratch.take<S>(tokens * shape_.wide);
    dk_ = scratch.take<S>(tokens * shape_.wide);
    dv_ = scratch.take<S>(tokens * shape_.wide);
    if constexpr (Tiles<T>::kUsed) {
      s_ = scratch.take<S>(kKeys * kColumns);
      dp_ = scratch.take<S>(kKeys * kColumns);
    }
    used_ = scratch.used();
  }
  [[nodiscard]] int64_t used() const { return used_; }

  void run(const cpu::AttentionTask& task) {
    const int64_t tokens = task.end - task.begin, window = a_.forward.window;
    const int64_t kv = task.head / a_.forward.ratio;
    [[maybe_unused]] const typename Tiles<T>::InUse tiles;
    const int64_t bytes = round_up(tokens, kKeys) * shape_.wide * static_cast<int64_t>(sizeof(S));
    __builtin_memset(dk_, 0, bytes);
    __builtin_memset(dv_, 0, bytes);
    for (int64_t head = task.head; head < task.head + task.heads; ++head) {
      __builtin_memset(dq_, 0, bytes);
      for (int64_t span = task.begin; span < task.end; span += kSpan) {
        const int64_t end = span + kSpan < task.end ? span + kSpan : task.end;
        pack_keys(kv, span, end);
        for (query_ = span; query_ < task.end; query_ += kColumns) {
          if (window > 0 && query_ - (end - 1) >= window) break;
          query_end_ = query_ + kColumns < task.end ? query_ + kColumns : task.end;
          pack_queries(head);
          const int64_t stop = end < query_end_ ? end : query_end_;
          for (int64_t key = span; key < stop; key += kKeys) {
            if (window > 0 && query_ - (key + kKeys - 1) >= window) continue;
            do_tile(task.begin, key, (key - span) / kKeys, stop - key < kKeys ? stop - key : kKeys);
          }
        }
      }
      write_turned(task, head_rows<T>(a_.dq, head));
    }
    write(task, head_rows<T>(a_.dk, kv), dk_, static_cast<S>(a_.forward.scale));
    write(task, head_rows<T>(a_.dv, kv), dv_, S(1));
  }

 private:
  void pack_keys(int64_t kv, int64_t from, int64_t end) {
    const HeadRows<T> k = head_rows<T>(a_.forward.k, kv), v = head_rows<T>(a_.forward.v, kv);
    for (int64_t at = from, offset = 0; at < end; at += kKeys, offset += packed_) {
      const int64_t count = end - at < kKeys ? end - at : kKeys;
      Pack<T>::rows(k_ + offset, k, at, count, shape_);
      Pack<T>::rows(v_ + offset, v, at, count, shape_);
      Pack<T>::pairs(pairs_, k_ + offset, shape_);
      Pack<T>::turned(k_turned_ + offset, pairs_, shape_);
    }
  }

  void pack_queries(int64_t head) {
    const int64_t count = query_end_ - query_;
    vectors_ = (count + kLanes - 1) / kLanes;
    const HeadRows<T> dout = head_rows<T>(a_.dout, head), out = head_rows<T>(a_.forward.out, head);
    Pack<T>::rows(rows_, head_rows<T>(a_.forward.q, head), query_, count, shape_);
    Pack<T>::columns(q_columns_, rows_, shape_);
    Pack<T>::pairs(q_pairs_, rows_, shape_);
    Pack<T>::rows(rows_, dout, query_, count, shape_);
    Pack<T>::columns(dout_columns_, rows_, shape_);
    Pack<T>::pairs(dout_pairs_, rows_, shape_);
    const S* lse = static_cast<const S*>(a_.forward.lse) + head * a_.forward.lse_stride;
    for (int64_t t = 0; t < kColumns; ++t) {
      lse_[t] = t < count ? lse[query_ + t] * static_cast<S>(1.4426950408889634) : S(0);
      const T *x = dout[query_ + t], *y = out[query_ + t];
      delta_[t] = t < count ? sum<T>(shape_.d, [=](auto at) { return at.load(x) * at.load(y); }) : S(0);
    }
  }

  // The current queries against `keys` keys from token `key`, which lie packed as tile `tile`.
  void do_tile(int64_t begin, int64_t key, int64_t tile, int64_t keys) {
    const int64_t rows = round_up(keys, kRowGroup);
    const bool diagonal = key + rows - 1 > query_;  // rows beyond the last key count as later ones
    const bool masked = diagonal || (a_.forward.window > 0 && query_end_ - 1 - key >= a_.forward.window);
    if constexpr (Tiles<T>::kUsed)
      masked ? in_tiles<true>(begin, key, tile, rows) : in_tiles<false>(begin, key, tile, rows);
    else
      in_registers(begin, key, tile, rows, diagonal, masked);
  }

  void in_registers(int64_t begin, int64_t key, int64_t tile, int64_t rows, bool diagonal, bool masked) {
    const auto seen_by_none = [&](int64_t row) {  // vectors of queries that lie before the keys from `row`
      return key + row > query_ ? (key + row - query_) / kLanes : 0;
    };
    if (diagonal) __builtin_memset(ds_rows_, 0, kKeys * kColumns / kPair * sizeof(Unit));
    for (int64_t row = 0; row < rows; row += kRowGroup) {
      for (int64_t v = seen_by_none(row), to; v < vectors_; v = to) {
        to = (v / kPanel + 1) * kPanel < vectors_ ? (v / kPanel + 1) * kPanel : vectors_;
        with_vectors(to - v, [&]<int n>() {
          for (int64_t r = row; r < row + kRowGroup; r += kRows<n>) {
            if (masked)
              gradients<kRows<n>, n, true>(tile, key, r, v);
            else
              gradients<kRows<n>, n, false>(tile, key, r, v);
          }
        });
      }
    }
    const int64_t depth = vectors_ * kLanes / kPair, stride = kColumns / kPair;
    const auto skip = [&](int64_t row) {
      const int64_t none = seen_by_none(row / kRowGroup * kRowGroup) * kLanes / kPair;
      return none < depth ? none : depth;
    };
    const int64_t at = (key - begin) * shape_.wide;
    accumulate<T>(dv_ + at, shape_.wide, p_, stride, dout_pairs_, shape_.units * kPair, rows, shape_.vectors, depth,
                  skip);
    accumulate<T>(dk_ + at, shape_.wide, ds_, stride, q_pairs_, shape_.units * kPair, rows, shape_.vectors, depth,
                  skip);
    const int64_t step = diagonal ? kDiagonalStep : vectors_;
    for (int64_t v = 0; v < vectors_; v += step) {
      const int64_t count = v + step < vectors_ ? step : vectors_ - v;
      const int64_t end = seen_keys(query_, (v + count) * kLanes, key, rows);
      if (end <= 0) continue;
      accumulate<T>(dq_ + (query_ - begin) * shape_.wide + v * kLanes, kColumns, k_turned_ + tile * packed_,
                    kKeys / kPair, ds_rows_ + v * kLanes, kColumns, shape_.wide, count, (end + kPair - 1) / kPair,
                    [](int64_t) { return 0; });
    }
  }

  // A tile of `rows` keys with AMX.
  template <bool masked>
  void in_tiles(int64_t begin, int64_t key, int64_t tile, int64_t rows) {
    const auto seen = [&](int64_t count) { return seen_keys(query_, count, key, rows); };
    if (masked || rows < kKeys || vectors_ * kLanes < kColumns) {
      __builtin_memset(p_, 0, kKeys * kColumns / kPair * sizeof(Unit));
      __builtin_memset(ds_, 0, kKeys * kColumns / kPair * sizeof(Unit));
      __builtin_memset(ds_rows_, 0, kKeys * kColumns / kPair * sizeof(Unit));
    }
    using Range = typename Tiles<T>::Range;
    const int64_t columns = vectors_ * kLanes, whole = round_up(rows, kLanes), stride = kColumns / kPair;
    const auto scores = [&](int64_t row, int64_t end) { return Range{0, row < seen(end) ? shape_.units : 0}; };
    Tiles<T>::template multiply<false>(s_, kColumns, k_ + tile * packed_, shape_.units, q_columns_, kColumns, whole,
                                       columns, scores);
    Tiles<T>::template multiply<false>(dp_, kColumns, v_ + tile * packed_, shape_.units, dout_columns_, kColumns, whole,
                                       columns, scores);
    for (int64_t v = 0; v < vectors_; ++v) {
      for (int64_t row = 0; row < seen((v + 1) * kLanes); row += kRowGroup) {
        Vec<S> p[kRowGroup][1], dp[kRowGroup][1];
        for (int r = 0; r < kRowGroup; ++r) {
          p[r][0] = load_vector(s_ + (row + r) * kColumns + v * kLanes);
          dp[r][0] = load_vector(dp_ + (row + r) * kColumns + v * kLanes);
        }
        probabilities<kRowGroup, 1, masked>(p, key, row, v * kLanes);
        score_gradients<kRowGroup, 1>(p, dp, row, v * kLanes);
      }
    }
    const auto queries = [&](int64_t row, int64_t) {  // pairs of those that see the keys from `row`
      const int64_t none = key + row > query_ ? key + row - query_ : 0;
      return Range{none / (kPair * kLanes) * kLanes, round_up(columns, kPair * kLanes) / kPair};
    };
    const auto keys = [&](int64_t, int64_t end) { return Range{0, round_up(seen(end), kPair * kLanes) / kPair}; };
    const int64_t at = (key - begin) * shape_.wide;
    Tiles<T>::template multiply<true>(dv_ + at, shape_.wide, p_, stride, dout_pairs_, shape_.units * kPair, whole,
                                      shape_.wide, queries);
    Tiles<T>::template multiply<true>(dk_ + at, shape_.wide, ds_, stride, q_pairs_, shape_.units * kPair, whole,
                                      shape_.wide, queries);
    Tiles<T>::template multiply<true>(dq_ + (query_ - begin) * shape_.wide, kColumns, k_turned_ + tile * packed_,
                                      kKeys / kPair, ds_rows_, kColumns, shape_.wide, columns, keys);
  }

  // P^T and dS^T of rows [row, row + rows) of the tile for n vectors of queries from vector `first`.
  template <int rows, int n, bool masked>
  void gradients(int64_t tile, int64_t key, int64_t row, int64_t first) {
    const int64_t column = first * kLanes;
    Vec<S> p[rows][n] = {};
    multiply<T, rows, n>(p, k_ + tile * packed_ + row * shape_.units, shape_.units, q_columns_ + column, kColumns,
                         shape_.depth);
    probabilities<rows, n, masked>(p, key, row, column);
    Vec<S> dp[rows][n] = {};
    multiply<T, rows, n>(dp, v_ + tile * packed_ + row * shape_.units, shape_.units, dout_columns_ + column, kColumns,
                         shape_.depth);
    score_gradients<rows, n>(p, dp, row, column);
  }

  // From scores to probabilities, also into p_.
  template <int rows, int n, bool masked>
  LONGLORA_INLINE void probabilities(Vec<S> (&p)[rows][n], int64_t key, int64_t row, int64_t column) {
    if constexpr (masked) hide<S>(p, query_ + column, key + row, a_.forward.window);
    const S scale = static_cast<S>(a_.forward.scale * 1.4426950408889634);
    for (int v = 0; v < n; ++v) {
      const Vec<S> lse = load_vector(lse_ + column + v * kLanes);
      for (int r = 0; r < rows; ++r) {
        p[r][v] = exp2<Op::kExpDegree>(p[r][v] * scale - lse);
        Op::store_columns(p_ + ((row + r) * kColumns + column + v * kLanes) / kPair, p[r][v]);
      }
    }
  }

  // dS = P (dP - delta) into ds_ and ds_rows_.
  template <int rows, int n>
  LONGLORA_INLINE void score_gradients(const Vec<S> (&p)[rows][n], const Vec<S> (&dp)[rows][n], int64_t row,
                                       int64_t column) {
    for (int v = 0; v < n; ++v) {
      const Vec<S> delta = load_vector(delta_ + column + v * kLanes);
      for (int r = 0; r < rows; r += 2) {
        const Vec<S> even = p[r][v] * (dp[r][v] - delta), odd = p[r + 1][v] * (dp[r + 1][v] - delta);
        Unit* to = ds_ + ((row + r) * kColumns + column + v * kLanes) / kPair;
        Op::store_columns(to, even);
        Op::store_columns(to + kColumns / kPair, odd);
        Op::store_rows(ds_rows_ + (row + r) / kPair * kColumns + column + v * kLanes, kColumns, even, odd);
      }
    }
  }

  void write(const cpu::AttentionTask& task, const HeadRows<T>& to, const S* from, S scale) const {
    for (int64_t t = task.begin; t < task.end; ++t, from += shape_.wide) {
      T* row = to[t];
      each<T>(shape_.d, [=](auto at) { at.store(row, at.load(from) * scale); });
    }
  }

  void write_turned(const cpu::AttentionTask& task, const HeadRows<T>& to) {
    for (int64_t at = task.begin; at < task.end; at += kColumns) {
      transpose(turned_, shape_.wide, dq_ + (at - task.begin) * shape_.wide, kColumns, shape_.wide, kColumns);
      const int64_t end = at + kColumns < task.end ? at + kColumns : task.end;
      write({at, end, 0, 0, 0, 0}, to, turned_, static_cast<S>(a_.forward.scale));
    }
  }

  const cpu::AttentionBackward& a_;
  const Shape<T> shape_;
  const int64_t packed_;        // units of one packed tile
  Unit *rows_, *pairs_;         // one tile on its way to another form
  Unit *q_columns_, *q_pairs_;  // the current queries: Q^T [units][64], Q [64 / pair][D]
  Unit *dout_columns_, *dout_pairs_;
  Unit *k_, *v_, *k_turned_;        // the current span: K, V [tiles][64][units], K^T [tiles][D][64 / pair]
  S *s_ = nullptr, *dp_ = nullptr;  // one tile, with AMX: S^T, dP^T [64][64]
  Unit *p_, *ds_, *ds_rows_;        // one tile: P^T, dS^T [64][64 / pair], dS^T [64 / pair][64]
  S *lse_, *delta_;                 // [64] of the current queries; lse in powers of two
  S* turned_;
  S *dq_, *dk_, *dv_;  // sums of the segment: [blocks][D][64], [tokens][D] twice
  int64_t used_;

  int64_t query_ = 0, query_end_ = 0, vectors_ = 0;  // the current queries
};

}  // namespace
}  // namespace attention

void attention_backward(cpu::Element element, const cpu::AttentionBackward& a, const cpu::AttentionTask& task,
                        void* scratch) {
  with_element(element, [&]<class T>() {
    attention::Backward<T>(a, task.end - task.begin, attention::Scratch(scratch)).run(task);
  });
}

int64_t attention_backward_scratch(cpu::Element element, int64_t head_dim, int64_t longest_segment) {
  int64_t bytes = 0;
  const cpu::AttentionBackward shape = {{{}, {}, {}, {}, nullptr, 0, head_dim, 1, 0, 1}, {}, {}, {}, {}};
  with_element(element, [&]<class T>() {
    bytes = attention::Backward<T>(shape, longest_segment, attention::Scratch(nullptr)).used();
  });
  return bytes;
}

}  // namespace longlora::LONGLORA_CPU_NAMESPACE

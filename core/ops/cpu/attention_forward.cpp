// Attention, forward: out = softmax(q k^T * scale) v inside one segment, keys never ahead of queries.
//
// Scores are worked out turned, S^T = K Q^T, so that a query is a lane of a vector: maxima, sums and
// rescaling of a query need no work across lanes, and the probabilities leave the registers in the form that
// O^T += V^T P^T reads. Scores never reach memory, except with AMX, whose tiles are read from memory only. The running
// maximum of a query is only raised when a score exceeds it by 2^kSlack: until then the probabilities are merely larger than
// 1, which costs no precision in floating point.
#include "core/ops/cpu/amx.h"
#include "core/ops/cpu/attention.h"
#include "core/ops/cpu/attention_tile.h"

namespace longlora::LONGLORA_CPU_NAMESPACE {
namespace attention {
namespace {

constexpr int64_t kSpan = 512;  // keys that are packed at once
constexpr int64_t kBlocks = cpu::kAttentionQueries / kColumns;
constexpr double kSlack = 40;
constexpr double kNothing = -1e30;  // the maximum before any score; one that is hidden lies far below

template <class T>
class Forward {
  using Op = Operand<T>;
  using S = typename Op::S;
  using Unit = typename Op::Unit;
  static constexpr int kPair = Op::kPair, kLanes = Lanes<S>::kCount;

 public:
  Forward(const cpu::Attention& a, Scratch scratch) : a_(a), shape_{a.head_dim} {
    rows_ = scratch.take<Unit>(kColumns * shape_.units);
    pairs_ = scratch.take<Unit>(kColumns * shape_.units);
    q_ = scratch.take<Unit>(kBlocks * kColumns * shape_.units);
    k_ = scratch.take<Unit>(kSpan * shape_.units);
    v_ = scratch.take<Unit>(kSpan * shape_.units);
    p_ = scratch.take<Unit>(kKeys / kPair * kColumns);
    o_ = scratch.take<S>(kBlocks * kColumns * shape_.wide);
    top_ = scratch.take<S>(kBlocks * kColumns);
    sum_ = scratch.take<S>(kBlocks * kColumns);
    turned_ = scratch.take<S>(kColumns * shape_.wide);
    if constexpr (Tiles<T>::kUsed) s_ = scratch.take<S>(kKeys * kColumns);
    used_ = scratch.used();
  }
  [[nodiscard]] int64_t used() const { return used_; }

  void run(const cpu::AttentionTask& task) {
    const int64_t kv = task.head / a_.ratio;
    const int64_t blocks = (task.to - task.from + kColumns - 1) / kColumns;
    [[maybe_unused]] const typename Tiles<T>::InUse tiles;
    start(task, blocks);
    int64_t key = task.begin;
    if (a_.window > 0 && task.from - a_.window + 1 > key) key = task.from - a_.window + 1;
    for (; key < task.to; key += kSpan) {
      const int64_t end = key + kSpan < task.to ? key + kSpan : task.to;
      pack_keys(kv, key, end);
      for (int64_t b = 0; b < blocks; ++b) {
        select(task, b);
        const int64_t stop = end < query_end_ ? end : query_end_;
        for (int64_t tile = key; tile < stop; tile += kKeys) {
          if (a_.window > 0 && query_ - (tile + kKeys - 1) >= a_.window) continue;
          do_tile(tile, (tile - key) / kKeys, stop - tile < kKeys ? stop - tile : kKeys);
        }
      }
    }
    for (int64_t b = 0; b < blocks; ++b) {
      select(task, b);
      write(task.head);
    }
  }

 private:
  void start(const cpu::AttentionTask& task, int64_t blocks) {
    const HeadRows<T> q = head_rows<T>(a_.q, task.head);
    for (int64_t b = 0; b < blocks; ++b) {
      select(task, b);
      Pack<T>::rows(rows_, q, query_, query_end_ - query_, shape_);
      Pack<T>::columns(q_block(), rows_, shape_);
    }
    for (int64_t i = 0; i < blocks * kColumns; ++i) {
      top_[i] = static_cast<S>(kNothing);
      sum_[i] = 0;
    }
    __builtin_memset(o_, 0, blocks * kColumns * shape_.wide * sizeof(S));
  }

  // Makes the task's block b of queries the current one.
  void select(const cpu::AttentionTask& task, int64_t b) {
    block_ = b;
    query_ = task.from + b * kColumns;
    query_end_ = query_ + kColumns < task.to ? query_ + kColumns : task.to;
    vectors_ = (query_end_ - query_ + kLanes - 1) / kLanes;
  }
  Unit* q_block() { return q_ + block_ * kColumns * shape_.units; }
  S* o_block() { return o_ + block_ * kColumns * shape_.wide; }

  void pack_keys(int64_t kv, int64_t from, int64_t end) {
    const HeadRows<T> k = head_rows<T>(a_.k, kv), v = head_rows<T>(a_.v, kv);
    for (int64_t at = from, tile = 0; at < end; at += kKeys, ++tile) {
      const int64_t count = end - at < kKeys ? end - at : kKeys;
      Pack<T>::rows(k_ + tile * kKeys * shape_.units, k, at, count, shape_);
      Pack<T>::rows(rows_, v, at, count, shape_);
      Pack<T>::pairs(pairs_, rows_, shape_);
      Pack<T>::turned(v_ + tile * kKeys * shape_.units, pairs_, shape_);
    }
  }

  // The current queries against `keys` keys from token `key`, which lie packed as tile `tile`.
  void do_tile(int64_t key, int64_t tile, int64_t keys) {
    k_tile_ = k_ + tile * kKeys * shape_.units;
    v_tile_ = v_ + tile * kKeys * shape_.units;
    key_ = key;
    diagonal_ = key + round_up(keys, kRowGroup) - 1 > query_;  // rows beyond the last key count as later ones
    const bool masked = diagonal_ || (a_.window > 0 && query_end_ - 1 - key >= a_.window);
    if constexpr (Tiles<T>::kUsed)
      masked ? in_tiles<true>(keys) : in_tiles<false>(keys);
    else
      in_registers(keys, masked);
  }

  void in_registers(int64_t keys, bool masked) {
    if (diagonal_) __builtin_memset(p_, 0, kKeys / kPair * kColumns * sizeof(Unit));
    for (int64_t first = 0; first < vectors_; first += kPanel) {
      const int64_t last = first + kPanel < vectors_ ? first + kPanel : vectors_;
      done_ = 0;
      for (int64_t row = 0; row < keys; row += kRowGroup) {
        const int64_t ahead = key_ + row > query_ ? (key_ + row - query_) / kLanes : 0;  // these see none of the keys
        const int64_t from = ahead > first ? ahead : first;
        if (from >= last) break;
        with_vectors(last - from, [&]<int n>() {
          for (int64_t r = row; r < row + kRowGroup; r += kRows<n>) {
            if (masked)
              scores<kRows<n>, n, true>(r, from, first);
            else
              scores<kRows<n>, n, false>(r, from, first);
          }
        });
      }
      add_values(first, round_up(keys, kRowGroup));
    }
  }

  // A tile of keys with AMX: all scores, all probabilities, all of O.
  template <bool masked>
  void in_tiles(int64_t keys) {
    const int64_t rows = round_up(keys, kRowGroup);
    const auto seen = [&](int64_t columns) { return seen_keys(query_, columns, key_, rows); };
    if (masked || keys < kKeys) __builtin_memset(p_, 0, kKeys / kPair * kColumns * sizeof(Unit));
    using Range = typename Tiles<T>::Range;
    Tiles<T>::template multiply<false>(s_, kColumns, k_tile_, shape_.units, q_block(), kColumns, round_up(rows, kLanes),
                                       vectors_ * kLanes, [&](int64_t row, int64_t end) {
                                         return Range{0, row < seen(end) ? shape_.units : 0};
                                       });
    for (int64_t v = 0; v < vectors_; ++v) {
      const int64_t count = seen((v + 1) * kLanes);
      if (count > 0) probabilities<masked>(v, round_up(count, kRowGroup));
    }
    Tiles<T>::template multiply<true>(o_block(), kColumns, v_tile_, kKeys / kPair, p_, kColumns, shape_.wide,
                                      vectors_ * kLanes, [&](int64_t, int64_t end) {
                                        return Range{0, round_up(seen(end), kPair * kLanes) / kPair};
                                      });
  }

  // From the scores s_ of vector `v` of queries with the tile's first `rows` keys into p_.
  template <bool masked>
  void probabilities(int64_t v, int64_t rows) {
    S *s = s_ + v * kLanes, *sum = sum_ + block_ * kColumns + v * kLanes;
    const S scale = static_cast<S>(a_.scale * 1.4426950408889634);
    Vec<S> best[kRowGroup];
    for (int r = 0; r < kRowGroup; ++r) best[r] = all_lanes(static_cast<S>(kHidden));
    for (int64_t row = 0; row < rows; row += kRowGroup) {
      Vec<S> group[kRowGroup][1];
      for (int r = 0; r < kRowGroup; ++r) group[r][0] = load_vector(s + (row + r) * kColumns);
      if constexpr (masked) {
        hide<S>(group, query_ + v * kLanes, key_ + row, a_.window);
        for (int r = 0; r < kRowGroup; ++r) store_vector(s + (row + r) * kColumns, group[r][0]);
      }
      for (int r = 0; r < kRowGroup; ++r) best[r] = larger<S>(best[r], group[r][0]);
    }
    for (int r = 1; r < kRowGroup; ++r) best[0] = larger<S>(best[0], best[r]);
    best[0] *= scale;
    const S* top = top_ + block_ * kColumns + v * kLanes;
    if (exceeds<S>(best[0], load_vector(top) + static_cast<S>(kSlack))) raise_top(v, best[0]);
    const Vec<S> base = load_vector(top);
    Vec<S> total[2] = {load_vector(sum), {}};
    for (int64_t row = 0; row < rows; row += kRowGroup) {
      for (int r = 0; r < kRowGroup; r += 2) {
        const Vec<S> even = exp2<Op::kExpDegree>(load_vector(s + (row + r) * kColumns) * scale - base);
        const Vec<S> odd = exp2<Op::kExpDegree>(load_vector(s + (row + r + 1) * kColumns) * scale - base);
        total[0] += even;
        total[1] += odd;
        Op::store_rows(p_ + (row + r) / kPair * kColumns + v * kLanes, kColumns, even, odd);
      }
    }
    store_vector(sum, total[0] + total[1]);
  }

  // Probabilities of rows [row, row + rows) of the tile for n vectors of queries from vector `first`, into p_. A function
  // of its own: inlined into the loops around it, GCC 12 keeps the sums in memory (AVX2 in bfloat16: 88 GFLOP/s, not 124).
  template <int rows, int n, bool masked>
  __attribute__((noinline)) void scores(int64_t row, int64_t first, int64_t panel) {
    Vec<S> s[rows][n] = {};
    multiply<T, rows, n>(s, k_tile_ + row * shape_.units, shape_.units, q_block() + first * kLanes, kColumns,
                         shape_.depth);
    if constexpr (masked) hide<S>(s, query_ + first * kLanes, key_ + row, a_.window);
    const S scale = static_cast<S>(a_.scale * 1.4426950408889634);  // exponentials are powers of two
    S* top = top_ + block_ * kColumns + first * kLanes;
    S* sum = sum_ + block_ * kColumns + first * kLanes;
    Vec<S> best[n];
    int raise = 0;
    for (int v = 0; v < n; ++v) {
      best[v] = s[0][v];
      for (int r = 1; r < rows; ++r) best[v] = larger<S>(best[v], s[r][v]);
      best[v] *= scale;
      raise |= exceeds<S>(best[v], load_vector(top + v * kLanes) + static_cast<S>(kSlack));
    }
    if (__builtin_expect(raise != 0, 0)) {
      add_values(panel, row);
      for (int v = 0; v < n; ++v) raise_top(first + v, best[v]);
    }
    for (int v = 0; v < n; ++v) {
      const Vec<S> base = load_vector(top + v * kLanes);
      Vec<S> total = load_vector(sum + v * kLanes);
      for (int r = 0; r < rows; r += 2) {
        const Vec<S> even = exp2<Op::kExpDegree>(s[r][v] * scale - base);
        const Vec<S> odd = exp2<Op::kExpDegree>(s[r + 1][v] * scale - base);
        total += even + odd;
        Op::store_rows(p_ + (row + r) / kPair * kColumns + (first + v) * kLanes, kColumns, even, odd);
      }
      store_vector(sum + v * kLanes, total);
    }
  }

  // O^T += V^T P^T for rows [done_, row) of the tile and the panel of queries from vector `first`; on the
  // diagonal in steps of vectors, each with the keys that it sees.
  void add_values(int64_t first, int64_t row) {
    const int64_t last = first + kPanel < vectors_ ? first + kPanel : vectors_;
    const int64_t step = diagonal_ ? kDiagonalStep : kPanel;
    for (int64_t v = first; v < last; v += step) {
      const int64_t count = v + step < last ? step : last - v;
      const int64_t end = seen_keys(query_, (v + count) * kLanes, key_, row);
      if (end <= done_) continue;
      accumulate<T>(o_block() + v * kLanes, kColumns, v_tile_ + done_ / kPair, kKeys / kPair,
                    p_ + done_ / kPair * kColumns + v * kLanes, kColumns, shape_.wide, count,
                    (end - done_ + kPair - 1) / kPair, [](int64_t) { return 0; });
    }
    done_ = row;
  }

  void raise_top(int64_t vector, const Vec<S>& best) {
    S* top = top_ + block_ * kColumns + vector * kLanes;
    S* sum = sum_ + block_ * kColumns + vector * kLanes;
    const Vec<S> before = load_vector(top), after = larger<S>(before, best);
    const Vec<S> shrink = exp2<Op::kExpDegree>(before - after);
    store_vector(top, after);
    if (!exceeds<S>(load_vector(sum), Vec<S>{})) return;  // nothing is summed yet
    store_vector(sum, load_vector(sum) * shrink);
    for (int64_t i = 0; i < shape_.wide; ++i) {
      S* o = o_block() + i * kColumns + vector * kLanes;
      store_vector(o, load_vector(o) * shrink);
    }
  }

  void write(int64_t head) {
    const HeadRows<T> out = head_rows<T>(a_.out, head);
    S* lse = static_cast<S*>(a_.lse) + head * a_.lse_stride;
    for (int64_t v = 0; v < vectors_; ++v) {
      S* sum = sum_ + block_ * kColumns + v * kLanes;
      const Vec<S> total = load_vector(sum);
      const Vec<S> logarithm =
          (load_vector(top_ + block_ * kColumns + v * kLanes) + log2(total)) * static_cast<S>(0.6931471805599453);
      for (int64_t i = 0; i < shape_.wide; ++i) {
        S* o = o_block() + i * kColumns + v * kLanes;
        store_vector(o, load_vector(o) / total);
      }
      store_vector(sum, logarithm);
    }
    transpose(turned_, shape_.wide, o_block(), kColumns, shape_.wide, vectors_ * kLanes);
    for (int64_t t = query_; t < query_end_; ++t) {
      lse[t] = sum_[block_ * kColumns + t - query_];
      const S* row = turned_ + (t - query_) * shape_.wide;
      T* to = out[t];
      each<T>(shape_.d, [=](auto at) { at.store(to, at.load(row)); });
    }
  }

  const cpu::Attention& a_;
  const Shape<T> shape_;
  Unit *rows_, *pairs_;  // one tile on its way to another form
  Unit *q_, *k_, *v_;    // Q^T [blocks][units][64]; K [tiles][64][units]; V^T [tiles][D][64 / pair]
  Unit* p_;              // P^T of one tile [64 / pair][64]
  S *o_, *top_, *sum_;   // O^T [blocks][D][64]; running maximum (in powers of two) and sum [blocks][64]
  S* turned_;
  S* s_ = nullptr;  // S^T of one tile [64][64], with AMX
  int64_t used_;

  int64_t block_ = 0, query_ = 0, query_end_ = 0, vectors_ = 0;  // the current queries
  const Unit *k_tile_ = nullptr, *v_tile_ = nullptr;             // the current keys
  int64_t key_ = 0, done_ = 0;                                   // rows before done_ are added to O
  bool diagonal_ = false;
};

}  // namespace
}  // namespace attention

void attention_forward(cpu::Element element, const cpu::Attention& a, const cpu::AttentionTask& task, void* scratch) {
  with_element(element, [&]<class T>() { attention::Forward<T>(a, attention::Scratch(scratch)).run(task); });
}

int64_t attention_forward_scratch(cpu::Element element, int64_t head_dim) {
  int64_t bytes = 0;
  const cpu::Attention shape = {{}, {}, {}, {}, nullptr, 0, head_dim, 1, 0, 1};
  with_element(element, [&]<class T>() { bytes = attention::Forward<T>(shape, attention::Scratch(nullptr)).used(); });
  return bytes;
}

}  // namespace longlora::LONGLORA_CPU_NAMESPACE

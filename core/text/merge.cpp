#include "core/text/merge.h"

#include <algorithm>
#include <bit>
#include <functional>

namespace longlora::text {

MergeTable::MergeTable(std::span<const Merge> merges) {
  const size_t size = std::bit_ceil(std::max<size_t>(merges.size() * 2, 16));
  slots_.resize(size);
  mask_ = size - 1;
  shift_ = 64 - std::countr_zero(size);
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const Merge& merge = merges[rank];
    const uint64_t key = key_of(merge.left, merge.right);
    uint64_t at = (key * kSpread) >> shift_;
    while (slots_[at].key != kEmpty && slots_[at].key != key) at = (at + 1) & mask_;
    slots_[at] = {key, {static_cast<uint32_t>(rank), merge.result}};
  }
}

void Merger::merge(const MergeTable& table) {
  // Up to this length looking at every pair again is faster than keeping a heap.
  constexpr size_t kShort = 48;
  if (symbols.size() < 2) return;
  symbols.size() <= kShort ? merge_short(table) : merge_long(table);
}

void Merger::merge_short(const MergeTable& table) {
  size_t n = symbols.size();
  pair_.resize(n);
  int32_t* id = symbols.data();
  MergeTable::Found* pair = pair_.data();
  for (size_t i = 0; i + 1 < n; ++i) pair[i] = table.find(id[i], id[i + 1]);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i)
      if (pair[i].rank < pair[best].rank) best = i;
    if (pair[best].rank == MergeTable::kNone) break;
    id[best] = pair[best].result;
    for (size_t i = best + 1; i + 1 < n; ++i) id[i] = id[i + 1], pair[i] = pair[i + 1];
    --n;
    if (best > 0) pair[best - 1] = table.find(id[best - 1], id[best]);
    if (best + 1 < n) pair[best] = table.find(id[best], id[best + 1]);
  }
  symbols.resize(n);
}

// A heap of (rank, position), smallest first. An entry whose pair has changed since is skipped: pair_ holds
// what stands at a position now.
void Merger::merge_long(const MergeTable& table) {
  constexpr uint32_t kEnd = ~uint32_t{0};
  const auto n = static_cast<uint32_t>(symbols.size());
  pair_.assign(n, {});
  previous_.resize(n);
  next_.resize(n);
  heap_.clear();
  for (uint32_t i = 0; i < n; ++i) {
    previous_[i] = i - 1;  // kEnd for the first
    next_[i] = i + 1 < n ? i + 1 : kEnd;
    if (i + 1 == n) break;
    pair_[i] = table.find(symbols[i], symbols[i + 1]);
    if (pair_[i].rank != MergeTable::kNone) heap_.push_back(static_cast<uint64_t>(pair_[i].rank) << 32 | i);
  }
  std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
  const auto look_again = [&](uint32_t at) {
    pair_[at] = next_[at] == kEnd ? MergeTable::Found{} : table.find(symbols[at], symbols[next_[at]]);
    if (pair_[at].rank == MergeTable::kNone) return;
    heap_.push_back(static_cast<uint64_t>(pair_[at].rank) << 32 | at);
    std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
  };
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
    const auto at = static_cast<uint32_t>(heap_.back());
    const auto rank = static_cast<uint32_t>(heap_.back() >> 32);
    heap_.pop_back();
    if (pair_[at].rank != rank) continue;
    const uint32_t gone = next_[at];
    symbols[at] = pair_[at].result;
    pair_[gone] = {};
    next_[at] = next_[gone];
    if (next_[at] != kEnd) previous_[next_[at]] = at;
    look_again(at);
    if (previous_[at] != kEnd) look_again(previous_[at]);
  }
  size_t kept = 0;
  for (uint32_t at = 0; at != kEnd; at = next_[at]) symbols[kept++] = symbols[at];
  symbols.resize(kept);
}

}  // namespace longlora::text

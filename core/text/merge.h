// The merge loop of byte-pair encoding: joins neighbouring symbols, the lowest-ranked pair first and of equal
// pairs the leftmost, until no pair of the list is left.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace longlora::text {

struct Merge {
  int32_t left, right, result;  // token ids; the rank is the place in the list
};

// (left, right) -> (rank, result) as one flat table with open addressing: looked up for every pair of
// symbols.
class MergeTable {
 public:
  static constexpr uint32_t kNone = ~uint32_t{0};
  struct Found {
    uint32_t rank = kNone;  // kNone: these two never merge
    int32_t result = -1;
  };

  explicit MergeTable(std::span<const Merge> merges);  // of a pair that occurs twice the last counts

  [[nodiscard]] Found find(int32_t left, int32_t right) const {
    const uint64_t key = key_of(left, right);
    for (uint64_t at = (key * kSpread) >> shift_;; at = (at + 1) & mask_) {
      const Slot& slot = slots_[at];
      if (slot.key == key) return slot.found;
      if (slot.key == kEmpty) return {};
    }
  }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0}, kSpread = 0x9e3779b97f4a7c15ULL;
  struct Slot {
    uint64_t key = kEmpty;
    Found found;
  };
  static uint64_t key_of(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  std::vector<Slot> slots_;
  uint64_t mask_ = 0;
  int shift_ = 0;
};

// The loop with the memory it needs; one per thread.
class Merger {
 public:
  // The symbols to merge are put here (token ids), then merge() leaves what became of them.
  std::vector<int32_t> symbols;
  void merge(const MergeTable& table);

 private:
  void merge_short(const MergeTable& table);
  void merge_long(const MergeTable& table);
  std::vector<MergeTable::Found> pair_;  // of each symbol with the next one
  std::vector<uint32_t> previous_, next_;
  std::vector<uint64_t> heap_;
};

}  // namespace longlora::text

// Remembers the ids of words: text repeats itself, and a look-up is much cheaper than merging. A fixed table
// in which a new word replaces the one in its place; short words only, keys and ids inline. Not shared
// between threads.
#pragma once
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include <xxhash.h>

namespace longlora::text {

class WordCache {
 public:
  static constexpr size_t kLongestWord = 31, kMostIds = 7;

  // Appends the word's ids; false when it is not known.
  [[nodiscard]] bool find(std::string_view word, uint64_t hash, std::vector<int32_t>& out) const {
    const Entry& entry = entries_[hash & (kEntries - 1)];
    if (entry.length != word.size() || std::memcmp(entry.word, word.data(), word.size()) != 0) return false;
    out.insert(out.end(), entry.ids, entry.ids + entry.count);
    return true;
  }
  void keep(std::string_view word, uint64_t hash, std::span<const int32_t> ids) {
    if (word.size() > kLongestWord || ids.size() > kMostIds) return;
    Entry& entry = entries_[hash & (kEntries - 1)];
    entry.length = static_cast<uint8_t>(word.size());
    entry.count = static_cast<uint8_t>(ids.size());
    std::memcpy(entry.word, word.data(), word.size());
    std::memcpy(entry.ids, ids.data(), ids.size_bytes());
  }
  [[nodiscard]] static uint64_t hash(std::string_view word) { return XXH3_64bits(word.data(), word.size()); }

 private:
  static constexpr size_t kEntries = 1 << 15;  // of 64 bytes
  struct Entry {
    char word[kLongestWord];
    uint8_t length = 0;  // 0: free; words are never empty
    int32_t ids[kMostIds];
    uint8_t count = 0;
  };
  static_assert(sizeof(Entry) == 64);
  std::vector<Entry> entries_ = std::vector<Entry>(kEntries);
};

}  // namespace longlora::text

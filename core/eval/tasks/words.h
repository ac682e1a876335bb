// Words for keys and lists: plain adjectives and nouns, and as many different words as a task wants.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/base/random.h"

namespace longlora::eval {

// "quiet-harbor" for i in [0, kWordPairs): all different.
inline constexpr int64_t kWordPairs = 96 * 128;
[[nodiscard]] std::string word_pair(int64_t i);

// Single words, all different, for i in [0, kWords): the adjectives and nouns, then compounds of two ("quietharbor").
inline constexpr int64_t kWords = 96 + 128 + kWordPairs;
[[nodiscard]] std::string plain_word(int64_t i);

// `count` different numbers below n in random order (count <= n).
[[nodiscard]] std::vector<int64_t> sample(SplitMix& random, int64_t n, int64_t count);

// Fisher and Yates.
template <typename T>
void shuffle(std::vector<T>& values, SplitMix& random) {
  for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[random.below(i)]);
}

// `digits` digits, the first not 0.
[[nodiscard]] std::string random_number(SplitMix& random, int digits);
// `count` letters from `first` ('a' or 'A') to the 26th.
[[nodiscard]] std::string random_letters(SplitMix& random, int count, char first);
// Version 4: "0b3a1c9e-....".
[[nodiscard]] std::string random_uuid(SplitMix& random);

}  // namespace longlora::eval

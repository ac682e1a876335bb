// A shuffled order of n things without a table: a Feistel network of keyed rounds permutes [0, 4^k) >= n, and
// values beyond n are sent through again until they fall below it (Black and Rogaway 2002, "cycle walking").
#pragma once
#include <bit>
#include <cstdint>

#include "core/base/random.h"

namespace longlora::data {

class Permutation {
 public:
  // Of [0, n), n >= 1; another order for every seed.
  Permutation(uint64_t n, uint64_t seed)
      : n_(n), seed_(seed), half_bits_((std::bit_width(n - 1) + 1) / 2), mask_((uint64_t{1} << half_bits_) - 1) {}

  [[nodiscard]] uint64_t operator()(uint64_t i) const {
    do {
      i = once(i);
    } while (i >= n_);
    return i;
  }

 private:
  static constexpr uint64_t kRounds = 8;  // 4 make a pseudorandom permutation (Luby and Rackoff); small n want more

  [[nodiscard]] uint64_t once(uint64_t x) const {
    uint64_t left = x >> half_bits_, right = x & mask_;
    for (uint64_t round = 0; round < kRounds; ++round) {
      const uint64_t next = left ^ (derive_seed(seed_, {round, right}) & mask_);
      left = right;
      right = next;
    }
    return left << half_bits_ | right;
  }

  uint64_t n_, seed_;
  int half_bits_;
  uint64_t mask_;
};

}  // namespace longlora::data

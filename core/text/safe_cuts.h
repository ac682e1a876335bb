// Where a text can be cut without changing how byte-pair encoding encodes it: between two characters that stand next to
// each other in no token. A token over that place could only come from a merge there, and there is none. What lies
// between cuts is short and repeats itself, so it can be remembered.
#pragma once
#include <cstdint>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "core/text/unicode.h"

namespace longlora::text {

class SafeCuts {
 public:
  SafeCuts() : ascii_(128 * 128) {}

  // Every pair of neighbours in `token` must stay together from now on.
  void keep_together(std::string_view token) {
    for (size_t i = 0, next; i < token.size(); i = next) {
      next = i + utf8_length(token[i]);
      if (next < token.size()) add(utf8_at(token, i), utf8_at(token, next));
    }
  }

  [[nodiscard]] bool between(char32_t left, char32_t right) const {
    if (left < 128 && right < 128) return !ascii_[left * 128 + right];
    return !others_.contains(key(left, right));
  }

 private:
  void add(char32_t left, char32_t right) {
    if (left < 128 && right < 128)
      ascii_[left * 128 + right] = true;
    else
      others_.insert(key(left, right));
  }
  static uint64_t key(char32_t left, char32_t right) { return static_cast<uint64_t>(left) << 32 | right; }

  std::vector<bool> ascii_;
  std::unordered_set<uint64_t> others_;
};

}  // namespace longlora::text

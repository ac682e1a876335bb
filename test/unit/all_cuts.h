// All ways to cut a few tokens into documents.
#pragma once
#include <cstdint>
#include <vector>

namespace longlora::test {

inline std::vector<std::vector<int64_t>> all_cuts(int64_t tokens) {
  std::vector<std::vector<int64_t>> cuts;
  for (int64_t bits = 0; bits < int64_t{1} << (tokens - 1); ++bits) {
    std::vector<int64_t> cut = {0};
    for (int64_t t = 1; t < tokens; ++t) {
      if (bits >> (t - 1) & 1) cut.push_back(t);
    }
    cut.push_back(tokens);
    cuts.push_back(cut);
  }
  return cuts;
}

}  // namespace longlora::test

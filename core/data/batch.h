// Rows of tokens as they go into the model: the one type between the loader and everything that computes.
#pragma once
#include <cstdint>
#include <vector>

#include "core/base/range.h"

namespace longlora::data {

inline constexpr int32_t kIgnore = -100;  // a target that carries no loss

// `rows` rows of `length` tokens, row-major. A document (a run of tokens that attend to one another) never crosses a
// row; with packing "stream" every row is one document, with "documents" a row holds several.
//
// A rank that shares the rows with others has some pieces of the flattened tokens: tokens, targets and positions are those
// of the pieces, one after the other; all else is of the whole.
struct Batch {
  int64_t rows = 0, length = 0;
  std::vector<int32_t> tokens;     // [rows * length]
  std::vector<int32_t> targets;    // [rows * length] the next token of the same document, or kIgnore
  std::vector<int32_t> positions;  // [rows * length] position in its document, from 0
  std::vector<int64_t> documents;  // boundaries in the flattened rows: 0 = d0 < d1 < ... = rows * length
  std::vector<Range> pieces = {};  // what this rank has of the flattened rows; none: everything
  [[nodiscard]] int64_t size() const { return rows * length; }
  [[nodiscard]] int64_t target_count() const {
    int64_t n = 0;
    for (const int32_t t : targets) n += t != kIgnore;
    return n;
  }
};

// The given pieces of a whole batch.
[[nodiscard]] inline Batch cut(const Batch& whole, const std::vector<Range>& pieces) {
  Batch part{.rows = whole.rows,
             .length = whole.length,
             .tokens = {},
             .targets = {},
             .positions = {},
             .documents = whole.documents,
             .pieces = pieces};
  for (const Range& piece : pieces) {
    const auto add = [&](std::vector<int32_t>& to, const std::vector<int32_t>& from) {
      to.insert(to.end(), from.begin() + piece.begin, from.begin() + piece.end);
    };
    add(part.tokens, whole.tokens);
    add(part.targets, whole.targets);
    add(part.positions, whole.positions);
  }
  return part;
}

}  // namespace longlora::data

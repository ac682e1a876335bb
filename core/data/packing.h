// Which documents share a row: packing "documents" puts whole documents into rows of `length` tokens, so that
// little is padded and no document sees another.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace longlora::data {

// A document, or a part of one that is longer than a row.
struct Piece {
  int64_t begin = 0;     // first token in the source
  int32_t length = 0;    // 1 <= length <= row length
  bool goes_on = false;  // the document has a token after the piece: the last token has a target too
};

struct PackedRows {
  std::vector<Piece> pieces;  // those of row r are [row_begin[r], row_begin[r + 1])
  std::vector<int64_t> row_begin;
  int64_t left_out = 0;  // tokens in pieces without any target (a single token at a document's end)
  [[nodiscard]] int64_t rows() const { return static_cast<int64_t>(row_begin.size()) - 1; }
  [[nodiscard]] std::span<const Piece> row(int64_t r) const {
    const auto first = static_cast<size_t>(row_begin[static_cast<size_t>(r)]);
    return std::span(pieces).subspan(first, static_cast<size_t>(row_begin[static_cast<size_t>(r) + 1]) - first);
  }
};

// Best fit decreasing: the pieces from long to short (in the source's order where equally long), each into
// the row that it leaves least room in, a new row where it fits none. Depends on nothing but its arguments. A
// document of n tokens is cut at length, 2 length, ...; a rest of one token has no target and is left out.
// `documents`: boundaries 0 = d0 < d1 < ...; 2 <= length < 2^31.
[[nodiscard]] PackedRows pack_documents(std::span<const int64_t> documents, int64_t length);

}  // namespace longlora::data

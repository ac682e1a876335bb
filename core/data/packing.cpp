#include "core/data/packing.h"

#include <algorithm>
#include <map>
#include <numeric>

namespace longlora::data {
namespace {

std::vector<Piece> cut(std::span<const int64_t> documents, int64_t length, int64_t& left_out) {
  std::vector<Piece> pieces;
  for (size_t i = 0; i + 1 < documents.size(); ++i) {
    const int64_t end = documents[i + 1];
    for (int64_t begin = documents[i]; begin < end; begin += length) {
      const int64_t size = std::min(length, end - begin);
      const bool goes_on = begin + size < end;
      if (size == 1 && !goes_on) {
        ++left_out;
      } else {
        pieces.push_back({begin, static_cast<int32_t>(size), goes_on});
      }
    }
  }
  return pieces;
}

}  // namespace

PackedRows pack_documents(std::span<const int64_t> documents, int64_t length) {
  PackedRows packed;
  std::vector<Piece> pieces = cut(documents, length, packed.left_out);
  std::stable_sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) { return a.length > b.length; });

  std::vector<int64_t> row_of(pieces.size());
  std::map<int64_t, std::vector<int64_t>> rows_by_room;  // free tokens -> rows with that much, the newest last
  int64_t rows = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    int64_t room = length;
    if (const auto best = rows_by_room.lower_bound(pieces[i].length); best != rows_by_room.end()) {
      room = best->first;
      row_of[i] = best->second.back();
      best->second.pop_back();
      if (best->second.empty()) rows_by_room.erase(best);
    } else {
      row_of[i] = rows++;
    }
    if (room > pieces[i].length) rows_by_room[room - pieces[i].length].push_back(row_of[i]);
  }

  packed.row_begin.assign(static_cast<size_t>(rows) + 1, 0);
  for (const int64_t row : row_of) ++packed.row_begin[static_cast<size_t>(row) + 1];
  std::partial_sum(packed.row_begin.begin(), packed.row_begin.end(), packed.row_begin.begin());
  std::vector<int64_t> next = packed.row_begin;
  packed.pieces.resize(pieces.size());
  for (size_t i = 0; i < pieces.size(); ++i) {
    packed.pieces[static_cast<size_t>(next[static_cast<size_t>(row_of[i])]++)] = pieces[i];
  }
  return packed;
}

}  // namespace longlora::data

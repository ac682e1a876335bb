#include <algorithm>
#include <string>

#include "cuda/attention.h"
#include "cuda/launch_error.h"

namespace longlora::cuda {
namespace {

void check(const AttentionShape& s, std::span<const int64_t> boundaries) {
  bool rising = boundaries.size() >= 2 && boundaries.front() == 0 && boundaries.back() == s.tokens;
  for (size_t i = 0; rising && i + 1 < boundaries.size(); ++i) rising = boundaries[i] < boundaries[i + 1];
  if (!rising) throw LaunchError("attention: boundaries must rise from 0 to " + std::to_string(s.tokens));
  if (s.heads <= 0 || s.kv_heads <= 0 || s.heads % s.kv_heads != 0 || s.plain_heads < 0 || s.plain_heads > s.heads) {
    throw LaunchError("attention: " + std::to_string(s.heads) + " heads, " + std::to_string(s.kv_heads) +
                      " KV heads, " + std::to_string(s.plain_heads) + " of the first half");
  }
}

void add_query_tiles(std::vector<QueryTile>& tiles, std::span<const int64_t> cut, int64_t head, int64_t heads) {
  if (heads == 0) return;
  for (size_t i = 0; i + 1 < cut.size(); ++i) {
    for (int64_t row = cut[i]; row < cut[i + 1]; row += kQueryTile) {
      tiles.push_back({row, std::min(row + kQueryTile, cut[i + 1]), cut[i], static_cast<int32_t>(head),
                       static_cast<int32_t>(heads)});
    }
  }
}

// Key tiles lie inside one segment of each cut, so that every head knows where its queries end.
void add_key_tiles(std::vector<KeyTile>& tiles, std::span<const int64_t> plain, std::span<const int64_t> shifted,
                   int64_t kv_head, int64_t kv_heads) {
  if (kv_heads == 0) return;
  size_t p = 1, s = 1;  // the boundaries that end the segments we are in
  for (int64_t key = 0; key < plain.back();) {
    const int64_t stop = std::min(plain[p], shifted[s]), end = std::min(key + kKeyTile, stop);
    tiles.push_back({key, end, {plain[p], shifted[s]}, static_cast<int32_t>(kv_head), static_cast<int32_t>(kv_heads)});
    key = end;
    if (key == plain[p]) ++p;
    if (key == shifted[s]) ++s;
  }
}

}  // namespace

QuerySchedule query_schedule(const AttentionShape& shape, std::span<const int64_t> plain,
                             std::span<const int64_t> shifted) {
  check(shape, plain);
  check(shape, shifted);
  const int64_t first_half = shape.plain_heads, window = shape.window > 0 ? shape.window : shape.tokens;
  QuerySchedule schedule{{}, std::max(first_half, shape.heads - first_half)};
  add_query_tiles(schedule.tiles, plain, 0, first_half);
  add_query_tiles(schedule.tiles, shifted, first_half, shape.heads - first_half);
  std::stable_sort(schedule.tiles.begin(), schedule.tiles.end(), [&](const auto& a, const auto& b) {
    return std::min(a.row_end - a.begin, window) > std::min(b.row_end - b.begin, window);
  });
  return schedule;
}

KeySchedule key_schedule(const AttentionShape& shape, std::span<const int64_t> plain,
                         std::span<const int64_t> shifted) {
  check(shape, plain);
  check(shape, shifted);
  const int64_t first_half = shape.plain_heads, window = shape.window > 0 ? shape.window : shape.tokens;
  const int64_t group = shape.heads / shape.kv_heads;
  // KV heads of the first half, at most one that both halves read, KV heads of the second half.
  const int64_t before = first_half / group, after = shape.kv_heads - (first_half + group - 1) / group;
  const int64_t shared = shape.kv_heads - before - after;
  KeySchedule schedule{{}, std::max({before, shared, after})};
  add_key_tiles(schedule.tiles, plain, plain, 0, before);
  add_key_tiles(schedule.tiles, plain, shifted, before, shared);
  add_key_tiles(schedule.tiles, shifted, shifted, before + shared, after);
  std::stable_sort(schedule.tiles.begin(), schedule.tiles.end(), [&](const auto& a, const auto& b) {
    const auto cost = [&](const KeyTile& t) {
      return std::min(t.row_end[0] - t.key, window) + std::min(t.row_end[1] - t.key, window);
    };
    return cost(a) > cost(b);
  });
  return schedule;
}

}  // namespace longlora::cuda

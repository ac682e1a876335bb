#include "core/train/scaling.h"

#include <algorithm>

namespace longlora::train {
namespace {

// The start of the segment in which token `at` lies.
int64_t segment_start(const std::vector<int64_t>& boundaries, int64_t at) {
  return *std::prev(std::upper_bound(boundaries.begin(), boundaries.end(), at));
}

// Keys that queries [begin, end) of one head see.
double pairs(const std::vector<int64_t>& boundaries, int64_t window, int64_t begin, int64_t end) {
  double sum = 0;
  for (int64_t from = begin; from < end;) {
    const auto next = std::upper_bound(boundaries.begin(), boundaries.end(), from);
    const int64_t start = *std::prev(next), to = std::min(end, *next);
    // Query i sees min(i - start + 1, window) keys: those before `full` see fewer than the window.
    const int64_t full = window > 0 ? std::clamp(start + window, from, to) : to;
    const auto few = static_cast<double>(full - from);
    sum += few * static_cast<double>(from - start + full - start + 1) / 2;
    sum += static_cast<double>(to - full) * static_cast<double>(window);
    from = to;
  }
  return sum;
}

}  // namespace

int64_t all_reduce_bytes(int64_t bytes, int64_t ranks) {
  return 2 * gather_bytes(bytes, ranks);
}

int64_t gather_bytes(int64_t bytes, int64_t ranks) {
  return bytes - bytes / ranks;
}

int64_t halo_elements(const ops::GroupPlan& plan, int64_t head_dim, int64_t begin) {
  if (begin == 0) return 0;
  const int64_t ratio = plan.heads / plan.kv_heads, first_shifted = plan.plain_heads / ratio;
  const int64_t plain = (plan.plain_heads + ratio - 1) / ratio;  // KV heads that a half reads
  const auto tokens = [&](const std::vector<int64_t>& boundaries) {
    const int64_t all = begin - segment_start(boundaries, begin);
    return plan.window > 0 ? std::min(all, plan.window - 1) : all;
  };
  return 2 * head_dim * (tokens(plan.plain) * plain + tokens(plan.shifted) * (plan.kv_heads - first_shifted));
}

double attention_pairs(const ops::GroupPlan& plan, int64_t begin, int64_t end) {
  return static_cast<double>(plan.plain_heads) * pairs(plan.plain, plan.window, begin, end) +
         static_cast<double>(plan.heads - plan.plain_heads) * pairs(plan.shifted, plan.window, begin, end);
}

}  // namespace longlora::train

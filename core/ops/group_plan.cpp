#include "core/ops/group_plan.h"

#include <algorithm>

#include "core/base/error.h"

namespace longlora::ops {
namespace {

// Cuts every document at its start, then at `first`, then every `step` tokens.
std::vector<int64_t> cut(std::span<const int64_t> documents, int64_t first, int64_t step) {
  std::vector<int64_t> boundaries = {0};
  for (size_t d = 0; d + 1 < documents.size(); ++d) {
    for (int64_t at = documents[d] + first; at < documents[d + 1]; at += step) boundaries.push_back(at);
    boundaries.push_back(documents[d + 1]);
  }
  return boundaries;
}

void check(std::span<const int64_t> documents, int64_t heads, int64_t kv_heads) {
  if (documents.size() < 2 || documents.front() != 0) fail("GroupPlan: document boundaries must start at 0");
  for (size_t i = 0; i + 1 < documents.size(); ++i) {
    if (documents[i] >= documents[i + 1]) fail("GroupPlan: document boundaries must increase");
  }
  if (heads <= 0 || kv_heads <= 0 || heads % kv_heads != 0) {
    fail("GroupPlan: {} heads do not divide into {} KV heads", heads, kv_heads);
  }
}

// Keys that the queries of one head see: query i of a segment min(i + 1, window).
double pairs(const std::vector<int64_t>& boundaries, int64_t window) {
  double sum = 0;
  for (size_t s = 0; s + 1 < boundaries.size(); ++s) {
    const int64_t length = boundaries[s + 1] - boundaries[s], few = window > 0 ? std::min(window, length) : length;
    sum += static_cast<double>(few) * static_cast<double>(few + 1) / 2;
    sum += static_cast<double>(length - few) * static_cast<double>(window);
  }
  return sum;
}

}  // namespace

GroupPlan GroupPlan::full(std::span<const int64_t> documents, int64_t heads, int64_t kv_heads, int64_t window) {
  check(documents, heads, kv_heads);
  const std::vector<int64_t> whole(documents.begin(), documents.end());
  return {documents.back(), heads, kv_heads, heads, whole, whole, window, {}};
}

GroupPlan GroupPlan::s2(std::span<const int64_t> documents, int64_t group, int64_t heads, int64_t kv_heads,
                        int64_t window) {
  check(documents, heads, kv_heads);
  if (group < 2) fail("GroupPlan: a group needs at least 2 tokens, {} asked", group);
  const int64_t plain = kv_heads % 2 == 0 ? heads / 2 : (heads + 1) / 2;
  return {documents.back(), heads, kv_heads, plain, cut(documents, group, group), cut(documents, group / 2, group),
          window,           {}};
}

double attention_pairs(const GroupPlan& plan) {
  return static_cast<double>(plan.plain_heads) * pairs(plan.plain, plan.window) +
         static_cast<double>(plan.heads - plan.plain_heads) * pairs(plan.shifted, plan.window);
}

std::vector<HeadSection> head_sections(const GroupPlan& plan) {
  const int64_t ratio = plan.heads / plan.kv_heads;
  std::vector<HeadSection> sections;
  const auto add = [&](int64_t head, int64_t end, const std::vector<int64_t>& boundaries) {
    while (head < end) {
      const bool whole = head % ratio == 0 && end - head >= ratio;
      const int64_t next = whole ? end - (end - head) % ratio : std::min((head / ratio + 1) * ratio, end);
      sections.push_back({{head, next}, {head / ratio, (next + ratio - 1) / ratio}, boundaries});
      head = next;
    }
  };
  const int64_t plain = plan.uniform() ? plan.heads : plan.plain_heads;
  add(0, plain, plan.plain);
  add(plain, plan.heads, plan.shifted);
  return sections;
}

}  // namespace longlora::ops

// Every (query, key) pair that a GroupPlan lets through, against the definition of S2-Attn written down token
// by token.
#include "core/ops/group_plan.h"

#include <catch2/catch.hpp>

#include "core/base/error.h"
#include "test/unit/all_cuts.h"

using longlora::ops::GroupPlan;

namespace {

// The definition: tokens of one document, at positions p of it. A head of the first half puts p into group p
// / G. A head of the second half has the first G/2 tokens in a group of their own and then groups of G. With
// an odd number of KV heads the halves are counted in query heads, the first the larger.
bool may_look(const std::vector<int64_t>& documents, int64_t group, int64_t heads, int64_t kv_heads, int64_t window,
              int64_t head, int64_t query, int64_t key) {
  if (key > query) return false;
  if (window > 0 && query - key >= window) return false;
  int64_t start = 0;
  for (const int64_t d : documents) {
    if (d <= query) start = d;
  }
  if (key < start) return false;  // another document
  if (group == 0) return true;
  const int64_t p = query - start, r = key - start;
  const bool shifted = kv_heads % 2 == 0 ? head / (heads / kv_heads) >= kv_heads / 2 : 2 * head > heads - 1;
  if (!shifted) return p / group == r / group;
  const int64_t half = group / 2;
  const auto group_of = [&](int64_t at) { return at < half ? -1 : (at - half) / group; };
  return group_of(p) == group_of(r);
}

bool plan_lets(const GroupPlan& plan, int64_t head, int64_t query, int64_t key) {
  const std::vector<int64_t>& cut = head < plan.plain_heads ? plan.plain : plan.shifted;
  for (size_t s = 0; s + 1 < cut.size(); ++s) {
    if (query >= cut[s] && query < cut[s + 1]) {
      return key >= cut[s] && key <= query && (plan.window == 0 || query - key < plan.window);
    }
  }
  return false;
}

void check_all_pairs(const std::vector<int64_t>& documents, int64_t group, int64_t heads, int64_t kv_heads,
                     int64_t window) {
  const GroupPlan plan = group == 0 ? GroupPlan::full(documents, heads, kv_heads, window)
                                    : GroupPlan::s2(documents, group, heads, kv_heads, window);
  const int64_t tokens = documents.back();
  bool same = plan.tokens == tokens && plan.heads == heads && plan.kv_heads == kv_heads;
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t i = 0; i < tokens; ++i) {
      for (int64_t j = 0; j < tokens; ++j) {
        same = same && plan_lets(plan, h, i, j) == may_look(documents, group, heads, kv_heads, window, h, i, j);
      }
    }
  }
  INFO("tokens " << tokens << " documents " << documents.size() - 1 << " group " << group << " heads " << heads << "/"
                 << kv_heads << " window " << window);
  REQUIRE(same);
}

}  // namespace

TEST_CASE("a group plan lets through exactly the pairs of the definition", "[group_plan]") {
  const std::vector<std::pair<int64_t, int64_t>> heads = {{1, 1}, {2, 2}, {2, 1}, {3, 3},
                                                          {3, 1}, {4, 2}, {6, 3}, {8, 2}};
  for (int64_t tokens = 1; tokens <= 8; ++tokens) {
    for (const auto& documents : longlora::test::all_cuts(tokens)) {
      for (int64_t group : {0, 2, 3, 4, 5, 7, 8, 9}) {
        for (const auto& [q, kv] : heads) check_all_pairs(documents, group, q, kv, 0);
        for (int64_t window : {1, 3}) check_all_pairs(documents, group, 4, 2, window);
      }
    }
  }
  for (int64_t tokens = 9; tokens <= 40; ++tokens) {
    for (int64_t group = 2; group <= tokens + 2; ++group) {
      check_all_pairs({0, tokens}, group, 2, 2, 0);
      check_all_pairs({0, tokens / 3, tokens}, group, 4, 2, 5);
    }
  }
}

TEST_CASE("a group plan refuses what has no meaning", "[group_plan]") {
  const std::vector<int64_t> one = {0, 8}, late = {1, 8}, empty = {0, 4, 4};
  CHECK_THROWS_AS(GroupPlan::full(late, 2, 2), longlora::Error);
  CHECK_THROWS_AS(GroupPlan::full(empty, 2, 2), longlora::Error);
  CHECK_THROWS_AS(GroupPlan::full(one, 3, 2), longlora::Error);
  CHECK_THROWS_AS(GroupPlan::s2(one, 1, 2, 2), longlora::Error);
  CHECK(GroupPlan::full(one, 2, 2).uniform());
  CHECK_FALSE(GroupPlan::s2(one, 4, 2, 2).uniform());
  CHECK(GroupPlan::s2(one, 4, 2, 2).shifted == std::vector<int64_t>{0, 2, 6, 8});
}

// Every (query, key) pair that the ranks of a sequence group compute, against those of the GroupPlan; and what they send.
#include "core/dist/sequence_plan.h"

#include <fmt/ranges.h>

#include <catch2/catch.hpp>

#include "core/base/error.h"
#include "core/dist/group.h"
#include "test/unit/all_cuts.h"

namespace longlora {
namespace {

using dist::Layout;
using ops::GroupPlan;

// How often a (head, query, key) is computed.
struct Pairs {
  int64_t tokens;
  std::vector<int> count;
  Pairs(int64_t heads, int64_t t) : tokens(t), count(static_cast<size_t>(heads * t * t)) {}
  int& at(int64_t head, int64_t query, int64_t key) {
    return count[static_cast<size_t>((head * tokens + query) * tokens + key)];
  }
  // Adds those of a plan whose row i is token of[i]; returns how many.
  int64_t add(const GroupPlan& plan, const std::vector<int64_t>& of) {
    int64_t added = 0;
    for (int64_t h = 0; h < plan.heads; ++h) {
      const std::vector<int64_t>& cut = h < plan.plain_heads ? plan.plain : plan.shifted;
      for (size_t s = 0; s + 1 < cut.size(); ++s) {
        for (int64_t i = cut[s]; i < cut[s + 1]; ++i) {
          for (int64_t j = cut[s]; j <= i; ++j, ++added)
            ++at(h, of[static_cast<size_t>(i)], of[static_cast<size_t>(j)]);
        }
      }
    }
    return added;
  }
};

std::vector<int64_t> tokens_of(const std::vector<Range>& pieces) {
  std::vector<int64_t> tokens;
  for (const Range& piece : pieces) {
    for (int64_t t = piece.begin; t < piece.end; ++t) tokens.push_back(t);
  }
  return tokens;
}

bool same(const std::vector<dist::Keys>& a, const std::vector<dist::Keys>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const dist::Keys& x, const dist::Keys& y) {
    return x.rows == y.rows && x.kv_heads == y.kv_heads && x.slot == y.slot;
  });
}

std::vector<dist::SequencePlan> plans(const GroupPlan& plan, Layout layout, int size) {
  std::vector<dist::SequencePlan> all;
  for (int rank = 0; rank < size; ++rank) all.push_back(plan_sequence(plan, layout, rank, size));
  return all;
}

// Checks a whole group of ranks; returns the pairs that each computes.
std::vector<int64_t> check(const GroupPlan& plan, Layout layout, int size) {
  INFO(fmt::format("plain [{}] shifted [{}] heads {}/{} zigzag {} ranks {}", fmt::join(plan.plain, " "),
                   fmt::join(plan.shifted, " "), plan.heads, plan.kv_heads, layout == Layout::zigzag, size));
  Pairs found(plan.heads, plan.tokens), expected(plan.heads, plan.tokens);
  expected.add(plan, tokens_of({{0, plan.tokens}}));
  const std::vector<dist::SequencePlan> all = plans(plan, layout, size);
  std::vector<int64_t> work;
  bool matched = true, inside = true;
  for (int rank = 0; rank < size; ++rank) {
    const dist::SequencePlan& mine = all[static_cast<size_t>(rank)];
    const std::vector<int64_t> tokens = tokens_of(mine.pieces);
    int64_t pairs = found.add(mine.local, tokens);
    matched = matched && mine.steps.size() == all.front().steps.size();
    for (size_t k = 0; k < mine.steps.size(); ++k) {
      const dist::SequenceStep& step = mine.steps[k];
      const dist::SequencePlan& from = all[static_cast<size_t>(step.from)];
      matched = matched && from.steps[k].to == rank && same(step.receive, from.steps[k].send);
      const std::vector<int64_t> theirs = tokens_of(from.pieces);
      for (const dist::Rectangle& r : step.compute) {
        const dist::Queries& queries = mine.queries[r.slot];
        const dist::Keys& keys = step.receive[r.key];
        inside = inside && keys.rows == from.lent[keys.slot].rows;
        for (int64_t h = queries.heads.begin; h < queries.heads.end; ++h) {
          const int64_t kv = h / (plan.heads / plan.kv_heads);
          inside = inside && kv >= keys.kv_heads.begin && kv < keys.kv_heads.end;
          for (int64_t i = queries.rows.begin; i < queries.rows.end; ++i) {
            for (int64_t j = keys.rows.begin; j < keys.rows.end; ++j, ++pairs)
              ++found.at(h, tokens[static_cast<size_t>(i)], theirs[static_cast<size_t>(j)]);
          }
        }
      }
    }
    work.push_back(pairs);
  }
  REQUIRE(matched);
  REQUIRE(inside);
  REQUIRE(found.count == expected.count);
  return work;
}

GroupPlan plan_of(const std::vector<int64_t>& documents, int64_t group, int64_t heads, int64_t kv_heads) {
  return group == 0 ? GroupPlan::full(documents, heads, kv_heads) : GroupPlan::s2(documents, group, heads, kv_heads);
}

}  // namespace

TEST_CASE("the ranks of a sequence group compute every pair of the plan once", "[sequence]") {
  const std::vector<std::pair<int64_t, int64_t>> heads = {{1, 1}, {2, 2}, {2, 1}, {6, 3}};
  for (int64_t tokens = 2; tokens <= 8; ++tokens) {
    for (const auto& documents : test::all_cuts(tokens)) {
      for (const int64_t group : {0, 2, 3, 5}) {
        for (const auto& [q, kv] : heads) {
          const GroupPlan plan = plan_of(documents, group, q, kv);
          for (int size = 1; 2 * size <= tokens; ++size) {
            for (const Layout layout : {Layout::contiguous, Layout::zigzag}) check(plan, layout, size);
          }
        }
      }
    }
  }
  for (int64_t tokens = 9; tokens <= 33; tokens += 3) {
    for (const int64_t group : {0, 2, 4, 7, 8, 16, 40}) {
      for (const int size : {2, 3, 4}) {
        for (const Layout layout : {Layout::contiguous, Layout::zigzag}) {
          check(plan_of({0, tokens}, group, 5, 5), layout, size);
          check(plan_of({0, tokens / 3, tokens}, group, 4, 2), layout, size);
        }
      }
    }
  }
}

TEST_CASE("zigzag shares the work of full attention out evenly", "[sequence]") {
  for (const int size : {2, 3, 4}) {
    for (const int64_t tokens : {8, 16, 24, 29, 31}) {
      const std::vector<int64_t> work = check(plan_of({0, tokens}, 0, 1, 1), Layout::zigzag, size);
      const int64_t most = *std::max_element(work.begin(), work.end()),
                    least = *std::min_element(work.begin(), work.end());
      INFO(tokens << " tokens, " << size << " ranks: " << least << " to " << most);
      // Where chunks are uneven, both of a rank may have a row more.
      CHECK(most - least <= (tokens % (2 * size) == 0 ? 0 : 2 * tokens));
    }
  }
}

TEST_CASE("with whole groups a rank, S2-Attn sends a half group's halo to the right and nothing else", "[sequence]") {
  const int64_t group = 8, kv_heads = 4, head_dim = 16;
  for (const int size : {1, 2, 4, 8}) {
    const GroupPlan plan = plan_of({0, 64}, group, 8, kv_heads);
    const std::vector<dist::SequencePlan> all = plans(plan, Layout::contiguous, size);
    for (int rank = 0; rank < size; ++rank) {
      const dist::SequencePlan& mine = all[static_cast<size_t>(rank)];
      // Keys and values of group/2 tokens, half of the heads; backward once more, and the left neighbour's gradients.
      const int64_t halo = group * kv_heads * head_dim / 2;
      CHECK(mine.sent_forward(head_dim) == (rank + 1 < size ? halo : 0));
      CHECK(mine.sent_backward(head_dim) == (rank + 1 < size ? halo : 0) + (rank > 0 ? halo : 0));
      REQUIRE(mine.steps.size() == (size > 1 ? 2 : 1));
      CHECK((mine.steps[0].send.empty() && mine.steps[0].compute.empty()));
      CHECK(mine.steps.back().send.size() == (rank + 1 < size ? 1 : 0));
      CHECK(mine.steps.back().compute.size() == (rank > 0 ? 1 : 0));
    }
  }
}

TEST_CASE("full attention sends three quarters of what a ring would", "[sequence]") {
  const int64_t tokens = 64, kv_heads = 2, head_dim = 16;
  for (const int size : {2, 4, 8}) {
    int64_t sent = 0;
    for (int rank = 0; rank < size; ++rank) {
      const auto plan = plan_sequence(plan_of({0, tokens}, 0, 4, kv_heads), Layout::zigzag, rank, size);
      // The first chunk to all, the second to the ranks before this one.
      CHECK(plan.sent_forward(head_dim) == (size - 1 + rank) * (tokens / (2 * size)) * 2 * kv_heads * head_dim);
      sent += plan.sent_forward(head_dim);
    }
    CHECK(4 * sent == 3 * (size - 1) * 2 * tokens * kv_heads * head_dim);
  }
}

TEST_CASE("documents that end where a rank begins send nothing", "[sequence]") {
  for (int rank = 0; rank < 4; ++rank) {
    CHECK(plan_sequence(plan_of({0, 8, 16, 24, 32}, 0, 2, 2), Layout::contiguous, rank, 4).sent_backward(1) == 0);
    CHECK(plan_sequence(plan_of({0, 9, 16, 23, 32}, 0, 2, 2), Layout::contiguous, rank, 4).sent_backward(1) > 0);
  }
}

TEST_CASE("a sequence that cannot be shared out is refused", "[sequence]") {
  CHECK_THROWS_AS(plan_sequence(plan_of({0, 3}, 0, 1, 1), Layout::zigzag, 0, 2), Error);
  CHECK_THROWS_AS(plan_sequence(GroupPlan::full(std::vector<int64_t>{0, 8}, 1, 1, 4), Layout::zigzag, 0, 2), Error);
}

}  // namespace longlora

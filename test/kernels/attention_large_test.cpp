// Attention at the end of a batch whose matrices have more than 2^31 elements: memory that is only reserved, and of the
// grid only the blocks that touch the last document.
#include <catch2/catch.hpp>

#include <cmath>
#include <vector>

#include "core/base/random.h"
#include "cuda/attention.h"
#include "cuda/host/convert.h"
#include "test/kernels/attention_reference.h"
#include "test/kernels/reserved.h"
#include "test/kernels/support.h"

using namespace longlora::cuda;
using longlora::ops::GroupPlan;
using test::Cube;
using test::Reserved;

TEST_CASE("attention finds its way past 2^31 elements", "[attention][host]") {
  constexpr int64_t kTokens = 1'100'003, kHeads = 32, kSize = 64, kLast = 70, kGroup = 48;
  static_assert(kTokens * kHeads * kSize > int64_t{1} << 31);
  const std::vector<int64_t> documents = {0, kTokens - kLast, kTokens};
  const GroupPlan plan = GroupPlan::s2(documents, kGroup, kHeads, kHeads);
  AttentionShape shape;
  shape.tokens = kTokens;
  shape.heads = shape.kv_heads = kHeads;
  shape.plain_heads = plan.plain_heads;
  shape.head_size = kSize;
  shape.scale = 0.125f;
  const QuerySchedule query_tiles = query_schedule(shape, plan.plain, plan.shifted);
  const KeySchedule key_tiles = key_schedule(shape, plan.plain, plan.shifted);

  // The last document of the last head: one matrix for q, k, v and dout.
  Reserved<bf16> x(kTokens * kHeads * kSize), out(kTokens * kHeads * kSize), dq(kTokens * kHeads * kSize),
      dk(kTokens * kHeads * kSize), dv(kTokens * kHeads * kSize);
  Reserved<float> lse(kTokens * kHeads), delta(kTokens * kHeads);
  const auto element = [&](Reserved<bf16>& memory, int64_t t, int64_t d) {
    return memory.data() + ((kTokens - kLast + t) * kHeads + kHeads - 1) * kSize + d;
  };
  Cube small(kLast, 1, kSize);
  longlora::SplitMix random(5);
  for (int64_t t = 0; t < kLast; ++t) {
    for (int64_t d = 0; d < kSize; ++d) {
      element(x, t, d)->bits = host::float_to_bf16_bits(static_cast<float>(2 * random.uniform() - 1));
      small.at(t, 0)[d] = host::bf16_bits_to_float(element(x, t, d)->bits);
    }
  }
  // A plan for this head alone: the second half's cut.
  GroupPlan alone = GroupPlan::s2(std::vector<int64_t>{0, kLast}, kGroup, 2, 2);
  alone.heads = alone.kv_heads = 1;
  alone.plain_heads = 0;
  const test::Attention exact = test::attention(alone, 0.125, small, small, small, small, test::exact);

  const ConstHeads in{x.data(), kHeads * kSize, kSize};
  const auto target = [&](Reserved<bf16>& memory) { return Heads{memory.data(), kHeads * kSize, kSize}; };
  const auto is_last = [&](int64_t row, int64_t first_head, int64_t heads, int64_t index) {
    return row >= kTokens - kLast && index < heads && first_head + index == kHeads - 1;
  };
  const test::OptionsRestored restored;
  const int64_t before = host::statistics().launches;
  host::options().only = [&](const dim3& block) {
    const int64_t launch = host::statistics().launches - before;  // forward, delta, dk and dv, dq
    if (launch == 2) {
      const int64_t row = int64_t{block.x} * 8;
      return (row + 7) / kHeads >= kTokens - kLast && row / kHeads < kTokens && (row + 7) % kHeads == kHeads - 1;
    }
    if (launch == 3) {
      const KeyTile& tile = key_tiles.tiles[block.x / key_tiles.heads];
      return is_last(tile.key, tile.kv_head, tile.kv_heads, block.x % key_tiles.heads);
    }
    const QueryTile& tile = query_tiles.tiles[block.x / query_tiles.heads];
    return is_last(tile.row, tile.head, tile.heads, block.x % query_tiles.heads);
  };
  const QueryWork queries{query_tiles.tiles.data(), static_cast<int64_t>(query_tiles.tiles.size()), query_tiles.heads};
  const KeyWork keys{key_tiles.tiles.data(), static_cast<int64_t>(key_tiles.tiles.size()), key_tiles.heads};
  attention_forward(shape, queries, in, in, in, target(out), lse.data(), nullptr);
  attention_backward(shape, queries, keys, in, in, in, in, {out.data(), kHeads * kSize, kSize}, lse.data(),
                     delta.data(), nullptr, target(dq), target(dk), target(dv), nullptr);

  for (int64_t t = 0; t < kLast; ++t) {
    const float ours = lse.data()[(kHeads - 1) * kTokens + kTokens - kLast + t];
    REQUIRE(std::abs(ours - exact.lse[t]) < 1e-5);
    for (int64_t d = 0; d < kSize; ++d) {
      // Gross agreement is enough: that the values are right is tested elsewhere.
      const auto near = [&](Reserved<bf16>& memory, const Cube& cube) {
        return std::abs(host::bf16_bits_to_float(element(memory, t, d)->bits) - cube.at(t, 0)[d]) < 0.03;
      };
      REQUIRE((near(out, exact.out) && near(dq, exact.dq) && near(dk, exact.dk) && near(dv, exact.dv)));
    }
  }
}

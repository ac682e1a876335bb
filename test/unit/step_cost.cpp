// Counted operations, bytes and rates behind `longlora plan`: against examples by hand and published figures.
#include <catch2/catch.hpp>

#include "core/model/shapes.h"
#include "core/train/scaling.h"
#include "core/train/step_cost.h"

namespace longlora {
namespace {

using Pairs = std::vector<int64_t>;

// One (query, key) pair after the other, from the definition in core/ops/group_plan.h.
double pairs_one_by_one(const ops::GroupPlan& plan, int64_t begin, int64_t end) {
  double sum = 0;
  for (int64_t head = 0; head < plan.heads; ++head) {
    const Pairs& cut = head < plan.plain_heads ? plan.plain : plan.shifted;
    for (size_t s = 0; s + 1 < cut.size(); ++s)
      for (int64_t q = std::max(begin, cut[s]); q < std::min(end, cut[s + 1]); ++q)
        for (int64_t k = cut[s]; k <= q; ++k) sum += plan.window == 0 || q - k < plan.window;
  }
  return sum;
}

// Elements of keys and values before `begin` that some query from `begin` on may need.
int64_t halo_one_by_one(const ops::GroupPlan& plan, int64_t head_dim, int64_t begin) {
  int64_t elements = 0;
  const int64_t ratio = plan.heads / plan.kv_heads;
  for (int64_t kv = 0; kv < plan.kv_heads; ++kv) {
    // KV heads read by both halves (their number is odd) are sent for each.
    for (const bool plain : {true, false}) {
      const int64_t first = kv * ratio, last = first + ratio - 1;
      if (plain ? first >= plan.plain_heads : last < plan.plain_heads) continue;
      const Pairs& cut = plain ? plan.plain : plan.shifted;
      for (int64_t k = 0; k < begin; ++k) {
        bool needed = false;
        for (int64_t q = begin; q < plan.tokens; ++q) {
          size_t s = 0;
          while (cut[s + 1] <= q) ++s;
          needed = needed || (cut[s] <= k && (plan.window == 0 || q - k < plan.window));
        }
        elements += needed ? 2 * head_dim : 0;
      }
    }
  }
  return elements;
}

recipe::Recipe recipe_of(int64_t length) {
  recipe::Recipe r;
  r.context.length = length;
  return r;
}

}  // namespace

TEST_CASE("pairs and halos of a rank are those counted one by one", "[plan]") {
  const int64_t row[] = {0, 37}, documents[] = {0, 5, 20, 37};
  for (const int64_t window : {0, 4}) {
    const ops::GroupPlan plans[] = {ops::GroupPlan::full(row, 4, 2, window), ops::GroupPlan::s2(row, 8, 4, 2, window),
                                    ops::GroupPlan::s2(row, 8, 6, 3, window),
                                    ops::GroupPlan::s2(documents, 6, 4, 4, window),
                                    ops::GroupPlan::full(documents, 4, 1, window)};
    for (const ops::GroupPlan& plan : plans) {
      for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 37}, {0, 9}, {9, 18}, {16, 24}, {30, 37}}) {
        INFO("window " << window << ", heads " << plan.heads << ", tokens " << begin << " to " << end);
        CHECK(train::attention_pairs(plan, begin, end) == pairs_one_by_one(plan, begin, end));
        CHECK(train::halo_elements(plan, 16, begin) == halo_one_by_one(plan, 16, begin));
      }
    }
  }
}

TEST_CASE("bytes between ranks", "[plan]") {
  CHECK(train::all_reduce_bytes(1000, 4) == 1500);  // 2 * 3/4
  CHECK(train::gather_bytes(1000, 4) == 750);
  CHECK(train::all_reduce_bytes(1000, 1) == 0);
  // Four groups of 8 on four ranks: half a group of K and V for half of 2 KV heads: 2 * 4 * 1 * 16.
  const int64_t row[] = {0, 32};
  CHECK(train::halo_elements(ops::GroupPlan::s2(row, 8, 4, 2), 16, 8) == 2 * 4 * 1 * 16);
  // Full: everything before.
  CHECK(train::halo_elements(ops::GroupPlan::full(row, 4, 2), 16, 24) == 24 * 2 * 2 * 16);

  recipe::Recipe r = recipe_of(32768);
  const model::Config config = model::config_of_shape("llama-2-7b");
  const train::Spread eight{.ranks = 8};
  const train::MemoryPlan memory = train::plan_memory(config, r, eight, int64_t{1} << 50);
  const auto cost = [&](const train::Spread& spread) {
    return train::step_cost(config, r, memory, spread, train::find_gpu("a100-80"), 8, 8192);
  };
  const train::Counts counts = train::count_parameters(config, r.tune);
  CHECK(cost({}).traffic.gradients == 0);
  CHECK(cost(eight).traffic.gradients == 2.0 * 7 / 8 * 4 * static_cast<double>(counts.trained()));
  CHECK(cost(eight).traffic.weights == 0);
  CHECK(cost(eight).micro_batches == 8);
  // Forward and backward of every micro-batch gather 7/8 of the frozen layers.
  CHECK(cost({.ranks = 8, .shard = train::Shard::model}).traffic.weights ==
        8 * 2 * 7.0 / 8 * 2 * static_cast<double>(counts.frozen_layers));
  // Four ranks a row, two rows at a time: 32 micro-batches; G Hkv D / 2 elements of 2 bytes, three times, a layer.
  const train::StepCost split = cost({.ranks = 8, .sequence = 4});
  CHECK(split.micro_batches == 32);
  CHECK(split.traffic.sequence == 32.0 * 32 * 3 * 2 * (8192 * 32 * 128 / 2));
}

TEST_CASE("operations are those of the published counts", "[plan]") {
  // GFLOP a token, Llama-2-7B with S2 groups of a quarter and LoRA left out: 2N forward, 2N backward (N = 6.607e9), and
  // attention 3.5 times 32 * 2 * 4096 * L/4 (keys seen on average: half a group).
  const model::Config config = model::config_of_shape("llama-2-7b");
  for (const auto& [length, expected] : {std::pair<int64_t, double>{8192, 28.3}, {32768, 33.9}, {100000, 49.4}}) {
    recipe::Recipe r = recipe_of(length);
    r.tune.targets = {};
    const train::MemoryPlan memory = train::plan_memory(config, r, {}, int64_t{1} << 50);
    const train::Flops flops = train::count_flops(config, r, memory, length / 4, 1);
    CHECK(flops.recompute == 0);
    // The published count takes L/4 for every head. Of four shifted groups a token in four is in a half group at either end, and
    // sees half as much: 15/16 of it on the whole.
    const double products = 4 * 6.607;
    const double exact = products + (expected - products) * 15 / 16;
    CHECK(flops.all() / static_cast<double>(length) / 1e9 == Approx(exact).epsilon(0.003));
  }
  // All but down_proj and attention again: 10.07 GFLOP a token; gate and up: 5.77.
  for (const auto& [policy, expected] :
       {std::pair<const char*, double>{"all_but_attention", 10.07}, {"gate_up", 5.77}}) {
    recipe::Recipe r = recipe_of(8192);
    r.tune.targets = {};
    r.memory.recompute = policy;
    const train::Flops flops = train::count_flops(config, r, train::plan_memory(config, r, {}, 0), 2048, 1);
    CHECK(flops.recompute / 8192 / 1e9 == Approx(expected).epsilon(0.002));
  }
}

TEST_CASE("more GPUs, faster GPUs and less to compute never make a step longer", "[plan]") {
  const model::Config config = model::config_of_shape("llama-2-7b");
  const recipe::Recipe r = recipe_of(32768);
  const train::MemoryPlan memory = train::plan_memory(config, r, {}, int64_t{1} << 50);
  const auto seconds = [&](const char* gpu, int64_t ranks, int64_t group) {
    return train::step_cost(config, r, memory, {.ranks = ranks}, train::find_gpu(gpu), 8, group).seconds;
  };
  CHECK(seconds("a100-80", 8, 8192) < seconds("a100-80", 4, 8192));
  CHECK(seconds("h100", 8, 8192) < seconds("a100-80", 8, 8192));
  CHECK(seconds("h100", 8, 8192) < seconds("h100", 8, 0));
  CHECK(train::attention_rate(train::find_gpu("h200"), false, 8192) == 644e12);
  CHECK(train::attention_rate(train::find_gpu("h200"), false, 1e7) == 673e12);
  CHECK(train::attention_rate(train::find_gpu("a100-80"), true, 1) == 99e12);
}

}  // namespace longlora

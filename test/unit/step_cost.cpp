// Counted operations, bytes and rates behind `longlora plan`: against examples by hand and published figures.
#include <catch2/catch.hpp>

#include "core/adapt/adapter_model.h"
#include "core/model/shapes.h"
#include "core/train/sequence_share.h"
#include "core/train/step_cost.h"
#include "test/unit/tiny_model.h"

namespace longlora {
namespace {

using Pairs = std::vector<int64_t>;

// One (query, key) pair after the other, from the definition in core/ops/group_plan.h.
double pairs_one_by_one(const ops::GroupPlan& plan) {
  double sum = 0;
  for (int64_t head = 0; head < plan.heads; ++head) {
    const Pairs& cut = head < plan.plain_heads ? plan.plain : plan.shifted;
    for (size_t s = 0; s + 1 < cut.size(); ++s)
      for (int64_t q = cut[s]; q < cut[s + 1]; ++q)
        for (int64_t k = cut[s]; k <= q; ++k) sum += plan.window == 0 || q - k < plan.window;
  }
  return sum;
}

recipe::Recipe recipe_of(int64_t length) {
  recipe::Recipe r;
  r.model.dtype = "bfloat16";
  r.context.length = length;
  return r;
}

}  // namespace

TEST_CASE("pairs of a plan, and of all ranks that share a row, are those counted one by one", "[plan]") {
  const int64_t row[] = {0, 37}, documents[] = {0, 5, 20, 37};
  for (const int64_t window : {0, 4}) {
    const ops::GroupPlan plans[] = {ops::GroupPlan::full(row, 4, 2, window), ops::GroupPlan::s2(row, 8, 4, 2, window),
                                    ops::GroupPlan::s2(row, 8, 6, 3, window),
                                    ops::GroupPlan::s2(documents, 6, 4, 4, window),
                                    ops::GroupPlan::full(documents, 4, 1, window)};
    for (const ops::GroupPlan& plan : plans) {
      INFO("window " << window << ", heads " << plan.heads);
      const double pairs = pairs_one_by_one(plan);
      CHECK(ops::attention_pairs(plan) == pairs);
      for (int size = 1; size <= 5 && window == 0; ++size) {
        const bool grouped = !plan.uniform();
        double sum = 0, most = 0;
        for (int rank = 0; rank < size; ++rank) {
          const train::SequenceShare share = train::share_of_rank(plan, 16, grouped, rank, size);
          sum += share.pairs;
          most = std::max(most, share.pairs);
        }
        CHECK(sum == pairs);
        CHECK(train::largest_share(plan, 16, grouped, size).pairs == most);
      }
    }
  }
}

TEST_CASE("bytes between ranks", "[plan]") {
  CHECK(train::ring_bytes({.all_reduce = 1000}, 4) == 1500);  // 2 * 3/4
  CHECK(train::ring_bytes({.reduce_scatter = 1000}, 4) == 750);
  CHECK(train::ring_bytes({.all_gather = 250}, 4) == 750);  // a quarter is this rank's
  CHECK(train::ring_bytes({1000, 1000, 1000}, 1) == 0);

  recipe::Recipe r = recipe_of(32768);
  const model::Config config = model::config_of_shape("llama-2-7b");
  const train::Spread eight{.ranks = 8};
  const train::MemoryPlan memory = train::plan_memory(config, r, eight, int64_t{1} << 50);
  const auto cost = [&](const train::Spread& spread, int64_t group = 8192) {
    return train::step_cost(config, r, memory, spread, train::find_gpu("a100-80"), 8, group);
  };
  const train::Counts counts = train::count_parameters(config, r.tune);
  CHECK(cost({}).sent.gradients == 0);
  CHECK(cost(eight).sent.gradients == 2.0 * 7 / 8 * 4 * static_cast<double>(counts.trained));
  CHECK(cost(eight).sent.weights == 0);
  CHECK(cost(eight).micro_batches == 8);
  // All that is frozen is gathered for the forward pass of every micro-batch; the layers again for the backward pass.
  const double head = 32000.0 * 4096;
  CHECK(cost({.ranks = 8, .shard = train::Shard::model}).sent.weights ==
        8 * 7.0 / 8 * 2 * (2 * static_cast<double>(counts.frozen) - head));
  // Four ranks a row, one row at a time: 32 micro-batches; G Hkv D / 2 elements of 2 bytes, three times, a layer.
  const train::StepCost split = cost({.ranks = 8, .sequence = 4});
  CHECK(split.micro_batches == 32);
  CHECK(split.sent.sequence == 32.0 * 32 * 3 * 2 * (8192 * 32 * 128 / 2));
  // Full attention: the last rank has both chunks needed by all before it or behind it, 6 of 8 in all forward, and 9 times
  // a chunk backward (test/unit/sequence_plan.cpp has the sums); all ranks have the same work.
  const train::StepCost full = cost({.ranks = 8, .sequence = 4}, 0), whole = cost({.ranks = 8}, 0);
  const double chunk = 32768.0 / 8 * 2 * 32 * 128 * 2;
  CHECK(full.sent.sequence == 32.0 * 32 * (6 + 9) * chunk);
  CHECK(4 * full.flops.attention() == Approx(whole.flops.attention()).epsilon(1e-3));
}

TEST_CASE("sizes from the config are those of the model", "[plan][shard]") {
  model::Config config = test::tiny_config(3);
  for (const bool tied : {false, true}) {
    for (const char* mode : {"lora", "full"}) {
      for (const std::vector<std::string>& also : {std::vector<std::string>{}, {"embed", "norm"}, {"norm"}}) {
        config.tie_embeddings = tied;
        config.attention_bias = config.mlp_bias = tied;
        recipe::Recipe r = recipe_of(24);
        r.tune.mode = mode;
        r.tune.also = also;
        r.tune.targets = {"q_proj", "v_proj", "up_proj", "down_proj"};
        if (!tied && !also.empty()) r.tune.also.emplace_back("lm_head");
        model::Llama llama(config, at::kBFloat16, at::kCPU);
        llama.initialize(1);
        adapt::make_trainable(llama, r.tune, 1);
        std::vector<train::UnitSizes> made = test::unit_sizes(llama), planned = train::unit_sizes(config, r);
        REQUIRE(made.size() == planned.size());
        for (size_t unit = 0; unit < made.size(); ++unit) {
          for (train::UnitSizes* sizes : {&made[unit], &planned[unit]}) {
            std::ranges::sort(sizes->trained);
            std::ranges::sort(sizes->frozen);
          }
          INFO(mode << ", tied " << tied << ", unit " << unit);
          CHECK(made[unit].trained == planned[unit].trained);
          CHECK(made[unit].frozen == planned[unit].frozen);
        }
      }
    }
  }
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

// The memory plan against what a model on the CPU really keeps and allocates, and the choice of what is computed again.
#include <ATen/ATen.h>
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <catch2/catch.hpp>
#include <new>

#include "core/adapt/adapter_model.h"
#include "core/model/llama.h"
#include "core/model/random_tensor.h"
#include "core/model/shapes.h"
#include "core/train/adamw.h"
#include "core/train/memory_plan.h"
#include "core/train/out_of_memory.h"
#include "core/train/trained.h"
#include "test/unit/data_support.h"

namespace longlora {
namespace {

using model::Recompute;
using train::MemoryPlan;

constexpr Recompute kPolicies[] = {Recompute::nothing, Recompute::gate_up, Recompute::all_but_attention,
                                   Recompute::everything};

model::Config small() {
  model::Config c;
  c.architecture = "LlamaForCausalLM";
  c.vocab_size = 101;
  c.hidden = 256;
  c.intermediate = 704;
  c.layers = 4;
  c.heads = 8;
  c.kv_heads = 4;
  c.head_dim = 32;
  c.max_positions = 4096;
  return c;
}

recipe::Recipe recipe_of(const char* mode, int64_t length) {
  recipe::Recipe r;
  r.tune.mode = mode;
  r.model.dtype = "float32";
  r.context.length = length;
  return r;
}

// Bytes that tensors on the CPU take, above those there at the start: now and at most.
class Watch : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t size, size_t, size_t, c10::Device) override {
    now += size;
    most = std::max(most, now);
  }
  [[nodiscard]] bool memoryProfilingEnabled() const override { return true; }
  int64_t now = 0, most = 0;
};

data::Batch batch_of(int64_t tokens, int64_t vocab) {
  data::Batch batch{
      .rows = 1, .length = tokens, .tokens = {}, .targets = {}, .positions = {}, .documents = {0, tokens}};
  for (int64_t i = 0; i < tokens; ++i) {
    batch.tokens.push_back(static_cast<int32_t>(i * 7 % vocab));
    batch.targets.push_back(static_cast<int32_t>((i * 7 + 7) % vocab));
    batch.positions.push_back(static_cast<int32_t>(i));
  }
  return batch;
}

}  // namespace

TEST_CASE("what a layer keeps is what the plan says", "[memory]") {
  const model::Config config = small();
  constexpr int64_t kTokens = 96;
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    model::Layer layer(config, 0, at::TensorOptions(dtype));
    for (model::Parameter* p : layer.parameters()) model::fill_normal(p->value, 0.1, model::name_hash(p->name));
    const int64_t whole[] = {0, kTokens};
    model::Pass pass;
    pass.plan = ops::GroupPlan::s2(whole, 32, config.heads, config.kv_heads);
    pass.positions = at::arange(kTokens, at::kInt);
    pass.rotary = {at::ones({kTokens, config.head_dim / 2}, at::kFloat),
                   at::zeros({kTokens, config.head_dim / 2}, at::kFloat)};
    const at::Tensor x = at::ones({kTokens, config.hidden}, at::TensorOptions(dtype));
    for (const Recompute policy : kPolicies) {
      model::Saved saved;
      (void)layer.forward(x, pass, policy, &saved);
      int64_t bytes = 0;
      for (const at::Tensor& t : {saved.x, saved.qkv, saved.out, saved.lse, saved.mid, saved.gate_up})
        if (t.defined()) bytes += static_cast<int64_t>(t.nbytes());
      INFO(train::to_string(policy) << " " << dtype);
      CHECK(bytes == train::saved_bytes(config, policy, kTokens, static_cast<int64_t>(c10::elementSize(dtype))));
    }
  }
}

TEST_CASE("parameters counted from the config are those of the model", "[memory]") {
  for (const bool tied : {false, true}) {
    for (const char* mode : {"lora", "full"}) {
      model::Config config = small();
      config.tie_embeddings = tied;
      config.attention_bias = tied;
      recipe::Recipe r = recipe_of(mode, 64);
      if (!tied) r.tune.also.emplace_back("lm_head");
      r.tune.targets.emplace_back("down_proj");
      model::Llama llama(config, at::kFloat, at::kCPU);
      llama.initialize(1);
      adapt::make_trainable(llama, r.tune, 1);
      int64_t all = 0, trained = 0;
      for (const model::Parameter* p : llama.parameters()) all += p->value.numel();
      for (const model::Parameter* p : llama.trainable()) trained += p->master.numel();
      const train::Counts counts = train::count_parameters(config, r.tune);
      CHECK(counts.all() == all);
      CHECK(counts.trained == trained);
    }
  }
  // Published: Llama-2-7B 6,738,415,616, Llama-3-8B 8,030,261,248, Mistral-7B 7,241,732,096.
  recipe::Tune none;
  none.targets = none.also = {};
  CHECK(train::count_parameters(model::config_of_shape("llama-2-7b"), none).all() == 6'738'415'616);
  CHECK(train::count_parameters(model::config_of_shape("llama-3-8b"), none).all() == 8'030'261'248);
  CHECK(train::count_parameters(model::config_of_shape("mistral-7b"), none).all() == 7'241'732'096);
}

TEST_CASE("a step takes the memory that was planned", "[memory]") {
  constexpr int64_t kTokens = 1024;
  const model::Config config = small();
  for (const char* mode : {"lora", "full"}) {
    for (const char* policy : {"nothing", "gate_up", "all_but_attention", "everything"}) {
      recipe::Recipe r = recipe_of(mode, kTokens);
      r.memory.recompute = policy;
      const MemoryPlan plan = train::plan_memory(config, r, {}, int64_t{1} << 40);
      Watch watch;
      {
        // Not owned: the guard keeps a shared pointer.
        const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE,
                                        std::shared_ptr<c10::DebugInfoBase>(&watch, [](c10::DebugInfoBase*) {}));
        model::Llama llama(config, at::kFloat, at::kCPU);
        llama.initialize(1);
        CHECK(watch.now == train::count_parameters(config, {.mode = "full"}).all() * 4);
        adapt::make_trainable(llama, r.tune, 1);
        dist::Activity activity;
        const auto alone = dist::group_of_one(activity);
        train::Trained trained(llama, train::Gradients::whole, *alone);
        const train::AdamW optimizer(trained, r.optimizer);
        const int64_t resident = watch.now;
        INFO(mode << " " << policy << ": resident " << resident << ", planned " << plan.weights + plan.trained);
        CHECK(static_cast<double>(resident) == Approx(static_cast<double>(plan.weights + plan.trained)).epsilon(0.01));
        watch.most = watch.now;
        const std::vector<Recompute>& policies = plan.recompute;
        (void)llama.forward_backward(batch_of(kTokens, config.vocab_size), {.group = 256}, policies, 1, {});
        const int64_t used = watch.most - resident, planned = plan.activations + plan.work;
        INFO("used " << used << ", planned " << planned << ", work " << plan.work << ", head " << plan.head);
        const double expected = static_cast<double>(planned);
        CHECK(static_cast<double>(used) / expected > 0.9);
        CHECK(static_cast<double>(used) / expected < 1.05);
      }
    }
  }
}

TEST_CASE("auto computes again as little as fits, layer by layer", "[memory]") {
  const model::Config config = model::config_of_shape("llama-2-7b");
  recipe::Recipe r = recipe_of("lora", 32768);
  r.model.dtype = "bfloat16";
  const auto plan = [&](double gib) { return train::plan_memory(config, r, {}, static_cast<int64_t>(gib * 0x1p30)); };
  CHECK(train::describe(plan(1000).recompute) == "nothing");
  int64_t last = plan(1000).total();
  size_t before = 0;
  for (double gib = 140; gib > 20; gib -= 1) {
    const MemoryPlan p = plan(gib);
    INFO(gib << " GiB: " << train::describe(p.recompute) << ", " << p.total());
    CHECK(p.total() <= last);
    last = p.total();
    CHECK(p.fits == (p.total() <= static_cast<int64_t>(gib * 0x1p30)));
    size_t cost = 0;  // never less is computed again with less memory
    for (size_t i = 0; i < p.recompute.size(); ++i) {
      cost += static_cast<size_t>(p.recompute[i]);
      CHECK(std::abs(static_cast<int>(p.recompute[i]) - static_cast<int>(p.recompute.back())) <= 1);
    }
    CHECK(cost >= before);
    before = cost;
  }
  const MemoryPlan mixed = plan(90);
  CHECK(train::describe(mixed.recompute).find("layers gate_up, ") != std::string::npos);
  CHECK(train::describe(mixed.recompute).ends_with("nothing"));
  CHECK_FALSE(plan(1).fits);
  CHECK(train::describe(plan(1).recompute) == "everything");
}

TEST_CASE("sharding and sequence parallelism split what they should", "[memory]") {
  const model::Config config = model::config_of_shape("llama-2-70b");
  recipe::Recipe r = recipe_of("lora", 32768);
  r.model.dtype = "bfloat16";
  r.memory.recompute = "everything";
  const auto plan = [&](const train::Spread& spread) { return train::plan_memory(config, r, spread, 0); };
  const train::Counts counts = train::count_parameters(config, r.tune);
  const MemoryPlan one = plan({.ranks = 8}), states = plan({.ranks = 8, .shard = train::Shard::optimizer}),
                   model = plan({.ranks = 8, .shard = train::Shard::model}), row = plan({.ranks = 8, .sequence = 8});
  CHECK(one.weights == counts.all() * 2);
  CHECK(one.trained == counts.trained * 16);
  const auto near = [](int64_t a, int64_t b) {  // but for the padding of slices
    return Approx(static_cast<double>(a)).epsilon(1e-5) == static_cast<double>(b);
  };
  CHECK(near(states.trained, counts.trained * 4 + counts.trained * 16 / 8));
  CHECK(states.weights == one.weights);
  // What is trained stays whole, all else is cut up; two layers are there at a time.
  const int64_t head = 32000 * int64_t{8192}, layer = (counts.frozen - head) / config.layers;
  CHECK(near(model.weights, counts.trained * 2 + counts.frozen * 2 / 8 + 2 * layer * 2));
  CHECK(model.trained == states.trained);
  CHECK(row.weights == one.weights);
  CHECK(row.activations == one.activations / 8);
}

TEST_CASE("running out of memory names the place, the plan and the keys that help", "[memory]") {
  const model::Config config = model::config_of_shape("llama-2-7b");
  recipe::Recipe r = recipe_of("lora", 32768);
  r.batch.micro = 2;
  const MemoryPlan plan = train::plan_memory(config, r, {}, int64_t{1} << 50);
  const auto error = [&](const std::function<void()>& work) {
    return test::error_of([&] {
      train::naming_out_of_memory(
          plan, r, 1, [] { return std::string("step 3, optimizer"); }, work);
    });
  };
  using Catch::Contains;
  for (const std::string& text :
       {error([] { throw std::bad_alloc(); }), error([] { TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA full"); }),
        error([] { (void)at::empty({int64_t{1} << 55}, at::kByte); })}) {
    CHECK_THAT(text, Contains("1|step 3, optimizer: out of memory"));
    CHECK_THAT(text, Contains("weights 25.13 GiB") && Contains("kept for backward") && Contains("recompute: nothing"));
    CHECK_THAT(text, Contains("batch.micro") && Contains("memory.recompute=everything"));
  }
  CHECK_THROWS_AS(train::naming_out_of_memory(
                      plan, r, 1, [] { return ""; }, [] { TORCH_CHECK(false, "another error"); }),
                  c10::Error);
}

}  // namespace longlora

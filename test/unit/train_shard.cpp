// What is cut up over ranks (parallel.shard): the same numbers as uncut, the memory that it is for, and the bytes that it costs.
#include <catch2/catch.hpp>

#include "core/base/error.h"
#include "core/base/random.h"
#include "core/model/memory.h"
#include "core/model/random_tensor.h"
#include "core/train/adamw.h"
#include "core/train/traffic.h"
#include "core/train/watcher.h"
#include "test/unit/ranks.h"
#include "test/unit/tiny_model.h"

namespace longlora {
namespace {

using model::Llama;
using model::Recompute;
using train::Gradients;
using train::Shard;

struct Case {
  std::string name;
  bool full = false, tied = false, bias = false;
  at::ScalarType type = at::kFloat;
};

model::Config config_of(const Case& c) {
  model::Config config = test::tiny_config(3);
  config.tie_embeddings = c.tied;
  config.attention_bias = config.mlp_bias = c.bias;
  return config;
}

bool trains(const Case& c, const model::Parameter& p) {
  return c.full || p.kind == model::Kind::norm || p.kind == model::Kind::embed;
}

// Filled unit by unit, as a run does; with `shards` cut up as it is filled.
void fill(Llama& llama, const Case& c, train::WeightShards* shards) {
  const auto units = llama.units();
  llama.fill_units(
      [](model::Parameter& p) {
        const at::Tensor drawn = at::empty(p.value.sizes(), at::kFloat);
        model::fill_normal(drawn, p.kind == model::Kind::norm ? 0.5 : 0.3, model::name_hash(p.name));
        p.value.copy_(drawn);
      },
      [&](size_t unit) {
        for (model::Parameter* p : units[unit])
          if (trains(c, *p)) p->make_trainable();
        if (shards != nullptr) shards->take(unit);
      });
  if (c.full) return;
  llama.add_lora([](const std::string&) { return model::LoraShape{3, 5.0 / 3}; }, 0, 1);
}

data::Batch batch_of(uint64_t seed) {
  SplitMix random(seed);
  data::Batch batch{.rows = 1, .length = 24, .tokens = {}, .targets = {}, .positions = {}, .documents = {0, 9, 24}};
  for (int32_t i = 0; i < 24; ++i) {
    batch.tokens.push_back(static_cast<int32_t>(random.below(41)));
    batch.targets.push_back(static_cast<int32_t>(random.below(41)));
    batch.positions.push_back(i < 9 ? i : i - 9);
  }
  return batch;
}

struct State {
  std::vector<at::Tensor> values, masters, first, second;
  double norm = 0;
};

bool same(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  if (a.size() != b.size() || a.empty()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if (!at::equal(a[i], b[i])) return false;
  return true;
}

// Three steps with gradients that are drawn, the same for every cut: rank 0 has them, the others zeros.
State steps(const Case& c, Gradients kind, dist::Group& group, int64_t bucket = train::Trained::kBucket) {
  const bool cut = kind != Gradients::whole;
  const model::Cut mine = cut ? model::Cut{.rank = group.rank(), .ranks = group.size()} : model::Cut{};
  Llama llama(config_of(c), c.type, at::kCPU);
  llama.set_cut(mine);
  fill(llama, c, nullptr);
  train::Trained trained(llama, kind, group, bucket);
  recipe::Optimizer options;
  options.weight_decay = 0.1;
  options.max_grad_norm = 0;
  train::AdamW optimizer(trained, options);
  const auto units = llama.units();
  State state;
  const auto begun = [&] {
    return group.traffic(dist::Operation::all_reduce).calls + group.traffic(dist::Operation::reduce_scatter).calls;
  };
  for (uint64_t step = 0; step < 3; ++step) {
    const int64_t before = begun();
    trained.last_micro_batch();
    for (size_t unit = units.size(); unit-- > 0;) {
      trained.filling(unit);
      if (unit == 0 && bucket < 1000 && group.size() > 1 && begun() < before + 3)
        fail("only {} sums are begun before the backward pass ends", begun() - before);
      for (model::Parameter* p : units[unit]) {
        if (!p->trainable() || group.rank() > 0) continue;
        const at::Tensor drawn = at::empty(p->value.sizes(), p->grad.options());
        model::fill_normal(drawn, 1, model::name_hash(p->name) + step);
        p->grad.add_(drawn);
      }
      trained.filled(unit);
    }
    trained.sum();
    state.norm = optimizer.step(1e-2);
    trained.spread();
  }
  for (const train::Slice& slice : trained.slices()) {
    const auto whole = [&](const at::Tensor& of) { return trained.whole(of, slice.parameter->value.sizes()).clone(); };
    state.masters.push_back(whole(slice.master));
    state.first.push_back(whole(slice.first));
    state.second.push_back(whole(slice.second));
    if (kind != Gradients::sliced_by_unit) state.values.push_back(slice.parameter->value.clone());
    const at::Tensor& grad = slice.parameter->grad;
    if (grad.defined() && grad.abs().sum().item<double>() != 0) fail("gradients are left");
  }
  return state;
}

// Bytes under the parameters that are cut up, as they are now.
int64_t held_bytes(Llama& llama, bool full) {
  std::vector<at::Tensor> values;
  for (const model::Parameter* p : llama.parameters())
    if (p->kind != model::Kind::lora && (full || !p->trainable())) values.push_back(p->value);
  int64_t bytes = 0;
  for (const model::Extent& memory : model::memory_under(values))
    bytes += static_cast<int64_t>(memory.storage.nbytes());
  return bytes;
}

// Notes the most memory that gathered weights took.
struct Watcher : train::Watcher {
  Llama& llama;
  train::WeightShards& weights;
  bool full;
  int64_t most = 0, most_held = 0;
  Watcher(Llama& l, train::WeightShards& w, train::Trained& t, bool f)
      : train::Watcher(l, &w, t), llama(l), weights(w), full(f) {}
  void needed(size_t unit, size_t next) override {
    train::Watcher::needed(unit, next);
    most = std::max(most, weights.gathered_bytes());
    most_held = std::max(most_held, held_bytes(llama, full));
  }
};

const Case kCases[] = {{.name = "LoRA"},
                       {.name = "LoRA, tied, bfloat16", .tied = true, .bias = true, .type = at::kBFloat16},
                       {.name = "full, biases", .full = true, .bias = true},
                       {.name = "full, tied, bfloat16", .full = true, .tied = true, .type = at::kBFloat16}};

}  // namespace

TEST_CASE("a step in slices has the bits of a whole one", "[train][shard]") {
  dist::Job alone;
  for (const Case& c : kCases) {
    const State whole = steps(c, Gradients::whole, alone.group());
    for (int size = 1; size <= 4; ++size) {
      const auto check = [&](dist::Group& group) {
        for (const Gradients kind : {Gradients::whole, Gradients::sliced, Gradients::sliced_by_unit}) {
          const bool small = kind != Gradients::sliced_by_unit || size % 2 == 0;  // several buckets
          const State state = steps(c, kind, group, small ? 300 : train::Trained::kBucket);
          const bool values = kind == Gradients::sliced_by_unit || same(state.values, whole.values);
          const bool rest =
              same(state.masters, whole.masters) && same(state.first, whole.first) && same(state.second, whole.second);
          if (!values || !rest || std::abs(state.norm / whole.norm - 1) > 1e-12)
            fail("{}: rank {} of {} differs, kind {}", c.name, group.rank(), size, static_cast<int>(kind));
        }
      };
      if (size == 1) {
        check(alone.group());
      } else {
        require_no_errors(on_ranks(size, [&](Rank r) { check(r.group); }));
      }
    }
  }
}

TEST_CASE("weight decay leaves vectors alone, whole or in slices", "[train][shard]") {
  const Case c{.name = "full, biases", .full = true, .bias = true};
  const auto check = [&](dist::Group& group, Gradients kind) {
    Llama llama(config_of(c), at::kFloat, at::kCPU);
    if (kind == Gradients::sliced) llama.set_cut({group.rank(), group.size()});
    fill(llama, c, nullptr);
    std::vector<at::Tensor> before;
    for (const model::Parameter* p : llama.parameters()) before.push_back(p->value.clone());
    train::Trained trained(llama, kind, group);
    recipe::Optimizer options;
    options.weight_decay = 0.5;
    train::AdamW optimizer(trained, options);
    trained.sum();
    (void)optimizer.step(0.1);  // the gradients are zeros
    trained.spread();
    for (size_t i = 0; i < before.size(); ++i) {
      const at::Tensor& value = llama.parameters()[i]->value;
      const at::Tensor expected = value.dim() >= 2 ? before[i] * (1 - 0.1 * 0.5) : before[i];
      if (!at::allclose(value, expected, 1e-6)) fail("{} decays otherwise", llama.parameters()[i]->name);
    }
  };
  dist::Job alone;
  check(alone.group(), Gradients::whole);
  require_no_errors(on_ranks(2, [&](Rank r) { check(r.group, Gradients::sliced); }));
}

TEST_CASE("memory under tensors comes back under their views", "[train][shard]") {
  const at::Tensor whole = at::arange(24, at::kFloat).view({6, 4}), part = whole.narrow(0, 2, 3), other = at::ones({3});
  const auto memory = model::memory_under({part, whole.narrow(0, 5, 1), other});
  REQUIRE(memory.size() == 2);
  CHECK(memory[0].bytes == 24 * 4);
  memory[0].drop();
  CHECK((!memory[0].held() && !model::has_memory(part) && model::has_memory(other)));
  CHECK((part.sizes() == at::IntArrayRef({3, 4}) && other.sum().item<float>() == 3));
  memory[0].take();
  whole.fill_(7);
  CHECK(part.sum().item<float>() == 7 * 12);
}

TEST_CASE("a slice of any size is put together again", "[train][shard]") {
  for (int ranks = 1; ranks <= 5; ++ranks) {
    for (const int64_t numel : {1, 15, 16, 17, 63, 64, 65, 1000}) {
      const at::Tensor whole = at::arange(1, numel + 1, at::kFloat);
      std::vector<at::Tensor> slices;
      for (int rank = 0; rank < ranks; ++rank) slices.push_back(model::Cut{rank, ranks}.of(whole));
      const at::Tensor all = at::cat(slices);
      CHECK(at::equal(all.narrow(0, 0, numel), whole));
      CHECK(all.sum().item<double>() == whole.sum().item<double>());  // zeros beyond
      CHECK(all.numel() < numel + 16 * ranks);
    }
  }
}

TEST_CASE("a model cut up over ranks computes what it does whole, in the memory of its slices", "[train][shard]") {
  const data::Batch batch = batch_of(5);
  const std::vector<Recompute> policies(3, Recompute::gate_up);
  for (const Case& c : kCases) {
    Llama whole(config_of(c), c.type, at::kCPU);
    fill(whole, c, nullptr);
    int64_t largest = 0, all_bytes = 0;
    for (const auto& unit : whole.units()) {
      int64_t bytes = 0;
      for (const model::Parameter* p : unit)
        if (c.full || !p->trainable()) bytes += static_cast<int64_t>(p->value.nbytes());
      largest = std::max(largest, bytes);
      all_bytes += bytes;
    }
    const at::Tensor expected = whole.token_losses(batch, {.group = 6});
    (void)whole.forward_backward(batch, {.group = 6}, policies, 0.1, {});
    std::vector<at::Tensor> gradients;
    for (const model::Parameter* p : whole.trainable()) gradients.push_back(p->grad);
    const auto units = test::unit_sizes(whole);

    const auto check = [&](Rank r) {
      const model::Cut cut{r.rank, r.size};
      Llama llama(config_of(c), c.type, at::kCPU, true);
      llama.set_cut(cut);
      train::WeightShards weights(llama, cut, c.full);
      fill(llama, c, &weights);
      weights.connect(r.group);
      train::Trained trained(llama, c.full ? Gradients::sliced_by_unit : Gradients::sliced, r.group);
      Watcher watcher(llama, weights, trained, c.full);
      const auto require = [&](bool right, const char* what) {
        if (!right) fail("{}: rank {} of {}: {}", c.name, r.rank, r.size, what);
      };
      const train::StepShape shape{.shard = Shard::model,
                                   .full = c.full,
                                   .tied = c.tied,
                                   .ranks = r.size,
                                   .value = static_cast<int64_t>(c10::elementSize(c.type)),
                                   .master = 4,
                                   .micro_batches = 2};
      const auto bytes = [&](dist::Operation operation) { return r.group.traffic(operation).bytes; };
      const auto padding = [&] {  // to whole vectors, of every slice
        int64_t count = 0;
        for (const auto& unit : units) count += static_cast<int64_t>(unit.trained.size() + unit.frozen.size());
        return count * 64;
      };
      require(held_bytes(llama, c.full) == 0 && weights.gathered_bytes() == 0, "keeps whole weights");
      require(weights.kept_bytes() <= all_bytes / r.size + padding(), "keeps too much");

      require(at::equal(llama.token_losses(batch, {.group = 6}), expected), "other losses");
      require(bytes(dist::Operation::all_gather) == gathered_bytes_of_forward(units, shape), "gathers other bytes");
      require(weights.gathered_bytes() == 0, "holds whole weights");
      const int64_t before = bytes(dist::Operation::all_gather);
      for (int micro = 0; micro < 2; ++micro) {
        if (micro == 1) trained.last_micro_batch();
        require(at::equal(llama.forward_backward(batch, {.group = 6}, policies, 0.1, {}), expected), "other losses");
      }
      trained.sum();
      require(held_bytes(llama, c.full) == 0 && weights.gathered_bytes() == 0, "holds whole weights");
      require(watcher.most_held <= (c.tied ? 2 : 1) * largest, "holds more than a unit");
      require(watcher.most <= (c.tied ? 3 : 2) * (largest + padding()), "gathers more than a unit ahead");
      for (size_t i = 0; i < gradients.size(); ++i) {
        const at::Tensor sum = trained.whole(trained.slices()[i].grad, gradients[i].sizes());
        const at::Tensor times = gradients[i] * (2 * r.size);
        require(((sum - times).norm() <= 1e-6 * times.norm()).item<bool>(), "other gradients");
      }
      const int64_t gathers_of_check = bytes(dist::Operation::all_gather);
      recipe::Optimizer options;
      train::AdamW optimizer(trained, options);
      (void)optimizer.step(1e-2);
      trained.spread();
      weights.refresh();
      int64_t checked = 0;
      for (const train::Slice& slice : trained.slices()) checked += static_cast<int64_t>(slice.grad.nbytes());
      const train::StepBytes counted{.all_reduce = bytes(dist::Operation::all_reduce),
                                     .reduce_scatter = bytes(dist::Operation::reduce_scatter),
                                     .all_gather = bytes(dist::Operation::all_gather) - before - checked};
      const train::StepBytes formula = step_bytes(units, shape);
      require(gathers_of_check >= before, "counts backwards");
      require(counted.all_reduce == formula.all_reduce, "reduces other bytes");
      require(counted.reduce_scatter == formula.reduce_scatter, "scatters other bytes");
      require(counted.all_gather == formula.all_gather, "gathers other bytes in a step");
      // The new weights are the master copies, rounded.
      const auto parameters = llama.units();
      for (size_t i = 0; i < parameters.size() && c.full; ++i) {
        weights.needed(i, i);
        for (const train::Slice& slice : trained.slices()) {
          const model::Parameter& p = *slice.parameter;
          if (std::ranges::find(parameters[i], &p) == parameters[i].end()) continue;
          require(at::equal(trained.whole(p.master, p.value.sizes()).to(c.type), p.value), "other weights");
        }
        weights.done(i);
      }
    };
    for (const int size : {2, 3}) require_no_errors(on_ranks(size, check));
  }
}

TEST_CASE("bytes between ranks are those of the formulas", "[train][shard]") {
  const data::Batch batch = batch_of(5);
  const std::vector<Recompute> policies(3, Recompute::nothing);
  for (const Case& c : kCases) {
    for (const Shard shard : {Shard::none, Shard::optimizer}) {
      require_no_errors(on_ranks(3, [&](Rank r) {
        Llama llama(config_of(c), c.type, at::kCPU);
        if (shard != Shard::none) llama.set_cut({r.rank, r.size});
        fill(llama, c, nullptr);
        train::Trained trained(llama, shard == Shard::none ? Gradients::whole : Gradients::sliced, r.group);
        train::AdamW optimizer(trained, recipe::Optimizer());
        for (int micro = 0; micro < 2; ++micro) {
          if (micro == 1) trained.last_micro_batch();
          (void)llama.forward_backward(batch, {}, policies, 0.1, {});
        }
        trained.sum();
        (void)optimizer.step(1e-2);
        trained.spread();
        const auto units = test::unit_sizes(llama);
        const train::StepBytes formula = train::step_bytes(units, {.shard = shard,
                                                                   .full = c.full,
                                                                   .tied = c.tied,
                                                                   .ranks = r.size,
                                                                   .value = llama.dtype() == at::kFloat ? 4 : 2,
                                                                   .master = 4,
                                                                   .micro_batches = 2});
        const auto bytes = [&](dist::Operation operation) { return r.group.traffic(operation).bytes; };
        if (bytes(dist::Operation::all_reduce) != formula.all_reduce ||
            bytes(dist::Operation::reduce_scatter) != formula.reduce_scatter ||
            bytes(dist::Operation::all_gather) != formula.all_gather)
          fail("{}: {} {} {}, not {} {} {}", c.name, bytes(dist::Operation::all_reduce),
               bytes(dist::Operation::reduce_scatter), bytes(dist::Operation::all_gather), formula.all_reduce,
               formula.reduce_scatter, formula.all_gather);
      }));
    }
  }
}

}  // namespace longlora

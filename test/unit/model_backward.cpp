// The written-out backward pass against autograd in float64, for everything that can be trained, every
// recompute policy, both attention patterns, packed documents and grouped-query attention; and the loss of a
// step against its split, also over ranks that share its rows.
#include <catch2/catch.hpp>

#include "core/base/random.h"
#include "core/model/llama.h"
#include "core/model/random_tensor.h"
#include "test/reference/llama_autograd.h"
#include "test/unit/ranks.h"
#include "test/unit/tiny_model.h"

namespace longlora {
namespace {

using model::Kind;
using model::Llama;
using model::Recompute;

constexpr double kScale = 5.0 / 3;

struct Case {
  std::string name;
  int64_t heads = 4, kv_heads = 2;
  bool tied = false, bias = false;
  int64_t window = 0, group = 0;
  bool full = false;  // full fine-tuning instead of LoRA
};

model::Config config_of(const Case& c) {
  model::Config config = test::tiny_config(2);
  config.vocab_size = 19;
  config.heads = c.heads;
  config.kv_heads = c.kv_heads;
  config.tie_embeddings = c.tied;
  config.attention_bias = config.mlp_bias = c.bias;
  config.sliding_window = c.window;
  return config;
}

// Two rows of 20 tokens; the first holds three documents, the second two; some targets carry no loss.
data::Batch batch_of(uint64_t seed) {
  SplitMix random(seed);
  data::Batch batch{
      .rows = 2, .length = 20, .tokens = {}, .targets = {}, .positions = {}, .documents = {0, 5, 16, 20, 33, 40}};
  for (size_t d = 0; d + 1 < batch.documents.size(); ++d) {
    for (int64_t i = batch.documents[d]; i < batch.documents[d + 1]; ++i) {
      batch.tokens.push_back(static_cast<int32_t>(random.below(19)));
      batch.positions.push_back(static_cast<int32_t>(i - batch.documents[d]));
      batch.targets.push_back(random.below(5) == 0 ? data::kIgnore : static_cast<int32_t>(random.below(19)));
    }
  }
  return batch;
}

Llama model_of(const Case& c) {
  Llama llama(config_of(c), at::kDouble, at::kCPU);
  for (model::Parameter* p : llama.parameters())
    model::fill_normal(p->value, p->kind == Kind::norm ? 0.5 : 0.3, model::name_hash(p->name));
  if (c.full) {
    llama.train_everything();
    return llama;
  }
  // All but k_proj: a stack with a gap.
  llama.add_lora(
      [](const std::string& module) {
        return module.ends_with("k_proj") ? std::nullopt : std::optional<model::LoraShape>({3, kScale});
      },
      0, 1);
  const Kind also[] = {Kind::embed, Kind::norm};
  llama.train_kinds(also);
  for (model::Parameter* p : llama.trainable()) {
    if (p->name.ends_with("lora_B.weight")) model::fill_normal(p->master, 0.3, model::name_hash(p->name));
    p->sync();
  }
  return llama;
}

reference::Weights weights_of(Llama& llama) {
  reference::Weights weights;
  for (model::Parameter* p : llama.parameters()) {
    weights[p->name] = p->trainable() ? p->master.clone().requires_grad_(true) : p->value.clone();
  }
  return weights;
}

double relative(const at::Tensor& ours, const at::Tensor& expected) {
  return ((ours - expected).norm() / (expected.norm() + 1e-300)).item<double>();
}

}  // namespace

TEST_CASE("the written-out backward equals autograd in float64", "[model][backward]") {
  const Case cases[] = {
      {.name = "LoRA, full attention"},
      {.name = "LoRA, S2", .group = 6},
      {.name = "LoRA, S2, odd group, odd KV heads, window", .heads = 6, .kv_heads = 3, .window = 4, .group = 5},
      {.name = "LoRA, tied, bias, one KV head", .heads = 4, .kv_heads = 1, .tied = true, .bias = true, .group = 4},
      {.name = "full fine-tuning, S2, bias", .bias = true, .group = 6, .full = true},
      {.name = "full fine-tuning, tied, MHA", .heads = 4, .kv_heads = 4, .tied = true, .full = true},
  };
  const data::Batch batch = batch_of(7);
  const double scale = 1.0 / 29;
  for (const Case& c : cases) {
    Llama llama = model_of(c);
    reference::Weights weights = weights_of(llama);
    const at::Tensor expected = reference::token_losses(config_of(c), weights, kScale, batch, c.group);
    (expected.sum() * scale).backward();
    using enum Recompute;
    const std::vector<Recompute> of_layers[] = {
        {nothing, nothing},       {gate_up, gate_up}, {all_but_attention, all_but_attention},
        {everything, everything}, {gate_up, nothing}, {everything, all_but_attention}};
    for (const std::vector<Recompute>& policies : of_layers) {
      INFO(c.name << ", policies " << static_cast<int>(policies[0]) << " " << static_cast<int>(policies[1]));
      for (model::Parameter* p : llama.trainable()) p->grad.zero_();
      const at::Tensor losses = llama.forward_backward(batch, {.group = c.group}, policies, scale, {});
      CHECK(relative(losses, expected.detach()) < 1e-12);
      CHECK(relative(llama.token_losses(batch, {.group = c.group}), expected.detach()) < 1e-12);
      for (const model::Parameter* p : llama.trainable()) {
        INFO(p->name);
        CHECK(relative(p->grad, weights.at(p->name).grad()) < 1e-9);
      }
    }
  }
}

TEST_CASE("LoRA dropout draws the same mask in forward, recomputation and backward", "[model][backward]") {
  // The gradient of a quantity that is linear in B: with the mask fixed by its seed, moving B by e moves the
  // loss by e * gradient. Checked by central differences along a random direction.
  Llama llama(config_of({.name = ""}), at::kDouble, at::kCPU);
  for (model::Parameter* p : llama.parameters()) model::fill_normal(p->value, 0.3, model::name_hash(p->name));
  llama.add_lora([](const std::string&) { return model::LoraShape{2, 1.5}; }, 0.4, 3);
  const data::Batch batch = batch_of(11);
  const auto loss = [&](uint64_t seed, Recompute policy) {
    const std::vector<Recompute> policies(2, policy);
    return llama.forward_backward(batch, {.group = 6}, policies, 1.0, {.seed = seed}).sum().item<double>();
  };
  for (model::Parameter* p : llama.trainable()) {
    model::fill_normal(p->master, 0.3, model::name_hash(p->name) + 1);
    p->sync();
  }
  CHECK(loss(5, Recompute::nothing) == loss(5, Recompute::everything));
  CHECK(loss(5, Recompute::nothing) != loss(6, Recompute::nothing));
  for (const Recompute policy : {Recompute::nothing, Recompute::everything}) {
    for (model::Parameter* p : llama.trainable()) p->grad.zero_();
    loss(5, policy);
    double slope = 0;
    std::vector<at::Tensor> directions, gradients;
    for (model::Parameter* p : llama.trainable()) {
      directions.push_back(at::empty_like(p->master));
      model::fill_normal(directions.back(), 1, model::name_hash(p->name) + 2);
      slope += (directions.back() * p->grad).sum().item<double>();
    }
    const double e = 1e-6;
    const auto moved = [&](double by) {
      size_t i = 0;
      for (model::Parameter* p : llama.trainable()) {
        p->master.add_(directions[i++], by);
        p->sync();
      }
    };
    moved(e);
    const double up = loss(5, policy);
    moved(-2 * e);
    const double down = loss(5, policy);
    moved(e);
    CHECK(slope == Approx((up - down) / (2 * e)).epsilon(1e-6));
  }
}

namespace {

// Documents packed into rows of `length` tokens, in the given order, the rest of a row filled with pads of one token each
// that nothing attends to and that carry no loss, as the loader does.
struct Document {
  std::vector<int32_t> tokens, targets;
};
std::vector<data::Batch> pack(const std::vector<Document>& documents, const std::vector<std::vector<size_t>>& rows,
                              int64_t length, size_t rows_a_batch) {
  std::vector<data::Batch> batches;
  for (size_t r = 0; r < rows.size(); ++r) {
    if (r % rows_a_batch == 0) {
      batches.push_back({.rows = 0, .length = length, .tokens = {}, .targets = {}, .positions = {}, .documents = {0}});
    }
    data::Batch& batch = batches.back();
    ++batch.rows;
    const auto add = [&](const Document& document) {
      for (size_t i = 0; i < document.tokens.size(); ++i) {
        batch.tokens.push_back(document.tokens[i]);
        batch.targets.push_back(document.targets[i]);
        batch.positions.push_back(static_cast<int32_t>(i));
      }
      batch.documents.push_back(static_cast<int64_t>(batch.tokens.size()));
    };
    for (const size_t d : rows[r]) add(documents[d]);
    while (static_cast<int64_t>(batch.tokens.size()) < batch.size()) add({{0}, {data::kIgnore}});
  }
  return batches;
}

// The step's loss, and its gradients one after the other.
std::pair<double, at::Tensor> step(Llama& llama, const std::vector<data::Batch>& batches, double scale, int64_t group,
                                   uint64_t dropout = 0) {
  for (model::Parameter* p : llama.trainable()) p->grad.zero_();
  const std::vector<Recompute> policies(2, Recompute::gate_up);
  double sum = 0;
  ops::Dropout stream{.seed = dropout, .first_token = 0};
  for (const data::Batch& batch : batches) {
    sum += llama.forward_backward(batch, {.group = group}, policies, scale, stream).sum().item<double>();
    stream.first_token += batch.size();
  }
  std::vector<at::Tensor> gradients;
  for (const model::Parameter* p : llama.trainable()) gradients.push_back(p->grad.flatten());
  return {sum, at::cat(gradients)};
}

}  // namespace

TEST_CASE("loss and gradients do not depend on how a step is split into micro-batches and packs", "[model][backward]") {
  SplitMix random(13);
  std::vector<Document> documents(6);
  int64_t targets = 0;
  for (size_t d = 0; d < documents.size(); ++d) {
    for (size_t i = 0; i < 3 + 4 * d; ++i) {  // 3 ... 23 tokens
      documents[d].tokens.push_back(static_cast<int32_t>(random.below(19)));
      documents[d].targets.push_back(random.below(5) == 0 ? data::kIgnore : static_cast<int32_t>(random.below(19)));
      targets += documents[d].targets.back() != data::kIgnore;
    }
  }
  const double scale = 1.0 / static_cast<double>(targets);
  const std::vector<std::vector<size_t>> packs = {{5}, {4, 0}, {3, 1}, {2}}, others = {{1, 0, 2}, {5}, {4}, {3}},
                                         alone = {{0}, {1}, {2}, {3}, {4}, {5}}, one = {{3, 5, 1, 0, 4, 2}};
  for (const int64_t group : {0, 6}) {
    for (const bool full : {false, true}) {
      Llama llama = model_of({.name = "", .group = group, .full = full});
      const auto [loss, gradient] = step(llama, pack(documents, packs, 23, 4), scale, group);
      const auto check = [&](const std::vector<data::Batch>& batches) {
        const auto [other_loss, other_gradient] = step(llama, batches, scale, group);
        CHECK(other_loss == Approx(loss).epsilon(1e-12));
        CHECK(relative(other_gradient, gradient) < 1e-10);
      };
      check(pack(documents, packs, 23, 1));   // another split into micro-batches
      check(pack(documents, packs, 40, 2));   // longer rows
      check(pack(documents, others, 25, 2));  // other packs
      check(pack(documents, alone, 23, 3));
      check(pack(documents, one, 78, 1));
    }
  }
}

TEST_CASE("LoRA dropout does not depend on how a step is split into micro-batches", "[model][backward]") {
  Llama llama(config_of({.name = ""}), at::kDouble, at::kCPU);
  for (model::Parameter* p : llama.parameters()) model::fill_normal(p->value, 0.3, model::name_hash(p->name));
  llama.add_lora([](const std::string&) { return model::LoraShape{2, 1.5}; }, 0.4, 3);
  for (model::Parameter* p : llama.trainable()) {
    model::fill_normal(p->master, 0.3, model::name_hash(p->name) + 1);
    p->sync();
  }
  const std::vector<Document> documents(4, {std::vector<int32_t>(12, 3), std::vector<int32_t>(12, 5)});
  const std::vector<std::vector<size_t>> rows = {{0}, {1}, {2}, {3}};
  const auto [loss, gradient] = step(llama, pack(documents, rows, 12, 4), 1, 0, 17);
  for (const size_t rows_a_batch : {1, 2}) {
    const auto [other_loss, other_gradient] = step(llama, pack(documents, rows, 12, rows_a_batch), 1, 0, 17);
    CHECK(other_loss == Approx(loss).epsilon(1e-12));
    CHECK(relative(other_gradient, gradient) < 1e-10);
  }
  const auto [without, plain] = step(llama, pack(documents, rows, 12, 4), 1, 0, 0);
  CHECK(without != Approx(loss).epsilon(1e-6));  // it does drop
}

TEST_CASE("ranks that share rows compute the loss and gradients of one", "[model][backward][sequence]") {
  const data::Batch batch = batch_of(3);
  const double scale = 0.1;
  for (const int size : {3, 4}) {  // two would share it at the end of a document
    for (const int64_t group : {0, 6}) {
      Case c{.name = "", .group = group, .full = true};
      Llama llama = model_of(c);
      const auto [loss, gradient] = step(llama, {batch}, scale, group);
      std::vector<at::Tensor> losses(static_cast<size_t>(size)), gradients(static_cast<size_t>(size));
      require_no_errors(on_ranks(size, [&](Rank r) {
        Llama mine = model_of(c);
        for (model::Parameter* p : mine.trainable()) p->grad.zero_();
        const auto pieces = dist::pieces_of(dist::layout_of(group > 0), batch.size(), r.rank, r.size);
        const auto rank = static_cast<size_t>(r.rank);
        losses[rank] = mine.forward_backward(data::cut(batch, pieces), {.group = group, .sequence = &r.group},
                                             std::vector<Recompute>(2, Recompute::everything), scale, {});
        std::vector<at::Tensor> all;
        for (const model::Parameter* p : mine.trainable()) all.push_back(p->grad.flatten());
        gradients[rank] = at::cat(all);
        if (r.group.traffic(dist::Operation::exchange).bytes == 0) fail("nothing was sent");
      }));
      INFO(size << " ranks, group " << group);
      CHECK(at::cat(losses).numel() == batch.size());
      CHECK(at::cat(losses).sum().item<double>() == Approx(loss).epsilon(1e-12));
      const double off = (at::stack(gradients).sum(0) - gradient).norm().item<double>();
      CHECK(off <= 1e-12 * gradient.norm().item<double>());
    }
  }
}

}  // namespace longlora

#include "core/train/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/model/tensors.h"
#include "core/model/weights.h"

namespace longlora::train {

using model::Recompute;

namespace {

constexpr Recompute kPolicies[] = {Recompute::nothing, Recompute::gate_up, Recompute::all_but_attention,
                                   Recompute::everything};

bool has(const std::vector<std::string>& list, const std::string& name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

// Whether a projection's input is needed for the gradients of what is trained in it.
bool trains(const recipe::Tune& tune, const char* target) {
  return tune.mode == "full" || has(tune.targets, target);
}

// NF4 with blocks of 64 and their scales in 8 bits (QLoRA, arXiv 2305.14314, section 3): 4.127 bits an element.
int64_t weight_bytes(const recipe::Recipe& recipe, int64_t elements, int64_t element) {
  return recipe.model.quantize == "nf4" ? elements * 4127 / 8000 : elements * element;
}

// The head's hidden states, their gradients, those of the norm before it, and a chunk of logits (core/ops/cross_entropy.cpp).
int64_t head_bytes(const model::Config& c, int64_t tokens, int64_t element) {
  const int64_t row = c.vocab_size * element;
  return 4 * tokens * c.hidden * element + std::clamp<int64_t>((int64_t{64} << 20) / row, 1, tokens) * row;
}

// The most that is there at a time beside weights and what is trained: while a layer goes back, all layers below it still
// hold what they kept, and it holds what it kept and works.
int64_t peak(const model::Config& c, const recipe::Recipe& recipe, const std::vector<Recompute>& policies,
             int64_t tokens, int64_t element, int64_t head) {
  int64_t kept = 0, most = 0;
  for (const Recompute policy : policies) {
    kept += saved_bytes(c, policy, tokens, element);
    most = std::max(most, kept + work_bytes(c, recipe, policy, tokens, element));
  }
  return std::max(most, kept + head);
}

}  // namespace

const char* to_string(Recompute policy) {
  switch (policy) {
    case Recompute::nothing:
      return "nothing";
    case Recompute::gate_up:
      return "gate_up";
    case Recompute::all_but_attention:
      return "all_but_attention";
    case Recompute::everything:
      return "everything";
  }
  return "";
}

std::string describe(const std::vector<Recompute>& recompute) {
  std::string text;
  for (size_t i = 0, next = 0; i < recompute.size(); i = next) {
    while (next < recompute.size() && recompute[next] == recompute[i]) ++next;
    if (next - i == recompute.size()) return to_string(recompute[i]);
    text += fmt::format("{}{} {} {}", text.empty() ? "" : ", ", next - i, next - i == 1 ? "layer" : "layers",
                        to_string(recompute[i]));
  }
  return text;
}

Counts count_parameters(const model::Config& config, const recipe::Tune& tune) {
  Counts counts;
  const bool full = tune.mode == "full";
  const bool head = has(tune.also, config.tie_embeddings ? "embed" : "lm_head");
  model::for_each_tensor(config, [&](const std::string& name, const std::vector<int64_t>& shape) {
    const bool layer = name.starts_with("model.layers."), norm = name.ends_with("norm.weight");
    const bool embedding = name.starts_with("model.embed_tokens"), matrix = shape.size() == 2;
    const int64_t elements = matrix ? shape[0] * shape[1] : shape[0];
    const bool whole = full || (norm && has(tune.also, "norm")) || (embedding && has(tune.also, "embed")) ||
                       (name == "lm_head.weight" && head);
    int64_t& place = whole ? (layer ? counts.trained_layers : counts.trained_rest)
                           : (layer ? counts.frozen_layers : counts.frozen_rest);
    place += elements;
    if (matrix && whole && (!embedding || (config.tie_embeddings && head)))
      counts.largest_trained = std::max(counts.largest_trained, elements);
    if (!layer || !matrix || full) return;
    const std::string module = name.substr(0, name.rfind('.'));
    if (has(tune.targets, module.substr(module.rfind('.') + 1)))
      counts.trained_layers += tune.rank * (shape[0] + shape[1]);
  });
  return counts;
}

int64_t saved_bytes(const model::Config& c, Recompute policy, int64_t tokens, int64_t element) {
  const int64_t query = c.heads * c.head_dim, key_value = 2 * c.kv_heads * c.head_dim;
  int64_t per_token = c.hidden * element;  // x
  if (policy <= Recompute::all_but_attention)
    per_token += query * element + c.heads * std::max<int64_t>(4, element);                 // out, lse
  if (policy <= Recompute::gate_up) per_token += (query + key_value + c.hidden) * element;  // qkv, mid
  if (policy == Recompute::nothing) per_token += 2 * c.intermediate * element;              // gate_up
  return per_token * tokens;
}

// core/model/layer.cpp, backward: the MLP's half, then the attention's, by which time gate_up is gone.
int64_t work_bytes(const model::Config& c, const recipe::Recipe& recipe, Recompute policy, int64_t tokens,
                   int64_t element) {
  const recipe::Tune& tune = recipe.tune;
  const int64_t query = c.heads * c.head_dim, key_value = 2 * c.kv_heads * c.head_dim, gate_up = 2 * c.intermediate;
  const int64_t again = saved_bytes(c, Recompute::nothing, tokens, element) - saved_bytes(c, policy, tokens, element);
  const bool dropout = tune.mode == "lora" && tune.dropout > 0;
  int64_t mlp = 4 * c.hidden + c.intermediate;              // dy, h2, its gradient, dmid; dm
  if (trains(tune, "down_proj")) mlp += c.intermediate;     // swiglu's output
  int64_t attention = 5 * c.hidden + 2 * query + key_value  // dy, dmid, h1, its gradient, dx; dout, dqkv
                      - gate_up;
  if (dropout) mlp += trains(tune, "down_proj") ? c.intermediate : c.hidden, attention += c.hidden;
  return again + std::max(mlp, attention) * tokens * element;
}

MemoryPlan plan_memory(const model::Config& c, const recipe::Recipe& recipe, const Spread& spread, int64_t available) {
  const auto element = static_cast<int64_t>(c10::elementSize(model::parse_dtype(recipe.model.dtype)));
  const Counts counts = count_parameters(c, recipe.tune);
  const int64_t tokens = (recipe.batch.micro * recipe.context.length + spread.sequence - 1) / spread.sequence;
  const bool full = recipe.tune.mode == "full", split_model = spread.shard == Shard::model;
  const int64_t states = spread.shard == Shard::none ? 1 : spread.ranks, split = split_model ? spread.ranks : 1;
  const auto share = [](int64_t bytes, int64_t ranks) { return (bytes + ranks - 1) / ranks; };

  MemoryPlan plan;
  const int64_t split_layers = full ? counts.trained_layers : counts.frozen_layers;
  const int64_t layers = weight_bytes(recipe, split_layers, element);
  plan.weights = share(layers, split) + (counts.all() - split_layers) * element;
  if (split_model && spread.ranks > 1) plan.weights += 2 * layers / c.layers;
  if (recipe.model.quantize == "nf4") plan.weights += split_layers / c.layers * element;  // a layer for its products
  // Master and two moments, and gradients, in float32; gradients are whole but for those of split weights.
  plan.trained = share(12 * counts.trained(), states);
  plan.trained += full && split_model ? share(4 * counts.trained_layers, split) + 4 * counts.trained_rest +
                                            4 * 2 * counts.trained_layers / c.layers
                                      : 4 * counts.trained();
  plan.head = head_bytes(c, tokens, element);
  int64_t other = counts.largest_trained * element;                             // a weight's gradient on its way
  other += recipe.context.length * c.head_dim * std::max<int64_t>(4, element);  // cos and sin
  if (spread.sequence > 1 && recipe.attention.pattern == "full")                // keys, values of the whole row
    other += 4 * recipe.batch.micro * recipe.context.length * c.kv_heads * c.head_dim * element;  // and gradients

  const auto take = [&](std::vector<Recompute> policies) {
    plan.activations = 0;
    for (const Recompute policy : policies) plan.activations += saved_bytes(c, policy, tokens, element);
    plan.work = peak(c, recipe, policies, tokens, element, plan.head) - plan.activations + other;
    plan.recompute = std::move(policies);
    plan.fits = plan.total() <= available;
    return plan.fits;
  };
  const auto all = static_cast<size_t>(c.layers);
  for (const Recompute policy : kPolicies) {
    if (recipe.memory.recompute == to_string(policy)) (void)take(std::vector<Recompute>(all, policy));
  }
  if (recipe.memory.recompute != "auto") return plan;
  for (size_t p = 0; p + 1 < std::size(kPolicies); ++p) {
    for (size_t last = all; last > 0; --last) {
      std::vector<Recompute> policies(all, kPolicies[p]);
      std::fill_n(policies.begin(), all - last, kPolicies[p + 1]);
      if (take(std::move(policies))) return plan;
    }
  }
  (void)take(std::vector<Recompute>(all, Recompute::everything));
  return plan;
}

SpreadPlan plan_spread(const model::Config& config, const recipe::Recipe& recipe, int64_t ranks, int64_t available) {
  SpreadPlan plan{{.ranks = ranks, .sequence = recipe.parallel.sequence, .shard = Shard::none}, {}};
  for (const Shard shard : {Shard::none, Shard::optimizer, Shard::model}) {
    const bool asked = recipe.parallel.shard == to_string(shard);
    if (!asked && recipe.parallel.shard != "auto") continue;
    if (ranks == 1 && shard != Shard::none && !asked) continue;
    plan.spread.shard = shard;
    plan.memory = plan_memory(config, recipe, plan.spread, available);
    if (plan.memory.fits) break;
  }
  return plan;
}

}  // namespace longlora::train

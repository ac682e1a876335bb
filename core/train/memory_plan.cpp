#include "core/train/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "core/model/weights.h"
#include "core/train/sequence_share.h"
#include "core/train/setup.h"
#include "core/train/step_cost.h"

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

// Weights that are gathered, and whole gradients of split weights, at the worst moment (core/train/weight_shards.h, trained.h).
struct Gathered {
  int64_t weights = 0, gradients = 0;
};
Gathered gathered(const std::vector<UnitSizes>& units, const StepShape& shape) {
  Gathered most;
  if (shape.shard != Shard::model || shape.ranks == 1) return most;
  const auto weights = [&](size_t unit) { return sliced_weights(units[unit], shape) * shape.ranks; };
  const auto gradients = [&](size_t unit) {
    return shape.full ? sliced(units[unit], shape.ranks) * shape.ranks * shape.master : 0;
  };
  const size_t last = units.size() - 1;
  for (size_t unit = 0; unit < last; ++unit) {  // one is there, the other on its way
    most.weights = std::max(most.weights, weights(unit) + weights(unit + 1));
    // Those of the unit above are on their way, put in the order of the ranks.
    most.gradients = std::max(most.gradients, gradients(unit) + 2 * gradients(unit + 1));
  }
  if (shape.tied) {  // the embedding is there as the head; its gradients stay
    most.weights = std::max(most.weights, weights(0) + weights(last) + weights(last - 1));
    most.gradients += gradients(0);
  }
  return most;
}

// What the messages of a sequence group take in a layer's backward pass (core/dist/sequence_attention.cpp): keys and values of this
// step and the next, to and from this rank; gradients of this step in float32, and those of two steps on their way back; sums.
int64_t exchange_bytes(const model::Config& c, const recipe::Recipe& recipe, const Spread& spread, int64_t element) {
  if (spread.sequence == 1) return 0;
  const bool fully = recipe.attention.pattern == "full" || recipe.attention.finish > 0;
  const int64_t group = fully ? 0 : group_of(recipe);
  const ops::GroupPlan plan = batch_plan(c, recipe.batch.micro, recipe.context.length, group);
  const SequenceShare share = largest_share(plan, c.head_dim, group > 0, static_cast<int>(spread.sequence));
  return share.message * (6 * element + 4) + share.sums * 4;
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
  model::for_each_tensor(config, [&](const std::string& name, const std::vector<int64_t>& shape) {
    const bool embedding = name.starts_with("model.embed_tokens"), matrix = shape.size() == 2;
    const int64_t elements = matrix ? shape[0] * shape[1] : shape[0];
    const bool whole = trains_whole(tune, name);
    (whole ? counts.trained : counts.frozen) += elements;
    if (adds_lora(tune, name)) counts.trained += tune.rank * (shape[0] + shape[1]);
    if (matrix && whole && (!embedding || config.tie_embeddings))
      counts.largest_trained = std::max(counts.largest_trained, elements);
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
  const StepShape shape = step_shape(c, recipe, spread);
  const int64_t element = shape.value;
  const int64_t tokens = (recipe.batch.micro * recipe.context.length + spread.sequence - 1) / spread.sequence;
  const std::vector<UnitSizes> units = unit_sizes(c, recipe);
  const bool split = shape.shard == Shard::model, states = shape.shard != Shard::none, full = shape.full;

  MemoryPlan plan;
  const Gathered most = gathered(units, shape);
  plan.weights = most.weights;
  plan.trained = most.gradients;
  for (const UnitSizes& unit : units) {
    const int64_t trained = std::accumulate(unit.trained.begin(), unit.trained.end(), int64_t{0});
    plan.weights += split && full ? 0 : trained * element;
    plan.weights +=
        split ? sliced_weights(unit, shape) : std::accumulate(unit.frozen.begin(), unit.frozen.end(), int64_t{0});
    // Master, two moments, and gradients, in float32; whole gradients beside those of the slices but for split weights.
    plan.trained += 16 * (states ? sliced(unit, shape.ranks) : trained);
    if (states && !(split && full)) plan.trained += 4 * trained;
  }
  if (recipe.model.quantize == "nf4") {  // a layer for its products
    const UnitSizes& layer = units[1];
    plan.weights +=
        std::accumulate(layer.frozen.begin(), layer.frozen.end(), int64_t{0}) * element * kNf4Elements / kNf4Bytes;
  }
  plan.head = head_bytes(c, tokens, element);
  int64_t other = count_parameters(c, recipe.tune).largest_trained * element;   // a weight's gradient on its way
  other += recipe.context.length * c.head_dim * std::max<int64_t>(4, element);  // cos and sin
  other += exchange_bytes(c, recipe, spread, element);

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

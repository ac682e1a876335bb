#include "core/train/memory_plan.h"

#include "core/base/error.h"

namespace longlora::train {

using model::Recompute;

namespace {

constexpr Recompute kPolicies[] = {Recompute::nothing, Recompute::gate_up, Recompute::all_but_attention,
                                   Recompute::everything};

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

int64_t saved_bytes(const model::Config& c, Recompute policy, int64_t tokens, int64_t element) {
  const int64_t query = c.heads * c.head_dim, key_value = 2 * c.kv_heads * c.head_dim;
  int64_t per_token = c.hidden * element;                                                   // x
  if (policy <= Recompute::all_but_attention) per_token += query * element + c.heads * 4;   // out, lse
  if (policy <= Recompute::gate_up) per_token += (query + key_value + c.hidden) * element;  // qkv, mid
  if (policy == Recompute::nothing) per_token += 2 * c.intermediate * element;              // gate_up
  return per_token * tokens;
}

MemoryPlan plan_memory(const model::Config& c, const recipe::Recipe& recipe, at::ScalarType dtype, int64_t parameters,
                       int64_t trained, int64_t available) {
  const auto element = static_cast<int64_t>(c10::elementSize(dtype));
  const int64_t tokens = recipe.batch.micro * recipe.context.length;
  MemoryPlan plan;
  plan.weights = parameters * element;
  plan.trained = trained * 16;
  // Backward of one layer: qkv, out, mid, gate_up and their gradients, the normed inputs; and the head's hidden states,
  // their gradient and a chunk of logits.
  const int64_t layer = saved_bytes(c, Recompute::nothing, tokens, element);
  plan.work = 2 * layer + 2 * tokens * c.hidden * element + (int64_t{64} << 20);
  for (const Recompute policy : kPolicies) {
    if (recipe.memory.recompute != "auto" && recipe.memory.recompute != to_string(policy)) continue;
    plan.recompute = policy;
    plan.activations = c.layers * saved_bytes(c, policy, tokens, element);
    if (recipe.memory.recompute != "auto" || plan.total() <= available) break;
  }
  return plan;
}

}  // namespace longlora::train

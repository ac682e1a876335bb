#include "core/train/step_cost.h"

#include <algorithm>
#include <array>

#include "core/io/names.h"
#include "core/model/tensors.h"
#include "core/train/sequence_share.h"

namespace longlora::train {

using model::Recompute;

namespace {

// Share of the memory bandwidth that kernels which do nothing but read and write reach (assumed).
constexpr double kStreaming = 0.8;

struct Stack {  // projections with one input, as core/model/linear.h has them
  double in, out;
  int64_t ranks;  // of their LoRA matrices together
};

std::array<Stack, 4> stacks(const model::Config& c, const recipe::Tune& tune) {
  const auto rank = [&](std::initializer_list<const char*> names) {
    int64_t sum = 0;
    for (const char* name : names) {
      const bool there = std::find(tune.targets.begin(), tune.targets.end(), name) != tune.targets.end();
      if (tune.mode == "lora" && there) sum += tune.rank;
    }
    return sum;
  };
  const auto h = static_cast<double>(c.hidden), i = static_cast<double>(c.intermediate);
  const auto q = static_cast<double>(c.heads * c.head_dim), kv = static_cast<double>(2 * c.kv_heads * c.head_dim);
  return {Stack{h, q + kv, rank({"q_proj", "k_proj", "v_proj"})}, Stack{q, h, rank({"o_proj"})},
          Stack{h, 2 * i, rank({"gate_proj", "up_proj"})}, Stack{i, h, rank({"down_proj"})}};
}

// Operations of a product with a stack and its LoRA, a token.
double product(const Stack& s) {
  return 2 * s.in * s.out + 2 * static_cast<double>(s.ranks) * (s.in + s.out);
}

// Bytes that the kernels beside products and attention read and write, a token and layer: norms, RoPE, SwiGLU, residual
// sums, each with its operands once; forward and backward.
double streamed(const model::Config& c, double element) {
  const auto h = static_cast<double>(c.hidden), i = static_cast<double>(c.intermediate);
  const auto rotated = static_cast<double>((c.heads + c.kv_heads) * c.head_dim);
  const double forward = 2 * 2 * h + 2 * rotated + 3 * i + 2 * 3 * h;
  const double backward = 2 * 2 * h + 2 * 4 * h + 2 * rotated + 5 * i;
  return (forward + backward) * element;
}

int64_t element_size(const recipe::Recipe& recipe) {
  return static_cast<int64_t>(c10::elementSize(model::parse_dtype(recipe.model.dtype)));
}

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

}  // namespace

Flops count_flops(const model::Config& c, const recipe::Recipe& recipe, const MemoryPlan& memory, int64_t group,
                  int64_t sequence) {
  const int64_t length = recipe.context.length;
  const auto layers = static_cast<double>(c.layers);
  const auto tokens = static_cast<double>(ceil_div(recipe.batch.micro * length, sequence));
  const bool full = recipe.tune.mode == "full";
  const std::array<Stack, 4> all = stacks(c, recipe.tune);
  Flops flops;
  for (const Stack& s : all) {
    flops.forward += layers * tokens * product(s);
    flops.input_gradients += layers * tokens * product(s);
    if (full) flops.trained_gradients += layers * tokens * 2 * s.in * s.out;
    flops.trained_gradients += layers * tokens * 4 * static_cast<double>(s.ranks) * (s.in + s.out);
  }
  const ops::GroupPlan plan = batch_plan(c, recipe.batch.micro, length, group);
  const double pairs = largest_share(plan, c.head_dim, group > 0, static_cast<int>(sequence)).pairs;
  const double attention = 4 * static_cast<double>(c.head_dim) * pairs;
  flops.attention_forward = layers * attention;
  flops.attention_backward = 2.5 * layers * attention;
  for (const Recompute policy : memory.recompute) {
    if (policy >= Recompute::gate_up) flops.recompute += tokens * product(all[2]);
    if (policy >= Recompute::all_but_attention) flops.recompute += tokens * (product(all[0]) + product(all[1]));
    if (policy == Recompute::everything) flops.attention_again += attention;
  }
  const bool head = trains_whole(recipe.tune, c.tie_embeddings ? io::kEmbed : io::kHead);
  flops.head = (head ? 6 : 4) * tokens * static_cast<double>(c.vocab_size * c.hidden);
  return flops;
}

StepShape step_shape(const model::Config& config, const recipe::Recipe& recipe, const Spread& spread) {
  const int64_t groups_of_ranks = std::max<int64_t>(1, spread.ranks / spread.sequence);
  return {.shard = spread.shard,
          .full = recipe.tune.mode == "full",
          .tied = config.tie_embeddings,
          .ranks = static_cast<int>(spread.ranks),
          .value = element_size(recipe),
          .master = 4,
          .micro_batches = ceil_div(ceil_div(recipe.batch.sequences, groups_of_ranks), recipe.batch.micro)};
}

int64_t exchanged_bytes(const model::Config& config, const recipe::Recipe& recipe, const MemoryPlan& memory,
                        const Spread& spread, int64_t group, int rank) {
  const ops::GroupPlan plan = batch_plan(config, recipe.batch.micro, recipe.context.length, group);
  const SequenceShare share = share_of_rank(plan, config.head_dim, group > 0, rank, static_cast<int>(spread.sequence));
  int64_t numbers = 0;
  for (const Recompute policy : memory.recompute)
    numbers += share.forward * (policy == Recompute::everything ? 2 : 1) + share.backward;
  return step_shape(config, recipe, spread).micro_batches * numbers * element_size(recipe);
}

StepCost step_cost(const model::Config& c, const recipe::Recipe& recipe, const MemoryPlan& memory, const Spread& spread,
                   const Gpu& gpu, int64_t gpus_a_node, int64_t group) {
  const StepShape shape = step_shape(c, recipe, spread);
  const auto element = static_cast<double>(shape.value);
  const int64_t length = recipe.context.length;
  StepCost cost;
  cost.micro_batches = shape.micro_batches;
  cost.flops = count_flops(c, recipe, memory, group, spread.sequence);
  const auto times = static_cast<double>(cost.micro_batches), layers = static_cast<double>(c.layers);
  const double tokens = static_cast<double>(ceil_div(recipe.batch.micro * length, spread.sequence));

  const double segment = static_cast<double>(group > 0 ? group : length);
  const double forward = attention_rate(gpu, false, segment), backward = attention_rate(gpu, true, segment);
  cost.products = times * cost.flops.products() / gpu.gemm;
  cost.attention = times * ((cost.flops.attention_forward + cost.flops.attention_again) / forward +
                            cost.flops.attention_backward / backward);
  const double bandwidth = gpu.bandwidth * kStreaming;
  cost.elementwise = times * layers * tokens * streamed(c, element) / bandwidth;

  // Ranks of one node talk over its links; as soon as one operation spans nodes its slowest link counts.
  const double everywhere = spread.ranks > gpus_a_node ? gpu.network : gpu.link;
  const double in_a_row = spread.sequence > gpus_a_node ? gpu.network : gpu.link;
  const std::vector<UnitSizes> units = unit_sizes(c, recipe);
  const StepBytes bytes = step_bytes(units, shape), weights{.all_gather = bytes.weights};
  cost.sent.weights = ring_bytes(weights, spread.ranks);
  cost.sent.gradients = ring_bytes(bytes, spread.ranks) - cost.sent.weights;
  for (int rank = 0; rank < spread.sequence && spread.sequence > 1; ++rank) {
    const int64_t exchanged = exchanged_bytes(c, recipe, memory, spread, group, rank);
    cost.sent.sequence = std::max(cost.sent.sequence, static_cast<double>(exchanged));
  }

  // Read: gradient, master, two moments; written: these but the gradient, which is zeroed, and the value.
  int64_t updated = 0;
  for (const UnitSizes& unit : units) updated += sliced(unit, spread.shard == Shard::none ? 1 : shape.ranks);
  cost.optimizer = static_cast<double>(updated) * (4 + 12 + 12 + 4 + element) / bandwidth;
  // Gradients of split weights are sent after every layer of every micro-batch.
  const bool by_unit = spread.shard == Shard::model && shape.full;
  cost.gradients = by_unit ? 0 : cost.sent.gradients / everywhere;
  cost.sequence = cost.sent.sequence / in_a_row;
  cost.weights = cost.sent.weights / everywhere + (by_unit ? cost.sent.gradients / everywhere : 0);
  const double arithmetic = cost.products + cost.attention + cost.elementwise;
  cost.weights_waited = std::max(0.0, cost.weights - arithmetic);
  cost.seconds = arithmetic + cost.optimizer + cost.gradients + cost.sequence + cost.weights_waited;
  const double all_tokens = static_cast<double>(recipe.batch.sequences * length);
  cost.tokens_per_s = all_tokens / cost.seconds;
  const double share = times / cost.seconds / gpu.peak;
  cost.mfu = cost.flops.model() * share;
  cost.hfu = cost.flops.all() * share;
  return cost;
}

}  // namespace longlora::train

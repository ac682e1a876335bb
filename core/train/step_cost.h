// How long an optimizer step will take on GPUs, from counted operations and bytes at published rates: an estimate for
// planning, made without a GPU. Ranks are cut as docs/plan.md says; times are those of the slowest rank.
#pragma once
#include <string>

#include "core/train/gpus.h"
#include "core/train/memory_plan.h"
#include "core/train/traffic.h"

namespace longlora::train {

// FLOPs of one micro-batch on one rank. The mathematics is that of core/model/layer.cpp.
struct Flops {
  double forward = 0;             // frozen and trained products of all layers
  double input_gradients = 0;     // the same backward
  double trained_gradients = 0;   // gradients of LoRA matrices or weights
  double recompute = 0;           // products made again
  double head = 0;                // forward, its input's gradient, and the weight's where the head is trained
  double attention_forward = 0;   // 4 D a pair (query, key) and head
  double attention_backward = 0;  // 2.5 times as much (FlashAttention-2, arXiv 2307.08691, section 3.1)
  double attention_again = 0;     // forward once more where `everything` is recomputed
  [[nodiscard]] double products() const { return forward + input_gradients + trained_gradients + recompute + head; }
  [[nodiscard]] double attention() const { return attention_forward + attention_backward + attention_again; }
  [[nodiscard]] double all() const { return products() + attention(); }
  // Without what is computed again, attention backward as twice its forward: what MFU counts.
  [[nodiscard]] double model() const { return products() - recompute + 3 * attention_forward; }
};

// What goes out of the busiest rank in a step, in bytes.
struct Sent {
  double gradients = 0;  // summed over the ranks; and new values, gathered where each rank has made its slices of them
  double weights = 0;    // gathered with a split model, forward and backward of every micro-batch
  double sequence = 0;   // keys and values forward; again, and their gradients, backward
};

struct StepCost {
  int64_t micro_batches = 0;  // of the busiest rank in a step
  Flops flops;                // of one micro-batch
  Sent sent;
  // Seconds of a step.
  double products = 0, attention = 0, elementwise = 0, optimizer = 0;
  double gradients = 0, sequence = 0;  // waited for
  double weights = 0;  // with the gradients of split weights; hidden behind the arithmetic but for `weights_waited`
  double weights_waited = 0;
  double seconds = 0;
  double tokens_per_s = 0;  // of all ranks together
  double mfu = 0, hfu = 0;  // shares of the peak: the model's operations, and all that are computed
};

[[nodiscard]] Flops count_flops(const model::Config& config, const recipe::Recipe& recipe, const MemoryPlan& memory,
                                int64_t group, int64_t sequence);

// What a rank gives to the operations between ranks in a step, as dist::Traffic counts it: step_bytes() of this, and to the
// exchanges of its sequence group, in which it is `rank`, exchanged_bytes(). `group` as in batch_plan().
[[nodiscard]] StepShape step_shape(const model::Config& config, const recipe::Recipe& recipe, const Spread& spread);
[[nodiscard]] int64_t exchanged_bytes(const model::Config& config, const recipe::Recipe& recipe,
                                      const MemoryPlan& memory, const Spread& spread, int64_t group, int rank);

// `gpus_a_node` of the ranks' GPUs are in a node.
[[nodiscard]] StepCost step_cost(const model::Config& config, const recipe::Recipe& recipe, const MemoryPlan& memory,
                                 const Spread& spread, const Gpu& gpu, int64_t gpus_a_node, int64_t group);

}  // namespace longlora::train

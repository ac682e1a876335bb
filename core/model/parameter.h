// A named weight. Frozen ones hold a value in the compute dtype; trainable ones also a master copy in float32
// that the optimizer changes, and a gradient. `value` may be a view into a stacked matrix that the kernels
// see.
#pragma once
#include <ATen/ATen.h>

#include <string>
#include <vector>

namespace longlora::model {

// What a parameter is, for the summary and for the files it goes to.
enum class Kind { base, lora, embed, norm, lm_head };

struct Parameter {
  std::string name;  // as in the checkpoint: "model.layers.0.self_attn.q_proj.weight"
  Kind kind = Kind::base;
  at::Tensor value;     // compute dtype, what the forward pass reads
  at::Tensor master;    // float32 (float64 for float64 models), contiguous; undefined while frozen
  at::Tensor grad;      // like master, accumulated over the micro-batches of a step; undefined while frozen
  double to_value = 1;  // value = to_value * master (LoRA's scale is folded into the value of B)

  [[nodiscard]] bool trainable() const { return master.defined(); }
  // Gives it a master copy of its value, and a gradient of zeros.
  void make_trainable();
  // The value from the master copy; after every optimizer step and every load.
  void sync();
};

}  // namespace longlora::model

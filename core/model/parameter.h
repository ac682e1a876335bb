// A named weight. Frozen ones hold a value in the compute dtype; trainable ones also a master copy in float32
// that the optimizer changes, and a gradient. `value` may be a view into a stacked matrix that the kernels
// see. Where several ranks share the optimizer's work, each has a slice of the master copy.
#pragma once
#include <ATen/ATen.h>

#include <string>
#include <vector>

namespace longlora::model {

// What a parameter is, for the summary and for the files it goes to.
enum class Kind { base, lora, embed, norm, lm_head };

// How the elements of a tensor are cut over ranks: in equal slices, one after the other, the last ones filled up with zeros.
struct Cut {
  int rank = 0, ranks = 1;
  [[nodiscard]] bool whole() const { return ranks == 1; }
  // Elements of a slice. Whole vectors of every machine: LibTorch's fused optimizers round what is left of one otherwise, so
  // that the bits would depend on the cut.
  [[nodiscard]] int64_t count(int64_t numel) const;
  // This rank's slice of `tensor`: a copy, flat.
  [[nodiscard]] at::Tensor of(const at::Tensor& tensor) const;
};

struct Parameter {
  std::string name;  // as in the checkpoint: "model.layers.0.self_attn.q_proj.weight"
  Kind kind = Kind::base;
  at::Tensor value;   // compute dtype, what the forward pass reads
  at::Tensor master;  // float32 (float64 for float64 models), shaped like value, or its slice; undefined while frozen
  at::Tensor grad;  // like value in the master's dtype, accumulated over a step's micro-batches; undefined while frozen
  double to_value = 1;  // value = to_value * master (LoRA's scale is folded into the value of B)
  Cut cut = {};         // of the master copy

  [[nodiscard]] bool trainable() const { return master.defined(); }
  // Gives it a master copy of its value, and a gradient of zeros.
  void make_trainable();
  // Master copy and value from a whole master copy, of any type; a value without memory (core/model/memory.h) stays so.
  void assign(const at::Tensor& whole);
  // The value from a master copy that is not cut; after every optimizer step.
  void sync();
  // to_value times a master copy or a part of one: what is then rounded to the value's type.
  [[nodiscard]] at::Tensor scaled(const at::Tensor& wide) const;
};

}  // namespace longlora::model

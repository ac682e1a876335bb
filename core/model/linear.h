// Several projections that share an input (q, k, v; gate, up), or a single one, as one stacked matrix: one
// GEMM forward, one backward. Frozen by default; LoRA (Hu et al. 2021, equation 3) adds scale * B A per
// projection, computed for all of them at once with the A matrices stacked and the B matrices on a block
// diagonal.
//
//   y = x W^T + bias + drop(x) A^T (scale B)^T      x [T, in], W [out, in], A [R, in], B [out, R]
//
// Backward is split in two, because the input's gradient is needed first and a frozen matrix needs no input
// at all: input_gradient(), then accumulate() where something is trained.
#pragma once
#include <ATen/ATen.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/model/parameter.h"
#include "core/ops/dropout.h"
#include "core/ops/product.h"

namespace longlora::model {

// What LoRA a module gets: W + scale * B A with A [rank, in], B [out, rank].
struct LoraShape {
  int64_t rank;
  double scale;
};
// By the module's name ("model.layers.0.self_attn.q_proj"); empty: none.
using LoraFor = std::function<std::optional<LoraShape>(const std::string& module)>;

class Linear {
 public:
  struct Part {
    std::string name;  // "model.layers.0.self_attn.q_proj"
    int64_t rows;
  };

  Linear(std::vector<Part> parts, int64_t in, bool bias, const at::TensorOptions& options);

  // Adds LoRA to the parts for which `lora_for` gives a shape. A is drawn as PEFT draws it (uniform in +-1/sqrt(in),
  // Kaiming with a = sqrt 5), from a stream of its own per matrix; B is zero.
  void add_lora(const LoraFor& lora_for, double dropout, uint64_t seed);
  // How its products are computed from now on.
  void set_product(ops::ProductBackend backend) { product_ = backend; }

  [[nodiscard]] at::Tensor forward(const at::Tensor& x, const ops::Dropout& drop) const;
  // dx [T, in]
  [[nodiscard]] at::Tensor input_gradient(const at::Tensor& dy, const ops::Dropout& drop) const;
  // Adds the gradients of what is trained. x: the forward input.
  void accumulate(const at::Tensor& dy, const at::Tensor& x, const ops::Dropout& drop);
  // Whether accumulate() needs to be called at all.
  [[nodiscard]] bool trains() const;

  [[nodiscard]] std::vector<Parameter*> parameters();

 private:
  struct Lora {
    Parameter a, b;
    int64_t part;    // index into parts_
    int64_t column;  // first column of the block in B, first row in A
    int64_t rank;
  };
  [[nodiscard]] at::Tensor dropped(const at::Tensor& x, const ops::Dropout& drop) const;

  std::vector<Part> parts_;
  std::vector<int64_t> first_row_;
  at::Tensor weight_, bias_;    // [out, in], [out] or undefined: what `weights_` and `biases_` are views of
  at::Tensor lora_a_, lora_b_;  // [R, in], [out, R], compute dtype; undefined without LoRA
  std::vector<Parameter> weights_, biases_;
  std::vector<Lora> loras_;
  double dropout_ = 0;
  ops::ProductBackend product_;
};

}  // namespace longlora::model

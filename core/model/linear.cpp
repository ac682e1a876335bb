#include "core/model/linear.h"

#include <algorithm>
#include <cmath>

#include "core/base/random.h"
#include "core/model/random_tensor.h"

namespace longlora::model {

Linear::Linear(std::vector<Part> parts, int64_t in, bool bias, const at::TensorOptions& options)
    : parts_(std::move(parts)),
      product_(ops::default_product(c10::typeMetaToScalarType(options.dtype()), options.device())) {
  int64_t out = 0;
  for (const Part& part : parts_) {
    first_row_.push_back(out);
    out += part.rows;
  }
  weight_ = at::empty({out, in}, options);
  if (bias) bias_ = at::empty({out}, options);
  for (size_t i = 0; i < parts_.size(); ++i) {
    const auto rows = [&](const at::Tensor& t) { return t.narrow(0, first_row_[i], parts_[i].rows); };
    weights_.push_back({.name = parts_[i].name + ".weight", .value = rows(weight_), .master = {}, .grad = {}});
    if (bias) biases_.push_back({.name = parts_[i].name + ".bias", .value = rows(bias_), .master = {}, .grad = {}});
  }
}

void Linear::add_lora(const LoraFor& lora_for, double dropout, uint64_t seed) {
  int64_t columns = 0;
  for (size_t i = 0; i < parts_.size(); ++i) {
    if (const auto shape = lora_for(parts_[i].name)) {
      loras_.push_back(
          {.a = {.name = parts_[i].name + ".lora_A.weight", .kind = Kind::lora, .value = {}, .master = {}, .grad = {}},
           .b = {.name = parts_[i].name + ".lora_B.weight",
                 .kind = Kind::lora,
                 .value = {},
                 .master = {},
                 .grad = {},
                 .to_value = shape->scale},
           .part = static_cast<int64_t>(i),
           .column = columns,
           .rank = shape->rank});
      columns += shape->rank;
    }
  }
  if (loras_.empty()) return;
  const int64_t in = weight_.size(1);
  lora_a_ = at::empty({columns, in}, weight_.options());
  lora_b_ = at::zeros({weight_.size(0), columns}, weight_.options());
  dropout_ = dropout;
  for (Lora& lora : loras_) {
    lora.a.value = lora_a_.narrow(0, lora.column, lora.rank);
    lora.b.value = lora_b_.narrow(0, first_row_[lora.part], parts_[lora.part].rows).narrow(1, lora.column, lora.rank);
    lora.a.cut = lora.b.cut = weights_[lora.part].cut;
    lora.a.make_trainable();
    lora.b.make_trainable();
    const at::Tensor drawn = at::empty(lora.a.value.sizes(), lora.a.master.options());
    fill_uniform(drawn, 1 / std::sqrt(static_cast<double>(in)), derive_seed(seed, {name_hash(lora.a.name)}));
    lora.a.assign(drawn);
  }
}

at::Tensor Linear::forward(const at::Tensor& x, const ops::Dropout& drop) const {
  const at::Tensor y = at::empty({x.size(0), weight_.size(0)}, x.options());
  if (!lora_a_.defined()) {
    ops::product_into(y, {{x, weight_.t()}}, product_, bias_);
  } else {
    const at::Tensor xa = ops::product(dropped(x, drop), lora_a_.t(), product_);  // [T, R]
    ops::product_into(y, {{x, weight_.t()}, {xa, lora_b_.t()}}, product_, bias_);
  }
  return y;
}

at::Tensor Linear::input_gradient(const at::Tensor& dy, const ops::Dropout& drop) const {
  const at::Tensor dx = at::empty({dy.size(0), weight_.size(1)}, dy.options());
  if (!lora_a_.defined()) {
    ops::product_into(dx, {{dy, weight_}}, product_);
    return dx;
  }
  const at::Tensor dxa = ops::product(dy, lora_b_, product_);  // [T, R]
  if (dropout_ == 0 || drop.seed == 0) {
    ops::product_into(dx, {{dy, weight_}, {dxa, lora_a_}}, product_);
    return dx;
  }
  ops::product_into(dx, {{dy, weight_}}, product_);
  return dx.add_(dropped(ops::product(dxa, lora_a_, product_), drop));  // dropout is linear and its own transpose
}

void Linear::accumulate(const at::Tensor& dy, const at::Tensor& x, const ops::Dropout& drop) {
  for (size_t i = 0; i < parts_.size(); ++i) {
    const at::Tensor part = dy.narrow(1, first_row_[i], parts_[i].rows);
    if (weights_[i].trainable()) ops::product_add(weights_[i].grad, part.t(), x, product_);
    if (bias_.defined() && biases_[i].trainable())
      biases_[i].grad.add_(part.sum(0, false, biases_[i].grad.scalar_type()));
  }
  if (!lora_a_.defined()) return;
  const at::Tensor xd = dropped(x, drop);
  const at::Tensor dxa = ops::product(dy, lora_b_, product_);                         // [T, R]
  const at::Tensor xa = ops::product(xd, lora_a_.t(), product_);                      // [T, R]
  const at::Tensor da = at::zeros(lora_a_.sizes(), loras_.front().a.grad.options());  // [R, in]
  ops::product_add(da, dxa.t(), xd, product_);
  for (Lora& lora : loras_) {
    lora.a.grad.add_(da.narrow(0, lora.column, lora.rank));
    // d(value of B) -> d(master of B): value = scale * master.
    ops::product_add(lora.b.grad, dy.narrow(1, first_row_[lora.part], parts_[lora.part].rows).t(),
                     xa.narrow(1, lora.column, lora.rank), product_, lora.b.to_value);
  }
}

bool Linear::trains() const {
  return lora_a_.defined() ||
         std::any_of(weights_.begin(), weights_.end(), [](const Parameter& p) { return p.trainable(); });
}

std::vector<Parameter*> Linear::parameters() {
  std::vector<Parameter*> all;
  for (Parameter& p : weights_) all.push_back(&p);
  for (Parameter& p : biases_) all.push_back(&p);
  for (Lora& lora : loras_) {
    all.push_back(&lora.a);
    all.push_back(&lora.b);
  }
  return all;
}

// Every stack of projections draws a mask of its own, in the backward pass again instead of keeping it.
at::Tensor Linear::dropped(const at::Tensor& x, const ops::Dropout& drop) const {
  if (dropout_ == 0 || drop.seed == 0) return x;
  ops::Dropout own = drop;
  own.seed = derive_seed(drop.seed, {name_hash(parts_.front().name)}) | 1;
  return ops::dropout(x, dropout_, own);
}

}  // namespace longlora::model

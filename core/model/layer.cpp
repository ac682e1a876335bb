#include "core/model/layer.h"

#include <cmath>

#include "core/base/error.h"
#include "core/dist/sequence_attention.h"
#include "core/ops/attention_past.h"
#include "core/ops/rmsnorm.h"
#include "core/ops/swiglu.h"

namespace longlora::model {
namespace {

std::string layer_name(int64_t index, const char* part) {
  return fmt::format("model.layers.{}.{}", index, part);
}

Parameter norm(int64_t index, const char* part, int64_t hidden, const at::TensorOptions& options) {
  return {.name = layer_name(index, part),
          .kind = Kind::norm,
          .value = at::ones({hidden}, options),
          .master = {},
          .grad = {}};
}

at::Tensor gradient_of(const Parameter& p) {
  return p.trainable() ? p.grad : at::Tensor();
}

}  // namespace

Layer::Layer(const Config& c, int64_t index, const at::TensorOptions& options)
    : heads_(c.heads),
      kv_heads_(c.kv_heads),
      head_dim_(c.head_dim),
      eps_(c.rms_eps),
      input_norm_(norm(index, "input_layernorm.weight", c.hidden, options)),
      post_norm_(norm(index, "post_attention_layernorm.weight", c.hidden, options)),
      qkv_proj_({{layer_name(index, "self_attn.q_proj"), c.heads * c.head_dim},
                 {layer_name(index, "self_attn.k_proj"), c.kv_heads * c.head_dim},
                 {layer_name(index, "self_attn.v_proj"), c.kv_heads * c.head_dim}},
                c.hidden, c.attention_bias, options),
      o_proj_({{layer_name(index, "self_attn.o_proj"), c.hidden}}, c.heads * c.head_dim, c.attention_bias, options),
      gate_up_proj_(
          {{layer_name(index, "mlp.gate_proj"), c.intermediate}, {layer_name(index, "mlp.up_proj"), c.intermediate}},
          c.hidden, c.mlp_bias, options),
      down_proj_({{layer_name(index, "mlp.down_proj"), c.hidden}}, c.intermediate, c.mlp_bias, options) {}

void Layer::add_lora(const LoraFor& lora_for, double dropout, uint64_t seed) {
  for (Linear* linear : {&qkv_proj_, &o_proj_, &gate_up_proj_, &down_proj_}) linear->add_lora(lora_for, dropout, seed);
}

void Layer::set_product(ops::ProductBackend backend) {
  for (Linear* linear : {&qkv_proj_, &o_proj_, &gate_up_proj_, &down_proj_}) linear->set_product(backend);
}

std::vector<Parameter*> Layer::parameters() {
  std::vector<Parameter*> all = {&input_norm_, &post_norm_};
  for (Linear* linear : {&qkv_proj_, &o_proj_, &gate_up_proj_, &down_proj_}) {
    for (Parameter* p : linear->parameters()) all.push_back(p);
  }
  return all;
}

Layer::Heads Layer::split(const at::Tensor& qkv) const {
  const at::Tensor all = qkv.view({qkv.size(0), heads_ + 2 * kv_heads_, head_dim_});
  return {all.narrow(1, 0, heads_), all.narrow(1, heads_, kv_heads_), all.narrow(1, heads_ + kv_heads_, kv_heads_)};
}

at::Tensor Layer::merged(const at::Tensor& out) const {
  return out.reshape({out.size(0), heads_ * head_dim_});
}

at::Tensor Layer::rotated_qkv(const at::Tensor& h1, const Pass& pass) const {
  at::Tensor qkv = qkv_proj_.forward(h1, pass.dropout);
  ops::rotate_in_place(qkv, heads_ + kv_heads_, head_dim_, pass.positions, pass.rotary, false);
  return qkv;
}

ops::AttentionResult Layer::attend(const Heads& x, const Pass& pass) {
  if (pass.sequence == nullptr) return ops::attention_forward(x.q, x.k, x.v, pass.plan, pass.backend);
  return dist::sequence_attention_forward(x.q, x.k, x.v, pass.share, *pass.sequence, pass.backend);
}

at::Tensor Layer::mlp_output(const at::Tensor& mid, const at::Tensor& gate_up, const ops::Dropout& drop) const {
  return down_proj_.forward(ops::swiglu_forward(gate_up), drop).add_(mid);
}

at::Tensor Layer::forward(const at::Tensor& x, const Pass& pass, Recompute policy, Saved* saved) const {
  const ops::Dropout& drop = pass.dropout;
  const at::Tensor qkv = rotated_qkv(ops::rmsnorm_forward(x, input_norm_.value, eps_).y, pass);
  const Heads heads = split(qkv);
  const ops::AttentionResult attention = attend(heads, pass);
  const at::Tensor mid = o_proj_.forward(merged(attention.out), drop).add_(x);
  const at::Tensor gate_up = gate_up_proj_.forward(ops::rmsnorm_forward(mid, post_norm_.value, eps_).y, drop);
  if (saved != nullptr) {
    saved->x = x;
    if (policy <= Recompute::all_but_attention) {
      saved->out = attention.out;
      saved->lse = attention.lse;
    }
    if (policy <= Recompute::gate_up) {
      saved->qkv = qkv;
      saved->mid = mid;
    }
    if (policy == Recompute::nothing) saved->gate_up = gate_up;
  }
  return mlp_output(mid, gate_up, drop);
}

at::Tensor Layer::backward(const at::Tensor& dy, Saved& saved, const Pass& pass) {
  const ops::Dropout& drop = pass.dropout;
  if (!saved.qkv.defined()) saved.qkv = rotated_qkv(ops::rmsnorm_forward(saved.x, input_norm_.value, eps_).y, pass);
  if (!saved.out.defined()) {
    const Heads heads = split(saved.qkv);
    const ops::AttentionResult attention = attend(heads, pass);
    saved.out = attention.out;
    saved.lse = attention.lse;
  }
  if (!saved.mid.defined()) saved.mid = o_proj_.forward(merged(saved.out), drop).add_(saved.x);
  const at::Tensor dmid = mlp_backward(dy, saved, drop);
  return attention_backward(dmid, saved, pass, drop);
}

// Gradient of mid from dy: through the MLP, plus the residual path.
at::Tensor Layer::mlp_backward(const at::Tensor& dy, Saved& saved, const ops::Dropout& drop) {
  const ops::RmsNormed h2 = ops::rmsnorm_forward(saved.mid, post_norm_.value, eps_);
  if (!saved.gate_up.defined()) saved.gate_up = gate_up_proj_.forward(h2.y, drop);
  const at::Tensor dm = down_proj_.input_gradient(dy, drop);
  const at::Tensor m = down_proj_.trains() ? at::empty_like(dm) : at::Tensor();
  const at::Tensor dgate_up = std::move(saved.gate_up);
  ops::swiglu_backward_in_place(dgate_up, dm, m);
  if (down_proj_.trains()) down_proj_.accumulate(dy, m, drop);
  if (gate_up_proj_.trains()) gate_up_proj_.accumulate(dgate_up, h2.y, drop);
  const at::Tensor dh2 = gate_up_proj_.input_gradient(dgate_up, drop);
  return ops::rmsnorm_backward(dh2, saved.mid, post_norm_.value, h2.rstd, dy, gradient_of(post_norm_));
}

// Gradient of x from the gradient of mid: through the attention, plus the residual path.
at::Tensor Layer::attention_backward(const at::Tensor& dmid, Saved& saved, const Pass& pass, const ops::Dropout& drop) {
  if (o_proj_.trains()) o_proj_.accumulate(dmid, merged(saved.out), drop);
  const at::Tensor dout = o_proj_.input_gradient(dmid, drop).view({dmid.size(0), heads_, head_dim_});
  const at::Tensor dqkv = at::empty_like(saved.qkv);
  const Heads heads = split(saved.qkv), d = split(dqkv);
  const ops::AttentionResult attention{saved.out, saved.lse};
  if (pass.sequence == nullptr) {
    ops::attention_backward(dout, heads.q, heads.k, heads.v, attention, pass.plan, d.q, d.k, d.v, pass.backend);
  } else {
    dist::sequence_attention_backward(dout, heads.q, heads.k, heads.v, attention, pass.share, *pass.sequence, d.q, d.k,
                                      d.v, pass.backend);
  }
  ops::rotate_in_place(dqkv, heads_ + kv_heads_, head_dim_, pass.positions, pass.rotary, true);
  const ops::RmsNormed h1 = ops::rmsnorm_forward(saved.x, input_norm_.value, eps_);
  if (qkv_proj_.trains()) qkv_proj_.accumulate(dqkv, h1.y, drop);
  const at::Tensor dh1 = qkv_proj_.input_gradient(dqkv, drop);
  return ops::rmsnorm_backward(dh1, saved.x, input_norm_.value, h1.rstd, dmid, gradient_of(input_norm_));
}

at::Tensor Layer::forward_cached(const at::Tensor& x, const Pass& pass, LayerCache& cache, int64_t past) const {
  const at::Tensor qkv = rotated_qkv(ops::rmsnorm_forward(x, input_norm_.value, eps_).y, pass);
  const Heads heads = split(qkv);
  const int64_t n = x.size(0);
  cache.k.narrow(0, past, n).copy_(heads.k);
  cache.v.narrow(0, past, n).copy_(heads.v);
  at::Tensor out;
  if (past == 0) {
    out = ops::attention_forward(heads.q, heads.k, heads.v, pass.plan, pass.backend).out;
  } else if (n > 1) {
    const int64_t first = pass.plan.window > 0 ? std::max<int64_t>(0, past + 1 - pass.plan.window) : 0;
    auto own = ops::attention_forward(heads.q, heads.k, heads.v, pass.plan, pass.backend);
    const at::Tensor k = cache.k.narrow(0, first, past - first), v = cache.v.narrow(0, first, past - first);
    ops::join_past(heads.q, k, v, pass.plan.window, own.out, own.lse);
    out = own.out;
  } else {
    const int64_t first = pass.plan.window > 0 ? std::max<int64_t>(0, past + 1 - pass.plan.window) : 0;
    const int64_t seen = past + 1 - first, group = heads_ / kv_heads_;
    // One query: scores [kv_heads, group, seen] as a batched product per KV head.
    const at::Tensor k = cache.k.narrow(0, first, seen).transpose(0, 1),
                     v = cache.v.narrow(0, first, seen).transpose(0, 1);
    const at::Tensor q = heads.q.reshape({kv_heads_, group, head_dim_});
    const double scale = 1 / std::sqrt(static_cast<double>(head_dim_));
    const at::Tensor wide = at::bmm(q, k.transpose(1, 2)).to(pass.rotary.cos.scalar_type()).mul_(scale);
    out = at::bmm(wide.softmax(-1).to(q.scalar_type()), v).reshape({1, heads_, head_dim_});
  }
  const at::Tensor mid = o_proj_.forward(merged(out), {}).add_(x);
  return mlp_output(mid, gate_up_proj_.forward(ops::rmsnorm_forward(mid, post_norm_.value, eps_).y, {}), {});
}

}  // namespace longlora::model

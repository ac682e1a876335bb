// One decoder layer, forward and backward written out.
//
//   h1   = rmsnorm(x)                       qkv = rotate(qkv_proj(h1))
//   out  = attention(q, k, v)               mid = x + o_proj(out)
//   h2   = rmsnorm(mid)                     y   = mid + down_proj(swiglu(gate_up_proj(h2)))
//
// The backward pass needs x, qkv, out, lse, mid and gate_up; which of them are kept and which are computed
// again is the recompute policy. A frozen projection needs no saved input, which is why so little has to be
// kept.
#pragma once
#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "core/dist/sequence_plan.h"
#include "core/model/config.h"
#include "core/model/linear.h"
#include "core/ops/attention.h"
#include "core/ops/dropout.h"
#include "core/ops/group_plan.h"
#include "core/ops/rotary.h"

namespace longlora::dist {
class Group;
}

namespace longlora::model {

// What is computed again in the backward pass, from the fastest to the smallest.
enum class Recompute {
  nothing,            // all six are kept
  gate_up,            // all but gate_up
  all_but_attention,  // x, out and lse are kept
  everything          // only x is kept
};

// What all layers of one forward pass share.
struct Pass {
  ops::GroupPlan plan;
  at::Tensor positions;  // [T] int32
  ops::RotaryTable rotary;
  ops::AttentionBackend backend = ops::AttentionBackend::automatic;
  ops::Dropout dropout;  // changes with step and micro-batch
  // Where several ranks share the tokens: T are this rank's, `plan` is of all.
  dist::Group* sequence = nullptr;
  dist::SequencePlan share = {};
};

// What a layer leaves for its backward pass; undefined tensors are computed again. [T, ...] in the compute
// dtype.
struct Saved {
  at::Tensor x;        // [T, hidden]
  at::Tensor qkv;      // [T, (heads + 2 kv_heads) head_dim], rotated
  at::Tensor out;      // [T, heads, head_dim]
  at::Tensor lse;      // log-sum-exp of the scores, as ops::attention_forward gives it
  at::Tensor mid;      // [T, hidden]
  at::Tensor gate_up;  // [T, 2 intermediate]
};

// Keys and values of the tokens so far, for generation.
struct LayerCache {
  at::Tensor k, v;  // [capacity, kv_heads, head_dim]
};

class Layer {
 public:
  Layer(const Config& config, int64_t index, const at::TensorOptions& options);

  // x [T, hidden] -> y [T, hidden]. `saved` is filled as the policy says when not null.
  [[nodiscard]] at::Tensor forward(const at::Tensor& x, const Pass& pass, Recompute policy, Saved* saved) const;

  // dy [T, hidden] -> dx [T, hidden]; adds the gradients of what is trained. Consumes `saved`.
  [[nodiscard]] at::Tensor backward(const at::Tensor& dy, Saved& saved, const Pass& pass);

  // One sequence continued: x [n, hidden] stand at positions `past`... of the cache, which is filled in. n >
  // 1 only with past == 0.
  [[nodiscard]] at::Tensor forward_cached(const at::Tensor& x, const Pass& pass, LayerCache& cache, int64_t past) const;

  void add_lora(const LoraFor& lora_for, double dropout, uint64_t seed);
  void set_product(ops::ProductBackend backend);
  [[nodiscard]] std::vector<Parameter*> parameters();

 private:
  struct Heads {
    at::Tensor q, k, v;  // views of one stacked buffer: [T, heads, head_dim], [T, kv_heads, head_dim] twice
  };
  [[nodiscard]] Heads split(const at::Tensor& qkv) const;
  [[nodiscard]] static ops::AttentionResult attend(const Heads& x, const Pass& pass);
  [[nodiscard]] at::Tensor rotated_qkv(const at::Tensor& h1, const Pass& pass) const;
  [[nodiscard]] at::Tensor merged(const at::Tensor& out) const;  // [T, heads, head_dim] -> [T, heads * head_dim]
  // y = mid + down(swiglu(gate_up)), gate_up given
  [[nodiscard]] at::Tensor mlp_output(const at::Tensor& mid, const at::Tensor& gate_up, const ops::Dropout& drop) const;
  [[nodiscard]] at::Tensor mlp_backward(const at::Tensor& dy, Saved& saved, const ops::Dropout& drop);
  [[nodiscard]] at::Tensor attention_backward(const at::Tensor& dmid, Saved& saved, const Pass& pass,
                                              const ops::Dropout& drop);

  int64_t heads_, kv_heads_, head_dim_;
  double eps_;
  Parameter input_norm_, post_norm_;
  Linear qkv_proj_, o_proj_, gate_up_proj_, down_proj_;
};

}  // namespace longlora::model

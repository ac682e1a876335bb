#include "test/reference/llama_autograd.h"

#include <cmath>

#include "core/model/rope.h"

namespace longlora::reference {
namespace {

at::Tensor rmsnorm(const at::Tensor& x, const at::Tensor& w, double eps) {
  return x * (x.square().mean(-1, true) + eps).rsqrt() * w;
}

at::Tensor project(const Weights& weights, const std::string& name, double lora_scale, const at::Tensor& x) {
  at::Tensor y = at::matmul(x, weights.at(name + ".weight").t());
  if (weights.contains(name + ".bias")) y = y + weights.at(name + ".bias");
  if (weights.contains(name + ".lora_A.weight")) {
    const at::Tensor xa = at::matmul(x, weights.at(name + ".lora_A.weight").t());
    y = y + at::matmul(xa, weights.at(name + ".lora_B.weight").t()) * lora_scale;
  }
  return y;
}

// x [T, heads, D]
at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const int64_t half = x.size(2) / 2;
  const at::Tensor lo = x.narrow(2, 0, half), hi = x.narrow(2, half, half);
  return at::cat({lo * cos - hi * sin, hi * cos + lo * sin}, 2);
}

}  // namespace

at::Tensor allowed_pairs(const data::Batch& batch, int64_t group, const model::Config& c) {
  const int64_t tokens = batch.size();
  const at::Tensor allowed = at::zeros({c.heads, tokens, tokens}, at::kBool);
  auto pair = allowed.accessor<bool, 3>();
  const int64_t plain_heads = c.kv_heads % 2 == 0 ? c.heads / 2 : (c.heads + 1) / 2;
  for (size_t d = 0; d + 1 < batch.documents.size(); ++d) {
    const int64_t begin = batch.documents[d], end = batch.documents[d + 1];
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t j = begin; j <= i; ++j) {
        if (c.sliding_window > 0 && i - j >= c.sliding_window) continue;
        for (int64_t h = 0; h < c.heads; ++h) {
          const int64_t shift = h < plain_heads || group == 0 ? 0 : group - group / 2;
          pair[h][i][j] = group == 0 || (i - begin + shift) / group == (j - begin + shift) / group;
        }
      }
    }
  }
  return allowed;
}

at::Tensor token_losses(const model::Config& c, const Weights& weights, double lora_scale, const data::Batch& batch,
                        int64_t group) {
  const int64_t tokens = batch.size();
  const at::Tensor ids = at::tensor(batch.tokens, at::kLong), positions = at::tensor(batch.positions, at::kDouble);
  const model::RopeFrequencies frequencies = model::frequencies(c.rope, c.head_dim, batch.length);
  const at::Tensor angle = at::outer(positions, at::tensor(frequencies.inverse, at::kDouble)).unsqueeze(1);
  const at::ScalarType type = weights.at("model.embed_tokens.weight").scalar_type();
  const at::Tensor cos = (angle.cos() * frequencies.attention).to(type),
                   sin = (angle.sin() * frequencies.attention).to(type);
  const at::Tensor forbidden = allowed_pairs(batch, group, c).logical_not();

  at::Tensor x = weights.at("model.embed_tokens.weight").index_select(0, ids);
  for (int64_t l = 0; l < c.layers; ++l) {
    const std::string layer = "model.layers." + std::to_string(l) + ".";
    const auto heads = [&](const char* name, const at::Tensor& input, int64_t count) {
      return project(weights, layer + "self_attn." + name, lora_scale, input).view({tokens, count, c.head_dim});
    };
    const at::Tensor h1 = rmsnorm(x, weights.at(layer + "input_layernorm.weight"), c.rms_eps);
    const int64_t ratio = c.heads / c.kv_heads;
    const at::Tensor q = rotate(heads("q_proj", h1, c.heads), cos, sin).transpose(0, 1);
    const at::Tensor k = rotate(heads("k_proj", h1, c.kv_heads), cos, sin).repeat_interleave(ratio, 1).transpose(0, 1);
    const at::Tensor v = heads("v_proj", h1, c.kv_heads).repeat_interleave(ratio, 1).transpose(0, 1);
    const at::Tensor scores = at::bmm(q, k.transpose(1, 2)) / std::sqrt(static_cast<double>(c.head_dim));
    const at::Tensor p = scores.masked_fill(forbidden, -INFINITY).softmax(-1);
    const at::Tensor out = at::bmm(p, v).transpose(0, 1).reshape({tokens, c.heads * c.head_dim});
    x = x + project(weights, layer + "self_attn.o_proj", lora_scale, out);
    const at::Tensor h2 = rmsnorm(x, weights.at(layer + "post_attention_layernorm.weight"), c.rms_eps);
    const at::Tensor gate = project(weights, layer + "mlp.gate_proj", lora_scale, h2);
    const at::Tensor up = project(weights, layer + "mlp.up_proj", lora_scale, h2);
    x = x + project(weights, layer + "mlp.down_proj", lora_scale, gate * gate.sigmoid() * up);
  }
  const at::Tensor& head = weights.at(c.tie_embeddings ? "model.embed_tokens.weight" : "lm_head.weight");
  const at::Tensor logits = at::matmul(rmsnorm(x, weights.at("model.norm.weight"), c.rms_eps), head.t());
  const at::Tensor targets = at::tensor(batch.targets, at::kLong), scored = targets.ge(0);
  const at::Tensor at_target = logits.log_softmax(-1).gather(1, targets.clamp_min(0).unsqueeze(1)).squeeze(1);
  return -at_target * scored;
}

}  // namespace longlora::reference

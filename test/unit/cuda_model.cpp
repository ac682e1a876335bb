// A training step of a whole small model in bfloat16 on the CUDA kernels, run on the host in longlora_ops_tests: losses and
// gradients against autograd in float64, with the error of autograd in bfloat16 as the yardstick.
#include "core/model/llama.h"

#include <catch2/catch.hpp>

#include "core/base/random.h"
#include "core/model/device.h"
#include "core/model/random_tensor.h"
#include "core/ops/cuda_call.h"
#include "test/reference/llama_autograd.h"

#ifndef LONGLORA_KERNELS_ON_HOST
#define LONGLORA_KERNELS_ON_HOST 0
#endif

namespace longlora {
namespace {

using model::Kind;
using model::Recompute;

constexpr double kLoraScale = 2;  // a power of two: B's value is its master, scaled without rounding

model::Config small_config() {
  model::Config config;
  config.architecture = "LlamaForCausalLM";
  config.vocab_size = 61;
  config.hidden = 72;
  config.intermediate = 88;
  config.layers = 2;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 64;
  config.rms_eps = 1e-5;
  config.max_positions = 128;
  return config;
}

data::Batch small_batch() {
  SplitMix random(9);
  data::Batch batch{.rows = 1, .length = 80, .tokens = {}, .targets = {}, .positions = {}, .documents = {0, 23, 80}};
  for (size_t d = 0; d + 1 < batch.documents.size(); ++d) {
    for (int64_t i = batch.documents[d]; i < batch.documents[d + 1]; ++i) {
      batch.tokens.push_back(static_cast<int32_t>(random.below(61)));
      batch.positions.push_back(static_cast<int32_t>(i - batch.documents[d]));
      batch.targets.push_back(random.below(5) == 0 ? data::kIgnore : static_cast<int32_t>(random.below(61)));
    }
  }
  return batch;
}

struct Truth {
  at::Tensor losses;
  reference::Weights weights;  // with gradients
};

Truth by_autograd(model::Llama& llama, const data::Batch& batch, int64_t group, double scale, at::ScalarType type) {
  Truth truth;
  for (model::Parameter* p : llama.parameters()) {
    const at::Tensor seen = p->value.cpu().to(at::kDouble) / p->to_value;
    truth.weights[p->name] = seen.to(type).clone().set_requires_grad(p->trainable());
  }
  const at::Tensor losses = reference::token_losses(llama.config(), truth.weights, kLoraScale, batch, group);
  (losses.sum() * scale).backward();
  truth.losses = losses.detach();
  return truth;
}

double distance(const at::Tensor& a, const at::Tensor& b) {
  return (a.cpu().to(at::kDouble) - b.to(at::kDouble)).norm().item<double>();
}

}  // namespace

TEST_CASE("a training step of a small model on the CUDA kernels", "[kernels][gpu][model]") {
  const at::Device device = LONGLORA_KERNELS_ON_HOST ? at::Device(at::kCPU) : model::open_device("auto");
  if (const char* objection = ops::cuda_objection(at::empty({1}, at::TensorOptions(device)))) {
    WARN("skipped: " << objection);
    return;
  }
  model::Llama llama(small_config(), at::kBFloat16, device);
  const auto fill = [](const at::Tensor& x, double deviation, uint64_t seed) {
    const at::Tensor drawn = at::empty(x.sizes(), at::kFloat);
    model::fill_normal(drawn, deviation, seed);
    x.copy_(drawn);
  };
  for (model::Parameter* p : llama.parameters()) {
    fill(p->value, p->kind == Kind::norm ? 0.5 : 0.15, model::name_hash(p->name));
  }
  llama.add_lora([](const std::string&) { return model::LoraShape{3, kLoraScale}; }, 0, 1);
  const Kind also[] = {Kind::embed, Kind::norm, Kind::lm_head};
  llama.train_kinds(also);
  for (model::Parameter* p : llama.trainable()) {
    if (p->name.ends_with("lora_B.weight")) fill(p->master, 0.1, model::name_hash(p->name));
    p->sync();
  }
  const data::Batch batch = small_batch();
  const double scale = 1.0 / 50;
  for (const int64_t group : {int64_t{0}, int64_t{18}}) {
    const Truth exact = by_autograd(llama, batch, group, scale, at::kDouble),
                plain = by_autograd(llama, batch, group, scale, at::kBFloat16);
    for (const Recompute policy : {Recompute::nothing, Recompute::everything}) {
      INFO("group " << group << ", policy " << static_cast<int>(policy));
      for (model::Parameter* p : llama.trainable()) p->grad.zero_();
      const std::vector<Recompute> policies(2, policy);
      const at::Tensor losses =
          llama.forward_backward(batch, {.group = group, .backend = ops::AttentionBackend::cuda}, policies, scale, {});
      CHECK(distance(losses, exact.losses) <= 2 * distance(plain.losses, exact.losses));
      for (const model::Parameter* p : llama.trainable()) {
        INFO(p->name);
        const at::Tensor truth = exact.weights.at(p->name).grad();
        CHECK(distance(p->grad, truth) <= 3 * distance(plain.weights.at(p->name).grad(), truth));
      }
    }
  }
}

}  // namespace longlora

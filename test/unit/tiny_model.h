// A model small enough to be run by many ranks in one process, of sizes that no number of ranks divides.
#pragma once
#include "core/model/memory.h"
#include "core/train/traffic.h"

namespace longlora::test {

inline model::Config tiny_config(int64_t layers) {
  model::Config c;
  c.architecture = "LlamaForCausalLM";
  c.vocab_size = 41;
  c.hidden = 12;
  c.intermediate = 20;
  c.layers = layers;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 6;
  c.rms_eps = 1e-5;
  c.max_positions = 64;
  return c;
}

// What train::unit_sizes() says of its config, of a model that is there.
inline std::vector<train::UnitSizes> unit_sizes(model::Llama& llama) {
  std::vector<train::UnitSizes> sizes;
  for (const auto& unit : llama.units()) {
    train::UnitSizes& all = sizes.emplace_back();
    std::vector<at::Tensor> frozen;
    for (const model::Parameter* p : unit) {
      if (p->trainable()) {
        all.trained.push_back(p->value.numel());
      } else {
        frozen.push_back(p->value);
      }
    }
    for (const model::Extent& memory : model::memory_under(frozen)) all.frozen.push_back(memory.bytes);
  }
  return sizes;
}

}  // namespace longlora::test

#include "core/model/shapes.h"

#include <fmt/ranges.h>

#include "core/base/error.h"
#include "core/base/nearest.h"

namespace longlora::model {
namespace {

struct Shape {
  const char *name, *architecture;
  int64_t vocab, hidden, intermediate, layers, heads, kv_heads, positions, window;
  double theta;
};

// From the config.json of meta-llama/Llama-2-*-hf, meta-llama/Meta-Llama-3-* and mistralai/Mistral-7B-v0.1.
constexpr Shape kShapes[] = {
    {"llama-2-7b", "LlamaForCausalLM", 32000, 4096, 11008, 32, 32, 32, 4096, 0, 1e4},
    {"llama-2-13b", "LlamaForCausalLM", 32000, 5120, 13824, 40, 40, 40, 4096, 0, 1e4},
    {"llama-2-70b", "LlamaForCausalLM", 32000, 8192, 28672, 80, 64, 8, 4096, 0, 1e4},
    {"llama-3-8b", "LlamaForCausalLM", 128256, 4096, 14336, 32, 32, 8, 8192, 0, 5e5},
    {"llama-3-70b", "LlamaForCausalLM", 128256, 8192, 28672, 80, 64, 8, 8192, 0, 5e5},
    {"mistral-7b", "MistralForCausalLM", 32000, 4096, 14336, 32, 32, 8, 32768, 4096, 1e4},
};

}  // namespace

const std::vector<std::string>& shape_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const Shape& shape : kShapes) all.emplace_back(shape.name);
    return all;
  }();
  return names;
}

Config config_of_shape(const std::string& name) {
  for (const Shape& shape : kShapes) {
    if (name != shape.name) continue;
    Config c;
    c.architecture = shape.architecture;
    c.vocab_size = shape.vocab;
    c.hidden = shape.hidden;
    c.intermediate = shape.intermediate;
    c.layers = shape.layers;
    c.heads = shape.heads;
    c.kv_heads = shape.kv_heads;
    c.head_dim = shape.hidden / shape.heads;
    c.rms_eps = 1e-5;
    c.max_positions = shape.positions;
    c.sliding_window = shape.window;
    c.rope.theta = shape.theta;
    c.rope.original_length = shape.positions;
    return c;
  }
  usage_error("unknown shape '{}'{} there are {}", name,
              did_you_mean(name, shape_names()).empty() ? ";" : did_you_mean(name, shape_names()),
              fmt::join(shape_names(), ", "));
}

}  // namespace longlora::model

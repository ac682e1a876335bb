// Names of a Llama's weights and modules, as checkpoints and adapters have them.
#pragma once
#include <set>
#include <string>

namespace longlora::io {

inline constexpr const char *kEmbed = "model.embed_tokens.weight", *kHead = "lm_head.weight";

// The linear layers of attention and MLP, by last_part() of their modules.
inline const std::set<std::string> kLinear = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                              "gate_proj", "up_proj", "down_proj"};

// "model.layers.0.self_attn.q_proj.weight" -> "model.layers.0.self_attn.q_proj"
inline std::string module_of(const std::string& tensor) {
  return tensor.substr(0, tensor.rfind('.'));
}

// "model.layers.0.self_attn.q_proj" -> "q_proj"
inline std::string last_part(const std::string& module) {
  return module.substr(module.rfind('.') + 1);
}

}  // namespace longlora::io

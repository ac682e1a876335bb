// config.json as written: every spelling of the RoPE settings, so that old and new readers find the same.
#include "core/base/file.h"
#include "core/model/config.h"

namespace longlora::model {
namespace {

using nlohmann::ordered_json;

// RoPE settings as one dictionary: the keys that transformers 5 knows for the type.
ordered_json rope_dictionary(const RopeSettings& rope) {
  ordered_json out;
  out["rope_type"] = rope.type == RopeType::none ? "default" : std::string(name_of(rope.type));
  if (rope.type == RopeType::none) return out;
  out["factor"] = rope.factor;
  if (rope.type == RopeType::linear || rope.type == RopeType::dynamic) return out;
  out["original_max_position_embeddings"] = rope.original_length;
  const auto put = [&](const char* key, const std::optional<double>& value) {
    if (value) out[key] = *value;
  };
  // transformers 4.44 does not load longrope without it, 4.45 to 4.57 take a rounded factor for it; before 4.51 yarn's
  // mscale is not known.
  const bool by_name = rope.type == RopeType::longrope || (rope.type == RopeType::yarn && rope.mscale);
  put("attention_factor", by_name && !rope.attention_factor ? own_attention_factor(rope) : rope.attention_factor);
  put("beta_fast", rope.beta_fast);
  put("beta_slow", rope.beta_slow);
  put("mscale", rope.mscale);
  put("mscale_all_dim", rope.mscale_all_dim);
  if (!rope.truncate) out["truncate"] = false;
  if (rope.type == RopeType::longrope) {
    out["short_factor"] = rope.short_factor;
    out["long_factor"] = rope.long_factor;
  }
  if (rope.type == RopeType::llama3) {
    out["low_freq_factor"] = rope.low_freq_factor;
    out["high_freq_factor"] = rope.high_freq_factor;
  }
  return out;
}

ordered_json id_json(const std::optional<int32_t>& id) {
  return id ? ordered_json(*id) : ordered_json(nullptr);
}

ordered_json id_json(const std::vector<int32_t>& ids) {
  if (ids.empty()) return nullptr;
  return ids.size() == 1 ? ordered_json(ids.front()) : ordered_json(ids);
}

}  // namespace

ordered_json config_json(const Config& c) {
  ordered_json out = c.raw.is_object() ? c.raw : ordered_json::object();
  const bool mistral = c.architecture == "MistralForCausalLM";
  out["architectures"] = {c.architecture};
  out["model_type"] = mistral ? "mistral" : "llama";
  out["vocab_size"] = c.vocab_size;
  out["hidden_size"] = c.hidden;
  out["intermediate_size"] = c.intermediate;
  out["num_hidden_layers"] = c.layers;
  out["num_attention_heads"] = c.heads;
  out["num_key_value_heads"] = c.kv_heads;
  out["head_dim"] = c.head_dim;
  out["hidden_act"] = "silu";
  out["rms_norm_eps"] = c.rms_eps;
  out["initializer_range"] = c.initializer_range;
  out["tie_word_embeddings"] = c.tie_embeddings;
  if (mistral) {
    out["sliding_window"] = c.sliding_window > 0 ? ordered_json(c.sliding_window) : ordered_json(nullptr);
  } else {
    out["attention_bias"] = c.attention_bias;
    out["mlp_bias"] = c.mlp_bias;
  }
  const bool list = out.contains("eos_token_id") && out["eos_token_id"].is_array();  // also of one token, if it was
  out["eos_token_id"] = list ? ordered_json(c.eos) : id_json(c.eos);
  out["bos_token_id"] = id_json(c.bos);
  out["pad_token_id"] = id_json(c.pad);
  out["torch_dtype"] = c.dtype;
  out["dtype"] = c.dtype;

  // transformers 4.51 to 4.55 take yarn's factor from the lengths, longrope's 4.48 to 4.57
  const bool by_lengths = c.rope.type == RopeType::yarn || c.rope.type == RopeType::longrope;
  out["max_position_embeddings"] = by_lengths ? c.covered_length() : c.max_positions;
  out["rope_theta"] = c.rope.theta;
  out["rope_scaling"] = nullptr;
  out["rope_parameters"] = rope_dictionary(c.rope);
  out["rope_parameters"]["rope_theta"] = c.rope.theta;
  out.erase("original_max_position_embeddings");
  if (c.rope.type != RopeType::none) {
    ordered_json& scaling = out["rope_scaling"] = rope_dictionary(c.rope);
    scaling["type"] = scaling["rope_type"];
    out["original_max_position_embeddings"] = c.rope.original_length;
  }
  return out;
}

void write_config(const Config& config, const std::filesystem::path& file) {
  write_file_atomically(file, config_json(config).dump(2) + "\n");
}

ordered_json rope_to_json(const RopeSettings& rope) {
  ordered_json out = rope_dictionary(rope);
  out["rope_theta"] = rope.theta;
  out["original_max_position_embeddings"] = rope.original_length;
  return out;
}

}  // namespace longlora::model

// A model's config.json: what the architecture is, checked, in one struct; read in the spellings of
// transformers 4 and 5 and written so that both read the same.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/model/rope.h"

namespace longlora::model {

struct Config {
  std::string architecture;  // LlamaForCausalLM | MistralForCausalLM
  int64_t vocab_size = 0, hidden = 0, intermediate = 0, layers = 0;
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  double rms_eps = 1e-6;
  double initializer_range = 0.02;  // standard deviation of random initial weights
  bool tie_embeddings = false;      // lm_head is embed_tokens
  bool attention_bias = false;      // on q, k, v and o
  bool mlp_bias = false;            // on gate, up and down
  int64_t max_positions = 0;        // max_position_embeddings as in the file
  int64_t sliding_window = 0;       // a query sees keys with query - key < window; 0: no limit
  RopeSettings rope;
  std::optional<int32_t> bos, pad;
  std::vector<int32_t> eos;       // none, one or several
  std::string dtype = "float32";  // of the weights as stored, torch's name
  nlohmann::ordered_json raw;     // the file as read; keeps what is not named here

  // The longest context that the RoPE settings are made for, in tokens.
  [[nodiscard]] int64_t covered_length() const;
};

// Reads and checks config.json (given, or in the given folder). Exit 3 naming file, field and what is wrong:
// unsupported architecture, activation, RoPE type or quantization, missing or impossible sizes.
[[nodiscard]] Config read_config(const std::filesystem::path& folder_or_file);

// The JSON that write_config writes: `raw` with everything named above put in. RoPE settings stand there
// three times: rope_theta + rope_scaling with both "rope_type" and "type" (transformers 4), rope_parameters
// (5), and original_max_position_embeddings at the top level (4.48 to 4.57).
[[nodiscard]] nlohmann::ordered_json config_json(const Config& config);
void write_config(const Config& config,
                  const std::filesystem::path& file);  // atomically; exit 1 when it cannot

// RoPE settings by themselves, spelt as transformers 5's rope_parameters plus
// original_max_position_embeddings for every type. from: exit 3 naming `where`.
[[nodiscard]] nlohmann::ordered_json rope_to_json(const RopeSettings& rope);
[[nodiscard]] RopeSettings rope_from_json(const nlohmann::ordered_json& json, int64_t head_dim,
                                          const std::string& where);

}  // namespace longlora::model

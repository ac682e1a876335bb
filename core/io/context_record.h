// longlora.json, beside an adapter or a model: what its config cannot say. The context it was trained for, and on what.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/io/safetensors.h"

namespace longlora::io {

// An adapter that was on the base when another one was trained.
struct StackedOn {
  std::string path;         // as given
  std::string fingerprint;  // Adapter::fingerprint()
  bool operator==(const StackedOn&) const = default;
};

struct ContextRecord {
  std::string version;                     // of the program that wrote it
  int64_t context_length = 0;              // tokens a row in training
  int64_t max_positions = 0;               // max_position_embeddings that goes with the RoPE settings
  nlohmann::ordered_json rope;             // model::rope_to_json
  int64_t group_size = 0;                  // of S2-Attn in training, in tokens; 0: full attention
  std::string base_model;                  // path as given
  std::string base_fingerprint;            // model_fingerprint() of it; empty when trained from random weights
  nlohmann::ordered_json recipe;           // as resolved
  std::vector<StackedOn> stacked_on = {};  // in the order in which they are put on
};

inline constexpr const char* kContextRecordFile = "longlora.json";

// The record of a folder; empty when it has none. Exit 3 naming the key when it is damaged.
[[nodiscard]] std::optional<ContextRecord> read_context_record(const fs::path& folder);
void write_context_record(const ContextRecord& record, const fs::path& folder);

// Tells models apart: names, types and shapes of all tensors and three samples of each one's bytes. Takes no longer for
// a large model than for a small one.
[[nodiscard]] std::string model_fingerprint(const TensorStore& model);
[[nodiscard]] std::string tensors_fingerprint(const std::map<std::string, TensorView>& tensors);

}  // namespace longlora::io

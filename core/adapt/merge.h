// Base model + adapters -> one model: W + scale * B A per LoRA module, computed as if in float64 (low_rank.h) and rounded once; weights that
// were trained whole replace the base's. Streamed a few rows at a time on all cores, so that memory does not grow with the
// model.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/io/adapter.h"
#include "core/io/safetensors.h"

namespace longlora::adapt {

// An adapter and how much of its change is added: 1 as it was trained, -1 takes it out again.
struct WeightedAdapter {
  std::filesystem::path folder;
  double weight = 1;
};

struct MergeOptions {
  std::filesystem::path model;               // base folder, or another model of the same architecture
  std::vector<WeightedAdapter> adapters;     // their changes are added up
  std::filesystem::path out;                 // appears complete or not at all
  std::optional<io::DType> dtype = {};       // of the output; empty: each tensor keeps the base's
  std::optional<io::Vocabulary> embed = {};  // empty: whole, and an adapter of another base may not bring an embedding
  bool overwrite = false;
  int64_t max_shard_bytes = 5'000'000'000;
  // Looks at the finished folder before it gets its name; throws to give it up.
  std::function<void(const std::filesystem::path& folder)> check = {};
};

struct MergeReport {
  int64_t tensors = 0, low_rank = 0, replaced = 0;  // written; changed by LoRA; trained whole
  int64_t bytes = 0;                                // of weights written
  std::string context;             // one line: context and RoPE settings of the result, whence they are
  std::vector<std::string> notes;  // a line each: adapters of other bases
};

// Exit 2: no adapter, `out` is or holds an input. Exit 3: an input folder is not there.
void check_folders(const MergeOptions& options);

// `progress` gets the bytes done and in all, from several threads, one at a time.
//
// config.json gets the context settings that the adapters of positive weight were trained with (longlora.json); adapters
// without that file leave the base's. Tokenizer files and generation_config.json are copied, README.md says what the model
// was made of. Weights trained whole replace the base's where one adapter of weight 1 brings them; otherwise every one's
// weighted difference from the base is added. An adapter that was trained with others on the base comes after them; what it
// brings whole takes the place of what they bring.
// Exit 2: `out` exists, or is one of the inputs; an adapter of another base brings an embedding and `embed` does not say
// what becomes of it. Exit 3: anything that does not fit together, named (Adapter's errors, two adapters that disagree on the
// context). Exit 1: cannot write; a value is too large for the output's type.
MergeReport merge(const MergeOptions& options, const std::function<void(int64_t, int64_t)>& progress);

}  // namespace longlora::adapt

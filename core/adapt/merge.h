// Base model + adapters -> one model: W + scale * B A per LoRA module, computed in float32 and rounded once; weights that
// were trained whole replace the base's. Streamed: one tensor of the output is in memory at a time.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/io/safetensors.h"

namespace longlora::adapt {

struct MergeOptions {
  std::filesystem::path model;                  // base folder
  std::vector<std::filesystem::path> adapters;  // their changes are added up
  std::filesystem::path out;                    // appears complete or not at all
  std::optional<io::DType> dtype = {};          // of the output; empty: each tensor keeps the base's
  bool overwrite = false;
  int64_t max_shard_bytes = 5'000'000'000;
};

struct MergeReport {
  int64_t tensors = 0, low_rank = 0, replaced = 0;  // written; changed by LoRA; replaced
  int64_t bytes = 0;                                // of weights written
  std::string context;  // one line: context and RoPE settings of the result, whence they are
};

// Exit 2: no adapter, `out` is or holds an input. Exit 3: an input folder is not there.
void check_folders(const MergeOptions& options);

// `progress` gets the bytes done and in all, after every tensor.
//
// config.json gets the context settings that the adapter was trained with (longlora.json); an adapter without that file
// leaves the base's. Tokenizer files and generation_config.json are copied.
// Exit 2: `out` exists, or is one of the inputs. Exit 3: anything that does not fit together, named (Adapter's errors, two
// adapters that replace the same weights or disagree on the context, an adapter of another base). Exit 1: cannot write.
MergeReport merge(const MergeOptions& options, const std::function<void(int64_t, int64_t)>& progress);

}  // namespace longlora::adapt

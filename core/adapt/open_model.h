// A model for evaluation or generation: a folder, perhaps with an adapter on it, at the context that its settings cover.
#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/model/compute.h"
#include "core/model/llama.h"
#include "core/text/tokenizer.h"

namespace longlora::adapt {

struct OpenOptions {
  std::filesystem::path model, adapter;        // adapter may be empty
  std::string dtype = "auto";                  // as in model::choose_compute()
  std::optional<model::Compute> compute = {};  // chosen by a result that goes on, instead of by `dtype`
  std::string device = "auto";
  bool other_bases = false;  // an adapter of another base of the same architecture is taken too
  std::string rope;  // "linear:4": other RoPE settings than the model's own; empty: the model's, or the adapter's
  std::vector<std::filesystem::path> stacked = {};  // further adapters, each trained with all before it on the model
};

struct OpenedModel {
  model::Compute compute;
  std::unique_ptr<model::Llama> llama;
  std::shared_ptr<const text::Tokenizer> tokenizer;  // null when the folder has none
  std::vector<int32_t> stop;                         // tokens that end an answer
};

// The tokenizer of a folder, null where there is none. Exit 3: it has more tokens than the model.
[[nodiscard]] std::shared_ptr<const text::Tokenizer> open_tokenizer(const std::filesystem::path& folder,
                                                                    const model::Config& config);

// The adapters in the order in which they go on the model.
[[nodiscard]] std::vector<std::filesystem::path> all_adapters(const OpenOptions& options);

// An adapter brings its context settings (longlora.json) and must fit the model: exit 3 naming what does not. Of several, all
// but the last go into the weights; exit 2 when one was not trained with those before it on the model.
[[nodiscard]] OpenedModel open_model(const OpenOptions& options);

// Exit 2 when `length` tokens are more than the model's RoPE settings cover, naming the ways out, unless `beyond`.
void check_covered(const model::Config& config, int64_t length, bool beyond);

}  // namespace longlora::adapt

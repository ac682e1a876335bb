// What a base model and its adapters are together: the one place where an adapter's context settings (longlora.json) come
// in, for training, evaluation and merging alike.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/io/adapter.h"
#include "core/io/context_record.h"
#include "core/model/config.h"

namespace longlora::adapt {

struct AdaptedConfig {
  model::Config config;  // the base's, with the adapters' RoPE settings and length, untied where an adapter unties it
  std::string whence;    // longlora.json that the context settings are from; empty: the base's own stayed
  std::string fingerprint;                                // of the base's weights; empty without an adapter
  std::vector<std::optional<io::ContextRecord>> records;  // of each adapter what its longlora.json says
  std::vector<bool> of_this_base;                         // ... and whether that is: trained on this very base
  std::vector<std::string> strangers;                     // a line for every adapter that was trained on another
  std::vector<std::vector<size_t>>
      on;  // of each adapter, which of those before it were on the base when it was trained
};

struct AdaptOptions {
  bool other_bases = false;          // adapters of other bases, of the same architecture, are taken too
  std::vector<bool> brings_context;  // which adapters' context settings count; empty: all
};

// Exit 3 naming file and what does not fit: the weights themselves (model::check_weights), the adapter's tensors
// (Adapter::check_against), an adapter that was trained on another base (unless they are allowed),
// two adapters with different context settings (where one was trained with the other on the base, its own count), an adapter
// without those that were on the base when it was trained, or before them.
[[nodiscard]] AdaptedConfig adapted_config(const model::Config& base, const io::TensorStore& weights,
                                           std::span<const io::Adapter> adapters, const AdaptOptions& options = {});

// For several adapters that are run together, not merged: exit 2 unless each was trained with all before it on the base.
void check_stacked(std::span<const io::Adapter> adapters, const AdaptedConfig& adapted);

}  // namespace longlora::adapt

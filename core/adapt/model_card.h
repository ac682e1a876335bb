// README.md of a merged model: what it was made of, in the form that model hubs read.
#pragma once
#include "core/adapt/adapted_config.h"
#include "core/adapt/merge.h"

namespace longlora::adapt {

void write_model_card(const MergeOptions& options, const AdaptedConfig& adapted, std::span<const io::Adapter> adapters,
                      const std::filesystem::path& folder);

}  // namespace longlora::adapt

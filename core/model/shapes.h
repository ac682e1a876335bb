// The sizes of well-known models, for planning a run where no model folder is at hand.
#pragma once
#include <string>
#include <vector>

#include "core/model/config.h"

namespace longlora::model {

// "llama-2-7b", ...
[[nodiscard]] const std::vector<std::string>& shape_names();

// The config of a model of that name as it was published (meta-llama, mistralai): sizes, RoPE, context. Exit 2 with the
// names for another one.
[[nodiscard]] Config config_of_shape(const std::string& name);

}  // namespace longlora::model

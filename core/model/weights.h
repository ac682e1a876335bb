// A model's weights from and to a Hugging Face folder.
#pragma once
#include <filesystem>

#include "core/model/llama.h"

namespace longlora::model {

// config.json and the weights of `folder` in the given compute dtype. `config` replaces the folder's own when the
// context was extended. Exit 3 naming the tensor: missing, unexpected, of another shape than config.json says.
[[nodiscard]] Llama load_llama(const std::filesystem::path& folder, const Config& config, at::ScalarType dtype,
                               at::Device device);

// Writes the weights of a model (master copies where there are some) in `dtype`, with config.json.
void save_llama(const std::filesystem::path& folder, Llama& llama, at::ScalarType dtype);

}  // namespace longlora::model

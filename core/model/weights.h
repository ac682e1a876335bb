// A model's weights from and to a Hugging Face folder.
#pragma once
#include <filesystem>

#include "core/io/safetensors.h"
#include "core/model/llama.h"

namespace longlora::model {

// A model of this config (perhaps with another context than the folder's own) with the weights of `store` in the given
// compute dtype. Exit 3 naming the tensor: missing, unexpected, of another shape than the config says.
[[nodiscard]] Llama load_llama(const io::TensorStore& store, const Config& config, at::ScalarType dtype,
                               at::Device device);

// Writes the weights of a model (master copies where there are some) in `dtype`, with config.json.
void save_llama(const std::filesystem::path& folder, Llama& llama, at::ScalarType dtype);

}  // namespace longlora::model

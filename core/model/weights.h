// A model's weights from and to a Hugging Face folder.
#pragma once
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "core/io/safetensors.h"
#include "core/model/llama.h"
#include "core/model/tensors.h"

namespace longlora::model {

// Name and shape of every tensor of a model with this config, as they stand in a file.
void for_each_tensor(const Config& config,
                     const std::function<void(const std::string& name, std::vector<int64_t> shape)>& take);

// Exit 3 naming the first tensor that is missing, unexpected, of another shape than the config says, or of a type that
// cannot be computed with. Allocates nothing, however large a model the config speaks of.
void check_weights(const io::TensorStore& store, const Config& config);

// A model of this config with the weights of `store`, which must have passed check_weights() with the folder's own config;
// this one may differ in its context and, where an adapter brings embedding and head, in its vocabulary. In the given
// compute dtype.
[[nodiscard]] Llama load_llama(const io::TensorStore& store, const Config& config, at::ScalarType dtype,
                               at::Device device);
// The same into a model that is there; `ready` after each unit.
void load_weights(Llama& llama, const io::TensorStore& store, const Llama::Ready& ready = {});

// The dtype of weights that check_weights() passed, by the embedding's; config.json may name another one.
[[nodiscard]] std::string dtype_on_disk(const io::TensorStore& store);

// Writes the weights of a model (master copies where there are some) in `dtype`, with config.json. `whole` and an empty folder:
// as in source() (core/model/tensors.h).
void save_llama(const std::filesystem::path& folder, Llama& llama, at::ScalarType dtype, const Whole& whole = {});

}  // namespace longlora::model

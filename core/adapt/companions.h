// The files beside the weights that make a folder a usable model: tokenizer, chat template, generation settings, licence.
#pragma once
#include <cstdint>
#include <filesystem>

namespace longlora::adapt {

// Copies them from one model folder to another. A tokenizer that would cut texts below `context_length`
// (model_max_length in tokenizer_config.json) is given that length. Exit 1 when it cannot be done.
void copy_companions(const std::filesystem::path& from, const std::filesystem::path& to, int64_t context_length);

}  // namespace longlora::adapt

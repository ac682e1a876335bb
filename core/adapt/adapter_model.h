// An adapter on a model in memory: attached for evaluation, written from training, read back to go on training.
#pragma once
#include <filesystem>

#include "core/io/adapter.h"
#include "core/model/llama.h"
#include "core/recipe/recipe.h"

namespace longlora::adapt {

// Gives `llama` the adapter's LoRA modules and replaced weights.
void attach(model::Llama& llama, const io::Adapter& adapter);

// Puts all that the adapter changes into the weights themselves, rounded once to their type: as if the model were the merged
// one. For adapters that others stand on.
void fold_in(model::Llama& llama, const io::Adapter& adapter);

// Makes trainable what the recipe's `tune` says.
void make_trainable(model::Llama& llama, const recipe::Tune& tune, uint64_t seed);

// The master copies of everything trainable from an adapter of the same shape. Exit 3 naming the first tensor that
// only one of them has.
void load_trained(model::Llama& llama, const io::Adapter& adapter);

// Writes adapter_config.json and adapter_model.safetensors: LoRA in float32 as PEFT does, weights trained whole in
// `whole`. A tied head that was trained with the embedding is written beside it: PEFT would keep the base's otherwise.
void save_adapter(const std::filesystem::path& folder, model::Llama& llama, const recipe::Tune& tune,
                  const std::string& base_model, at::ScalarType whole);

}  // namespace longlora::adapt

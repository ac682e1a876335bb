// An adapter on a model in memory: attached for evaluation, written from training, read back to go on training.
#pragma once
#include <filesystem>

#include "core/io/adapter.h"
#include "core/model/llama.h"
#include "core/model/tensors.h"
#include "core/recipe/recipe.h"

namespace longlora::adapt {

// Gives `llama` the adapter's LoRA modules and replaced weights.
void attach(model::Llama& llama, const io::Adapter& adapter);

// Puts all that the adapter changes into the weights themselves, rounded once to their type: as if the model were the merged
// one. For adapters that others stand on.
void fold_in(model::Llama& llama, const io::Adapter& adapter);
void fold_in(model::Parameter& parameter, const io::Adapter& adapter);

// Whether the recipe's `tune` trains the model's own weights of this kind.
[[nodiscard]] bool trains(const recipe::Tune& tune, model::Kind kind);

// Makes trainable what the recipe's `tune` says.
void make_trainable(model::Llama& llama, const recipe::Tune& tune, uint64_t seed);

// The master copies of everything trainable from an adapter of the same shape. Exit 3 naming the first tensor that
// only one of them has.
void load_trained(model::Llama& llama, const io::Adapter& adapter);

// Writes adapter_config.json and adapter_model.safetensors: LoRA in float32 as PEFT does, weights trained whole in
// `type`. A tied head that was trained with the embedding is written beside it: PEFT would keep the base's otherwise. `whole`
// and an empty folder: as in source() (core/model/tensors.h).
void save_adapter(const std::filesystem::path& folder, model::Llama& llama, const recipe::Tune& tune,
                  const std::string& base_model, at::ScalarType type, const model::Whole& whole = {});

}  // namespace longlora::adapt

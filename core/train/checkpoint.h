// Checkpoints of a training run: folders DIR/step-N that are complete or absent.
//
//   adapter_config.json, adapter_model.safetensors   what is trained, in float32: a PEFT adapter that other tools read
//   (or config.json, model.safetensors               with tune.mode full: the model)
//   longlora.json                                    context settings
//   optimizer.safetensors                            both moments of every trained tensor
//   state.json                                       step, data cursor, recipe, and a hash of every other file; what is to
//                                                    be logged of the step once it is validated, if that was given up
//
// Everything random in a run is derived from its seed and the step, so there is no generator state to keep.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "core/model/llama.h"
#include "core/recipe/recipe.h"
#include "core/train/adamw.h"
#include "core/train/setup.h"
#include "core/train/step_log.h"
#include "core/train/trained.h"

namespace longlora::train {

struct RunState {
  int64_t step = 0;       // optimizer steps done
  int64_t tokens = 0;     // trained on so far
  Manner manner;          // which a resumed run keeps
  nlohmann::json cursor;  // data::Loader::save()
  std::optional<StepRecord> unlogged =
      {};  // of the last step, where the validation that belongs to it is still to come
};

// Writes what others can use of the model (an adapter or a model folder, in the given dtype) into an existing folder. Empty: takes
// part in the making of what is cut up over the ranks.
using SaveModel = std::function<void(const std::filesystem::path& folder, at::ScalarType whole)>;

// Writes DIR/step-N, then removes the oldest ones beyond `keep` (0 keeps all). What is trained in slices is put together tensor
// by tensor, each written before the next one: all ranks call this, and rank 0 writes. The files are the same however many
// ranks there are.
void save_checkpoint(const recipe::Recipe& recipe, const RunState& state, const Trained& trained,
                     const SaveModel& save_model);

// What makes `recipe` another run's than the saved one, a line each, "\n  key: A now, B in the run": the same run may log, keep
// checkpoints and be shared out over ranks differently when it goes on.
[[nodiscard]] std::string other_than(const nlohmann::ordered_json& saved, const recipe::Recipe& recipe);

// Removes what a killed process left of a checkpoint it was writing or removing.
void sweep_checkpoints(const std::filesystem::path& dir);

// The newest complete checkpoint of the folder; empty when there is none.
[[nodiscard]] std::optional<std::filesystem::path> newest_checkpoint(const std::filesystem::path& dir);

// That of a checkpoint's run. One of before this was kept computed in its recipe's dtype by LibTorch's own products.
[[nodiscard]] Manner manner_of(const std::filesystem::path& folder);

// The step of a folder named step-N, or -1.
[[nodiscard]] int64_t step_of(const std::filesystem::path& folder);

// Reads one back into what is trained and the optimizer. Exit 3 when a file does not match its hash; exit 2 when
// the recipe differs from the run's in anything but logging, checkpointing and what ranks share, naming the keys.
[[nodiscard]] RunState load_checkpoint(const std::filesystem::path& folder, const recipe::Recipe& recipe,
                                       model::Llama& llama, Trained& trained, AdamW& optimizer);

}  // namespace longlora::train

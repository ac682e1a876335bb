// From a recipe to what the training loop works on: data, model, what is trained. Everything that can be wrong is found
// here, the cheap checks first, before anything large is loaded.
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "core/data/loader.h"
#include "core/data/samples.h"
#include "core/dist/job.h"
#include "core/io/context_record.h"
#include "core/model/compute.h"
#include "core/model/extend.h"
#include "core/model/llama.h"
#include "core/model/tensors.h"
#include "core/recipe/read.h"
#include "core/train/memory_plan.h"
#include "core/train/shard.h"
#include "core/train/weight_shards.h"

namespace longlora::train {

// S2-Attn group in tokens of a recipe whose context.length is filled in; 0 for attention.pattern full.
[[nodiscard]] int64_t group_of(const recipe::Recipe& recipe);

// Exit 2 where parallel.sequence ranks cannot share a row of the recipe, whose context.length is filled in.
void check_sequence(const recipe::Recipe& recipe, const model::Config& config);

// What a run on another machine, or from another spelling of the recipe, would choose otherwise; its checkpoints keep it.
struct Manner {
  std::string compute;       // model::to_text()
  std::string result_dtype;  // of final/
};

struct Setup {
  recipe::Recipe recipe;       // with context.length and model.dtype filled in
  model::Extension extension;  // the model's config at the context asked for
  model::Compute compute;
  at::ScalarType result_dtype;  // of final/: the one asked for, else the base's own
  at::Device device;
  std::shared_ptr<const data::Rows> rows;
  std::vector<data::Batch> validation;    // empty: no validation asked for
  std::string base_fingerprint;           // of model.path; empty with model.init
  std::vector<io::StackedOn> stacked_on;  // model.stack_on
  Shard shard;
  std::unique_ptr<WeightShards> weights;  // null but with Shard::model
  std::unique_ptr<model::Llama> llama;
  MemoryPlan memory;

  [[nodiscard]] int64_t group() const;  // of this recipe
  // Whether step `step` (from 0) attends in groups: the last attention.finish of the steps does not.
  [[nodiscard]] bool grouped(int64_t step) const;
};

// With Use::sft the data are conversations (core/data/samples.h), and what became of them is logged.
[[nodiscard]] Setup prepare_run(const recipe::Recipe& recipe, recipe::Use use = recipe::Use::train);
// On a rank of a job: rank 0 makes tokens of text and chooses how to compute; the others wait and then find both. `kept`:
// that of the run that is resumed (rank 0 alone needs it); empty for a new run.
[[nodiscard]] Setup prepare_run(const recipe::Recipe& recipe, recipe::Use use, dist::Job& job, const Manner& kept = {});

struct FirstSamples {
  std::shared_ptr<const text::Tokenizer> tokenizer;
  std::vector<data::Sample> samples;
};
// The first `count` samples that a fine-tuning run would learn from.
[[nodiscard]] FirstSamples first_samples(const recipe::Recipe& recipe, int64_t count);

// The model or adapter as other tools read it, into an existing folder: weights, config, longlora.json, tokenizer files. `whole` and an
// empty folder: as in source() (core/model/tensors.h).
void save_model(const Setup& setup, const std::filesystem::path& folder, at::ScalarType type,
                const model::Whole& whole);

}  // namespace longlora::train

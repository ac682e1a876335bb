#include "core/train/setup.h"

#include <cmath>

#include "core/adapt/adapted_config.h"
#include "core/adapt/adapter_model.h"
#include "core/adapt/companions.h"
#include "core/adapt/open_model.h"
#include "core/base/error.h"
#include "core/base/memory.h"
#include "core/base/random.h"
#include "core/base/version.h"
#include "core/io/context_record.h"
#include "core/model/device.h"
#include "core/model/tensors.h"
#include "core/model/weights.h"
#include "core/recipe/print.h"
#include "core/text/tokenizer.h"

namespace longlora::train {
namespace {

// Streams of random numbers that a run derives from its seed.
enum Stream : uint64_t { kWeights = 1, kLora = 2 };

fs::path model_folder(const recipe::Model& model) {
  return model.path.empty() ? model.init : model.path;
}

std::shared_ptr<const data::Rows> open_rows(const recipe::Recipe& recipe, const std::vector<std::string>& patterns,
                                            const text::Tokenizer* tokenizer, const model::Config& config,
                                            const std::string& name) {
  auto source =
      std::make_shared<data::TokenSource>(data::TokenSource::open({.patterns = patterns,
                                                                   .tokenizer = tokenizer,
                                                                   .vocab = config.vocab_size,
                                                                   .cache = fs::path(recipe.checkpoint.dir) / "cache",
                                                                   .stop = {}}));
  const auto packing = recipe.data.packing == "stream" ? data::Packing::stream : data::Packing::documents;
  const int32_t pad = tokenizer != nullptr && tokenizer->eos() ? *tokenizer->eos() : 0;
  return std::make_shared<data::Rows>(source, packing, recipe.context.length, pad, name);
}

}  // namespace

int64_t Setup::group() const {
  if (recipe.attention.pattern == "full") return 0;
  if (recipe.attention.group_size > 0) return recipe.attention.group_size;
  return std::max<int64_t>(2, std::llround(static_cast<double>(recipe.context.length) * recipe.attention.group_ratio));
}

bool Setup::grouped(int64_t step) const {
  const double finish = recipe.attention.finish * static_cast<double>(recipe.schedule.steps);
  return group() > 0 && step < recipe.schedule.steps - std::llround(finish);
}

Setup prepare_run(const recipe::Recipe& asked) {
  const int64_t available = available_memory();
  model::Config base = model::read_config(model_folder(asked.model));
  std::optional<io::TensorStore> weights;
  std::vector<io::Adapter> adapters;
  if (!asked.model.path.empty()) {
    weights.emplace(asked.model.path);
    if (!asked.model.adapter.empty()) adapters.emplace_back(asked.model.adapter);
    base = adapt::adapted_config(base, *weights, adapters).config;  // going on from an adapter, also with its context
  }
  Setup setup{.recipe = asked,
              .extension = model::extend(base, asked.context.rope, asked.context.length),
              .dtype = model::parse_dtype(asked.model.dtype),
              .device = model::open_device(asked.model.device),
              .rows = nullptr,
              .validation = {},
              .base_fingerprint = {},
              .llama = nullptr,
              .memory = {}};
  setup.recipe.context.length = setup.extension.length;
  const recipe::Recipe& recipe = setup.recipe;
  const model::Config& config = setup.extension.config;

  const fs::path tokens = recipe.data.tokenizer.empty() ? model_folder(recipe.model) : fs::path(recipe.data.tokenizer);
  const auto tokenizer = adapt::open_tokenizer(tokens, config);  // token files alone can be trained on without
  if (tokenizer == nullptr && !recipe.data.tokenizer.empty())
    input_error("data.tokenizer: {}: no tokenizer here", tokens.string());
  setup.rows = open_rows(recipe, recipe.data.train, tokenizer.get(), config, "data.train");
  if (recipe.eval.every_steps > 0) {
    const auto rows = open_rows(recipe, recipe.data.valid, tokenizer.get(), config, "data.valid");
    setup.validation = rows->all_rows(recipe.eval.rows, recipe.batch.micro);
  }

  const auto seed = static_cast<uint64_t>(recipe.seed);
  if (weights) {
    setup.llama = std::make_unique<model::Llama>(model::load_llama(*weights, config, setup.dtype, setup.device));
    setup.base_fingerprint = io::model_fingerprint(*weights);
  } else {
    setup.llama = std::make_unique<model::Llama>(config, setup.dtype, setup.device);
    setup.llama->initialize(derive_seed(seed, {kWeights}));
  }
  adapt::make_trainable(*setup.llama, recipe.tune, derive_seed(seed, {kLora}));
  for (const io::Adapter& adapter : adapters) adapt::load_trained(*setup.llama, adapter);

  int64_t parameters = 0, trained = 0;
  for (const model::Parameter* p : setup.llama->parameters()) {
    parameters += p->value.numel();
    if (p->trainable()) trained += p->value.numel();
  }
  setup.memory = plan_memory(config, recipe, setup.dtype, parameters, trained, available);
  return setup;
}

void save_model(const Setup& setup, const fs::path& folder, at::ScalarType whole) {
  const model::Config& config = setup.extension.config;
  if (setup.recipe.tune.mode == "lora") {
    adapt::save_adapter(folder, *setup.llama, setup.recipe.tune, setup.recipe.model.path, whole);
  } else {
    model::save_llama(folder, *setup.llama, whole);
    adapt::copy_companions(model_folder(setup.recipe.model), folder, setup.recipe.context.length);
  }
  io::write_context_record({.version = version_line(),
                            .context_length = setup.recipe.context.length,
                            .max_positions = config.max_positions,
                            .rope = model::rope_to_json(config.rope),
                            .group_size = setup.group(),
                            .base_model = setup.recipe.model.path,
                            .base_fingerprint = setup.base_fingerprint,
                            .recipe = nlohmann::ordered_json::parse(recipe::to_json(setup.recipe))},
                           folder);
}

}  // namespace longlora::train

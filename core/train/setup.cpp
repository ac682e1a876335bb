#include "core/train/setup.h"

#include <cmath>

#include "core/adapt/adapted_config.h"
#include "core/adapt/adapter_model.h"
#include "core/adapt/companions.h"
#include "core/adapt/open_model.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/random.h"
#include "core/base/version.h"
#include "core/io/context_record.h"
#include "core/model/device.h"
#include "core/model/tensors.h"
#include "core/model/weights.h"
#include "core/recipe/print.h"
#include "core/text/chat_template.h"
#include "core/text/tokenizer.h"
#include "core/train/out_of_memory.h"

namespace longlora::train {
namespace {

// Streams of random numbers that a run derives from its seed.
enum Stream : uint64_t { kWeights = 1, kLora = 2 };

fs::path model_folder(const recipe::Model& model) {
  return model.path.empty() ? model.init : model.path;
}

fs::path tokenizer_folder(const recipe::Recipe& recipe) {
  return recipe.data.tokenizer.empty() ? model_folder(recipe.model) : fs::path(recipe.data.tokenizer);
}

// What a run starts from, before anything large is read.
struct Start {
  std::optional<io::TensorStore> weights;  // none with model.init
  std::vector<io::Adapter> adapters;       // model.stack_on, then model.adapter
  model::Extension extension;
  std::shared_ptr<const text::Tokenizer> tokenizer;  // null: none is there
};

Start open_start(const recipe::Recipe& asked) {
  model::Config base = model::read_config(model_folder(asked.model));
  Start start;
  if (!asked.model.path.empty()) {
    start.weights.emplace(asked.model.path);
    for (const std::string& folder : asked.model.stack_on) {
      if (start.adapters.emplace_back(folder).config().dora) {
        input_error(
            "model.stack_on: {}: is a DoRA adapter, beside which 'longlora merge' adds nothing; merge it first and "
            "train on that",
            folder);
      }
    }
    if (!asked.model.adapter.empty()) start.adapters.emplace_back(asked.model.adapter);
    const adapt::AdaptedConfig adapted = adapt::adapted_config(base, *start.weights, start.adapters);
    adapt::check_stacked(start.adapters, adapted);
    base = adapted.config;  // also with the adapters' context
    base.dtype = model::dtype_on_disk(*start.weights);
  }
  start.extension = model::extend(base, asked.context.rope, asked.context.length);
  const fs::path folder = tokenizer_folder(asked);
  start.tokenizer = adapt::open_tokenizer(folder, start.extension.config);
  if (start.tokenizer == nullptr && !asked.data.tokenizer.empty())
    input_error("data.tokenizer: {}: no tokenizer here", folder.string());
  return start;
}

data::SampleOptions sample_options(const recipe::Recipe& recipe, const Start& start, const std::string& name) {
  const fs::path folder = tokenizer_folder(recipe);
  if (start.tokenizer == nullptr) input_error("{}: no tokenizer here, which conversations need", folder.string());
  const recipe::Sft& sft = recipe.sft;
  return {.patterns = name == "data.valid" ? recipe.data.valid : recipe.data.train,
          .format = sft.format == "auto" ? text::chat_format_of(folder, "sft.format") : text::chat_format(sft.format),
          .length = start.extension.length,
          .too_long = sft.too_long == "drop"    ? data::TooLong::drop
                      : sft.too_long == "error" ? data::TooLong::error
                                                : data::TooLong::truncate_material,
          .drop_empty = sft.empty == "drop",
          .name = name};
}

int32_t pad_id(const text::Tokenizer* tokenizer) {
  return tokenizer != nullptr && tokenizer->eos() ? *tokenizer->eos() : 0;
}

std::shared_ptr<const data::Rows> open_conversations(const recipe::Recipe& recipe, const Start& start,
                                                     const std::string& name) {
  const data::SampleOptions options = sample_options(recipe, start, name);
  data::SampleReport report;
  auto source = std::make_shared<data::TokenSource>(data::open_samples(*start.tokenizer, options, report));
  auto rows = std::make_shared<data::Rows>(source, data::Packing::documents, options.length,
                                           pad_id(start.tokenizer.get()), name);
  log::info("{}: {}", name, report.line());
  const data::RowsReport& packed = rows->report();
  log::info("  as {} in {} rows of {} tokens, {:.1f}% padding",
            text::chat_format_names()[static_cast<size_t>(options.format)], packed.rows, packed.length,
            100.0 * static_cast<double>(packed.padding) / static_cast<double>(packed.rows * packed.length));
  if (name == "data.train") {
    log::info("  {} steps of {} rows are {:.2f} epochs", recipe.schedule.steps, recipe.batch.sequences,
              static_cast<double>(recipe.schedule.steps * recipe.batch.sequences) / static_cast<double>(packed.rows));
  }
  return rows;
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
  return std::make_shared<data::Rows>(source, packing, recipe.context.length, pad_id(tokenizer), name);
}

}  // namespace

void check_sequence(const recipe::Recipe& recipe, const model::Config& config) {
  const int64_t ranks = recipe.parallel.sequence;
  if (ranks == 1) return;
  if (config.sliding_window > 0) {
    usage_error(
        "parallel.sequence {}: this model attends within a sliding window of {} tokens, and a row with a window cannot "
        "be shared out; give parallel.sequence=1",
        ranks, config.sliding_window);
  }
  if (recipe.context.length < 2 * ranks) {
    usage_error("parallel.sequence {}: a row of {} tokens (context.length) is too short for it; at least {} are needed",
                ranks, recipe.context.length, 2 * ranks);
  }
}

int64_t group_of(const recipe::Recipe& recipe) {
  if (recipe.attention.pattern == "full") return 0;
  if (recipe.attention.group_size > 0) return recipe.attention.group_size;
  return std::max<int64_t>(2, std::llround(static_cast<double>(recipe.context.length) * recipe.attention.group_ratio));
}

int64_t Setup::group() const {
  return group_of(recipe);
}

bool Setup::grouped(int64_t step) const {
  const double finish = recipe.attention.finish * static_cast<double>(recipe.schedule.steps);
  return group() > 0 && step < recipe.schedule.steps - std::llround(finish);
}

FirstSamples first_samples(const recipe::Recipe& recipe, int64_t count) {
  const Start start = open_start(recipe);
  data::SampleOptions options = sample_options(recipe, start, "data.train");
  options.limit = count;
  FirstSamples first{.tokenizer = start.tokenizer, .samples = {}};
  (void)data::read_samples(*start.tokenizer, options,
                           [&](data::Sample&& sample) { first.samples.push_back(std::move(sample)); });
  return first;
}

namespace {

// A backend that was asked for and cannot do this model's attention is refused before anything is written.
void check_backend(const Setup& setup) {
  const model::Config& config = setup.extension.config;
  const ops::AttentionBackend backend = ops::parse_backend(setup.recipe.attention.backend);
  const int64_t row[] = {0, setup.recipe.context.length}, window = config.sliding_window;
  const at::Tensor q =
      at::empty({0, config.heads, config.head_dim}, at::TensorOptions(setup.compute.dtype).device(setup.device));
  std::vector<ops::GroupPlan> plans = {ops::GroupPlan::full(row, config.heads, config.kv_heads, window)};
  if (setup.group() > 0) plans.push_back(ops::GroupPlan::s2(row, setup.group(), config.heads, config.kv_heads, window));
  for (const ops::GroupPlan& plan : plans) ops::check_backend(backend, q, plan);
}

// What the run is computed in, as rank 0 decides it: how the resumed run computed, else what the recipe asks for.
model::Compute choose_compute(const Setup& setup, int64_t available, int64_t ranks, const std::string& resumed) {
  const recipe::Recipe& recipe = setup.recipe;
  const std::string& asked = recipe.model.dtype;
  if (!resumed.empty()) {
    model::Compute kept = model::compute_of_text(resumed);
    const at::ScalarType stored = model::stored_dtype(setup.extension.config.dtype);
    if (asked == "auto" || (asked == "stored" ? stored : model::parse_dtype(asked)) == kept.dtype) {
      if (!setup.device.is_cpu()) return {kept.dtype, ops::choose_product(kept.dtype, setup.device)};
      const ops::ProductChoice best = ops::choose_product(kept.dtype, setup.device);
      kept.product.flops = kept.product.backend == best.backend
                               ? best.flops
                               : ops::product_rate(setup.device, kept.dtype, kept.product.backend);
      if (4 * kept.product.flops < best.flops) {
        log::warn(
            "the run was begun with other processor instructions (another processor, or --isa) and goes on as it "
            "began, with {}; {} would be {} times as fast here. A new run from its result (model.path, model.adapter) "
            "computes as is fastest",
            ops::in_words(kept.product.backend), ops::in_words(best.backend),
            static_cast<int64_t>(best.flops / kept.product.flops));
      }
      return kept;
    }
  }
  const auto fits = [&](at::ScalarType type) {
    recipe::Recipe changed = recipe;
    changed.model.dtype = model::name_of(type);
    return plan_spread(setup.extension.config, changed, ranks, available).memory.fits;
  };
  const model::Compute chosen = model::choose_compute(asked, setup.extension.config.dtype, setup.device, fits);
  if (chosen.dtype == at::kHalf)
    usage_error("model.dtype: float16 cannot be trained in (it would need loss scaling); give bfloat16 or float32");
  return chosen;
}

// With its weights, what is trained, and cut up as the plan says.
void make_model(Setup& setup, const Start& start, const dist::Launch& launch) {
  const recipe::Recipe& recipe = setup.recipe;
  const model::Config& config = setup.extension.config;
  const auto seed = static_cast<uint64_t>(recipe.seed);
  const size_t below = recipe.model.stack_on.size();
  for (size_t i = 0; i < below; ++i)
    setup.stacked_on.push_back({recipe.model.stack_on[i], start.adapters[i].fingerprint()});
  const bool bare = setup.shard == Shard::model;  // each unit is cut up before the next one is read
  setup.llama = std::make_unique<model::Llama>(config, setup.compute.dtype, setup.device, bare);
  setup.llama->set_product(setup.compute.product.backend);
  const model::Cut cut =
      setup.shard == Shard::none ? model::Cut{} : model::Cut{.rank = launch.rank, .ranks = launch.size};
  setup.llama->set_cut(cut);
  if (bare) setup.weights = std::make_unique<WeightShards>(*setup.llama, cut, recipe.tune.mode == "full");
  const auto units = setup.llama->units();
  const auto ready = [&](size_t unit) {
    for (model::Parameter* p : units[unit]) {
      for (size_t i = 0; i < below; ++i) adapt::fold_in(*p, start.adapters[i]);
      if (adapt::trains(recipe.tune, p->kind)) p->make_trainable();
    }
    if (bare) setup.weights->take(unit);
  };
  if (start.weights) {
    model::load_weights(*setup.llama, *start.weights, ready);
    setup.base_fingerprint = io::model_fingerprint(*start.weights);
  } else {
    setup.llama->initialize(derive_seed(seed, {kWeights}), ready);
  }
  adapt::make_trainable(*setup.llama, recipe.tune, derive_seed(seed, {kLora}));
  if (start.adapters.size() > below) adapt::load_trained(*setup.llama, start.adapters.back());
}

}  // namespace

Setup prepare_run(const recipe::Recipe& asked, recipe::Use use) {
  dist::Job alone;
  return prepare_run(asked, use, alone);
}

Setup prepare_run(const recipe::Recipe& asked, recipe::Use use, dist::Job& job, const Manner& kept) {
  const Start start = open_start(asked);
  Setup setup{.recipe = asked,
              .extension = start.extension,
              .compute = {},
              .result_dtype = at::kFloat,
              .device = model::open_device(asked.model.device, job.launch().local_rank),
              .rows = nullptr,
              .validation = {},
              .base_fingerprint = {},
              .stacked_on = {},
              .shard = Shard::none,
              .weights = nullptr,
              .llama = nullptr,
              .memory = {}};
  job.claim_gpu(setup.device);
  setup.recipe.context.length = setup.extension.length;
  const recipe::Recipe& recipe = setup.recipe;
  const model::Config& config = setup.extension.config;

  check_sequence(recipe, config);
  const auto left = [&](const std::string& what) {  // bytes of this rank; all plan with the same
    const double share = setup.device.is_cpu() ? 1.0 / job.launch().local_size : kUsable;
    const auto mine = static_cast<int64_t>(share * static_cast<double>(model::free_memory(setup.device)));
    return std::stoll(job.of_first(what, std::to_string(mine)));
  };
  const int64_t available = left("available memory");
  setup.compute = model::compute_of_text(job.of_first(
      "compute", job.first() ? model::to_text(choose_compute(setup, available, job.launch().size, kept.compute)) : ""));
  const bool named = asked.model.dtype != "auto" && asked.model.dtype != "stored";
  const std::string otherwise = model::name_of(named ? setup.compute.dtype : model::stored_dtype(config.dtype));
  setup.result_dtype = model::parse_dtype(
      job.of_first("dtype of the result", kept.result_dtype.empty() ? otherwise : kept.result_dtype));
  setup.recipe.model.dtype = model::name_of(setup.compute.dtype);
  check_backend(setup);
  const auto rows_of = [&](const std::vector<std::string>& patterns, const std::string& name) {
    if (use == recipe::Use::sft) return open_conversations(recipe, start, name);
    return open_rows(recipe, patterns, start.tokenizer.get(), config, name);
  };
  job.first_then_others("data", [&] {
    setup.rows = rows_of(recipe.data.train, "data.train");
    if (recipe.eval.every_steps == 0) return;
    const auto rows = rows_of(recipe.data.valid, "data.valid");
    setup.validation = rows->all_rows(recipe.eval.rows, recipe.batch.micro);
  });
  const SpreadPlan plan = plan_spread(config, recipe, job.launch().size, left("memory beside the data"));
  setup.shard = job.launch().alone() ? Shard::none : plan.spread.shard;
  setup.memory = plan.memory;
  job.activity().enter("reading the model");

  naming_out_of_memory(
      setup.memory, recipe, job.launch().size, [&] { return job.activity().describe(); },
      [&] { make_model(setup, start, job.launch()); });
  return setup;
}

void save_model(const Setup& setup, const fs::path& folder, at::ScalarType type, const model::Whole& whole) {
  const model::Config& config = setup.extension.config;
  if (setup.recipe.tune.mode == "lora") {
    adapt::save_adapter(folder, *setup.llama, setup.recipe.tune, setup.recipe.model.path, type, whole);
  } else {
    model::save_llama(folder, *setup.llama, type, whole);
    if (!folder.empty()) adapt::copy_companions(model_folder(setup.recipe.model), folder, setup.recipe.context.length);
  }
  if (folder.empty()) return;
  io::write_context_record({.version = version_line(),
                            .context_length = setup.recipe.context.length,
                            .max_positions = config.max_positions,
                            .rope = model::rope_to_json(config.rope),
                            .group_size = setup.group(),
                            .base_model = setup.recipe.model.path,
                            .base_fingerprint = setup.base_fingerprint,
                            .recipe = nlohmann::ordered_json::parse(recipe::to_json(setup.recipe)),
                            .stacked_on = setup.stacked_on},
                           folder);
}

}  // namespace longlora::train

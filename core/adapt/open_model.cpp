#include "core/adapt/open_model.h"

#include <charconv>

#include "core/adapt/adapted_config.h"
#include "core/adapt/adapter_model.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/io/json_file.h"
#include "core/model/device.h"
#include "core/model/extend.h"
#include "core/model/tensors.h"
#include "core/model/weights.h"

namespace longlora::adapt {
namespace {

// "linear:4" -> the model's config under that law and factor.
model::Config with_rope(const model::Config& config, const std::string& text) {
  const size_t colon = text.find(':');
  double factor = 0;
  if (colon != std::string::npos) {
    const auto [end, fault] = std::from_chars(text.data() + colon + 1, text.data() + text.size(), factor);
    if (fault != std::errc() || end != text.data() + text.size()) factor = 0;
  }
  constexpr double kMost = 1e6;
  if (!(factor >= 1 && factor <= kMost))
    usage_error("--rope {}: give TYPE:FACTOR with a factor of at least 1, such as linear:4", text);
  recipe::Rope rope;
  rope.type = text.substr(0, colon);
  if (rope.type != "scaling-law") rope.factor = factor;  // that one goes by the length alone
  // Factors count from the length of pre-training, also where the model is extended already.
  const auto length = static_cast<int64_t>(static_cast<double>(config.rope.original_length) * factor);
  return model::extend(config, rope, length).config;
}

// Whether the weights in `type` leave half of the device's free memory to the work with them.
bool holds(const at::Device& device, const model::Config& config, at::ScalarType type) {
  int64_t elements = 0;
  model::for_each_tensor(config, [&](const std::string&, const std::vector<int64_t>& shape) {
    elements += shape.size() == 2 ? shape[0] * shape[1] : shape[0];
  });
  return 2 * elements * static_cast<int64_t>(c10::elementSize(type)) <= model::free_memory(device);
}

// Where an answer may end: the model's end tokens, the tokenizer's, and those of generation_config.json, where chat models
// name the one that ends a turn.
std::vector<int32_t> stop_tokens(const fs::path& folder, const model::Config& config,
                                 const text::Tokenizer* tokenizer) {
  std::vector<int32_t> stop = config.eos;
  if (tokenizer != nullptr && tokenizer->eos()) stop.push_back(*tokenizer->eos());
  const fs::path file = folder / "generation_config.json";
  if (!fs::exists(file)) return stop;
  const nlohmann::ordered_json root = io::read_json(file);
  const auto found = root.is_object() ? root.find("eos_token_id") : root.end();
  if (found == root.end() || found->is_null()) return stop;
  for (const auto& id : found->is_array() ? *found : nlohmann::ordered_json::array({*found})) {
    if (!id.is_number_integer()) input_error("{}: eos_token_id is no token id", file.string());
    stop.push_back(id.get<int32_t>());
  }
  return stop;
}

}  // namespace

std::shared_ptr<const text::Tokenizer> open_tokenizer(const fs::path& folder, const model::Config& config) {
  if (!text::Tokenizer::is_in(folder)) return nullptr;
  auto tokenizer = text::Tokenizer::load(folder);
  if (tokenizer->vocab_size() > config.vocab_size) {
    input_error("{}: the tokenizer has {} tokens, the model has rows for {}: they do not belong together",
                folder.string(), tokenizer->vocab_size(), config.vocab_size);
  }
  return tokenizer;
}

std::vector<fs::path> all_adapters(const OpenOptions& options) {
  std::vector<fs::path> all;
  if (!options.adapter.empty()) all.push_back(options.adapter);
  all.insert(all.end(), options.stacked.begin(), options.stacked.end());
  return all;
}

OpenedModel open_model(const OpenOptions& options) {
  const io::TensorStore weights(options.model);
  std::vector<io::Adapter> adapters;
  for (const fs::path& folder : all_adapters(options)) adapters.emplace_back(folder);
  AdaptedConfig adapted = adapted_config(model::read_config(options.model), weights, adapters,
                                         {.other_bases = options.other_bases, .brings_context = {}});
  check_stacked(adapters, adapted);
  if (!adapters.empty() && adapted.whence.empty() && options.rope.empty()) {
    log::info("{}: no longlora.json, so the model's own RoPE settings are used (--rope gives others)",
              adapters.back().folder().string());
  }
  model::Config config = options.rope.empty() ? adapted.config : with_rope(adapted.config, options.rope);
  config.dtype = model::dtype_on_disk(weights);
  const auto tokenizer = open_tokenizer(options.model, config);
  const at::Device device = model::open_device(options.device);
  const auto fits = [&](at::ScalarType type) { return holds(device, config, type); };
  OpenedModel opened{
      .compute = options.compute ? *options.compute : model::choose_compute(options.dtype, config.dtype, device, fits),
      .llama = nullptr,
      .tokenizer = nullptr,
      .stop = {}};
  log::info("{}; computing in {}", model::describe_device(device), model::describe(opened.compute));
  opened.llama = std::make_unique<model::Llama>(model::load_llama(weights, config, opened.compute.dtype, device));
  opened.llama->set_product(opened.compute.product.backend);
  for (size_t i = 0; i < adapters.size(); ++i)
    i + 1 < adapters.size() ? fold_in(*opened.llama, adapters[i]) : attach(*opened.llama, adapters[i]);
  if (tokenizer) opened.tokenizer = tokenizer;
  opened.stop = stop_tokens(options.model, config, tokenizer.get());
  return opened;
}

void check_covered(const model::Config& config, int64_t length, bool beyond) {
  if (length <= config.covered_length() || beyond) return;
  const int64_t original = config.rope.original_length;
  usage_error(
      "{} tokens are more than the {} that the model's RoPE settings cover; give the adapter that extends it "
      "(--adapter), other settings (--rope {}:{}), or --beyond to go on regardless",
      length, config.covered_length(),
      config.rope.type == model::RopeType::none ? "linear" : model::name_of(config.rope.type),
      (length + original - 1) / original);
}

}  // namespace longlora::adapt

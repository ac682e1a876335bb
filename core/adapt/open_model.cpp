#include "core/adapt/open_model.h"

#include <charconv>

#include "core/adapt/adapted_config.h"
#include "core/adapt/adapter_model.h"
#include "core/base/error.h"
#include "core/base/log.h"
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
  if (factor < 1) usage_error("--rope {}: give TYPE:FACTOR with a factor of at least 1, such as linear:4", text);
  recipe::Rope rope;
  rope.type = text.substr(0, colon);
  if (rope.type != "scaling-law") rope.factor = factor;  // that one goes by the length alone
  const auto length = static_cast<int64_t>(static_cast<double>(config.covered_length()) * factor);
  return model::extend(config, rope, length).config;
}

}  // namespace

OpenedModel open_model(const OpenOptions& options) {
  const io::TensorStore weights(options.model);
  std::vector<io::Adapter> adapters;
  if (!options.adapter.empty()) adapters.emplace_back(options.adapter);
  AdaptedConfig adapted = adapted_config(model::read_config(options.model), weights, adapters);
  if (!adapters.empty() && adapted.whence.empty() && options.rope.empty()) {
    log::info("{}: no longlora.json, so the model's own RoPE settings are used (--rope gives others)",
              options.adapter.string());
  }
  const model::Config config = options.rope.empty() ? adapted.config : with_rope(adapted.config, options.rope);
  const at::ScalarType dtype = model::parse_dtype(options.dtype == "auto" ? config.dtype : options.dtype);
  OpenedModel opened;
  opened.llama =
      std::make_unique<model::Llama>(model::load_llama(weights, config, dtype, model::open_device(options.device)));
  for (const io::Adapter& adapter : adapters) attach(*opened.llama, adapter);
  if (text::Tokenizer::is_in(options.model)) opened.tokenizer = text::Tokenizer::load(options.model);
  return opened;
}

void check_covered(const model::Config& config, int64_t length, bool beyond) {
  if (length <= config.covered_length() || beyond) return;
  usage_error(
      "{} tokens are more than the {} that the model's RoPE settings cover; give the adapter that extends it "
      "(--adapter), other settings (--rope linear:{}), or --beyond to go on regardless",
      length, config.covered_length(), (length + config.covered_length() - 1) / config.covered_length());
}

}  // namespace longlora::adapt

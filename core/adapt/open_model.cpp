#include "core/adapt/open_model.h"

#include <charconv>

#include "core/adapt/adapter_model.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/io/context_record.h"
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
  rope.factor = factor;
  const auto length = static_cast<int64_t>(static_cast<double>(config.covered_length()) * factor);
  return model::extend(config, rope, length).config;
}

model::Config config_for(const OpenOptions& options, const io::Adapter* adapter) {
  model::Config config = model::read_config(options.model);
  if (adapter != nullptr) {
    const auto record = io::read_context_record(options.adapter);
    if (record) {
      config.rope =
          model::rope_from_json(record->rope, config.head_dim, (options.adapter / io::kContextRecordFile).string());
      config.max_positions = record->max_positions;
      if (!record->base_fingerprint.empty() &&
          record->base_fingerprint != io::model_fingerprint(io::TensorStore(options.model))) {
        input_error("{}: was trained on another model than {} (on {}); merge and evaluate it on its own base",
                    options.adapter.string(), options.model.string(), record->base_model);
      }
    } else if (options.rope.empty()) {
      log::info("{}: no longlora.json, so the model's own RoPE settings are used (--rope gives others)",
                options.adapter.string());
    }
    config.tie_embeddings = config.tie_embeddings && adapter->keeps_tied();
  }
  return options.rope.empty() ? config : with_rope(config, options.rope);
}

}  // namespace

OpenedModel open_model(const OpenOptions& options) {
  const auto adapter = options.adapter.empty() ? nullptr : std::make_unique<io::Adapter>(options.adapter);
  const model::Config config = config_for(options, adapter.get());
  if (adapter) adapter->check_against(io::TensorStore(options.model), model::read_config(options.model).tie_embeddings);
  const at::ScalarType dtype = model::parse_dtype(options.dtype == "auto" ? config.dtype : options.dtype);
  OpenedModel opened;
  opened.llama = std::make_unique<model::Llama>(
      model::load_llama(options.model, config, dtype, model::open_device(options.device)));
  if (adapter) attach(*opened.llama, *adapter);
  if (std::filesystem::exists(options.model / "tokenizer.json") ||
      std::filesystem::exists(options.model / "tokenizer.model")) {
    opened.tokenizer = text::Tokenizer::load(options.model);
  }
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

#include "core/adapt/adapted_config.h"

#include "core/base/error.h"
#include "core/io/context_record.h"
#include "core/model/weights.h"

namespace longlora::adapt {

AdaptedConfig adapted_config(const model::Config& base, const io::TensorStore& weights,
                             std::span<const io::Adapter> adapters, const AdaptOptions& options) {
  model::check_weights(weights, base);
  AdaptedConfig adapted{base, "", {}, {}};
  model::Config& config = adapted.config;
  for (size_t i = 0; i < adapters.size(); ++i) {
    const io::Adapter& adapter = adapters[i];
    adapter.check_against(weights, base.tie_embeddings);
    if (const int64_t rows = adapter.vocabulary(weights); rows != base.vocab_size) {
      if (config.vocab_size != base.vocab_size && config.vocab_size != rows) {
        input_error("{}: has a vocabulary of {}, another of the adapters {}", adapter.folder().string(), rows,
                    config.vocab_size);
      }
      config.vocab_size = rows;
    }
    config.tie_embeddings = config.tie_embeddings && adapter.keeps_tied();
    const auto record = io::read_context_record(adapter.folder());
    adapted.of_this_base.push_back(record && record->base_fingerprint == io::model_fingerprint(weights));
    if (!record) continue;
    const std::string where = (adapter.folder() / io::kContextRecordFile).string();
    if (!record->base_fingerprint.empty() && record->base_fingerprint != io::model_fingerprint(weights)) {
      if (!options.other_bases) {
        input_error(
            "{}: the adapter was trained on another base than {}: on '{}'; 'longlora merge' can put it on a model "
            "of the same architecture",
            where, weights.path().string(), record->base_model);
      }
      adapted.strangers.push_back(
          fmt::format("{} was trained on another base: '{}'", adapter.folder().string(), record->base_model));
    }
    if (!options.brings_context.empty() && !options.brings_context[i]) continue;
    const model::RopeSettings rope = model::rope_from_json(record->rope, config.head_dim, where);
    if (!adapted.whence.empty() && (rope != config.rope || record->max_positions != config.max_positions)) {
      input_error("{}: its context settings are not those of {}", where, adapted.whence);
    }
    config.rope = rope;
    config.max_positions = record->max_positions;
    adapted.whence = where;
  }
  return adapted;
}

}  // namespace longlora::adapt

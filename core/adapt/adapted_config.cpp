#include "core/adapt/adapted_config.h"

#include "core/base/error.h"
#include "core/io/context_record.h"

namespace longlora::adapt {

AdaptedConfig adapted_config(const model::Config& base, const io::TensorStore& weights,
                             std::span<const io::Adapter> adapters) {
  AdaptedConfig adapted{base, ""};
  model::Config& config = adapted.config;
  for (const io::Adapter& adapter : adapters) {
    adapter.check_against(weights, base.tie_embeddings);
    const int64_t rows = adapter.vocabulary(weights);
    if (config.vocab_size != base.vocab_size && config.vocab_size != rows) {
      input_error("{}: has a vocabulary of {}, another of the adapters {}", adapter.folder().string(), rows,
                  config.vocab_size);
    }
    config.vocab_size = rows;
    config.tie_embeddings = config.tie_embeddings && adapter.keeps_tied();
    const auto record = io::read_context_record(adapter.folder());
    if (!record) continue;
    const std::string where = (adapter.folder() / io::kContextRecordFile).string();
    if (!record->base_fingerprint.empty() && record->base_fingerprint != io::model_fingerprint(weights)) {
      input_error("{}: the adapter was trained on another base than {}: on '{}'", where, weights.path().string(),
                  record->base_model);
    }
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

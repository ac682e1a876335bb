#include "core/adapt/adapted_config.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/model/weights.h"

namespace longlora::adapt {
namespace {

// Where the adapters are, among those before adapter i, that were on the base when it was trained; empty when they are not
// there, in their order.
std::vector<size_t> find_below(std::span<const io::Adapter> before, const io::ContextRecord& record) {
  std::vector<size_t> on;
  size_t next = 0;
  for (const io::StackedOn& wanted : record.stacked_on) {
    while (next < before.size() && before[next].fingerprint() != wanted.fingerprint) ++next;
    if (next == before.size()) return {};
    on.push_back(next++);
  }
  return on;
}

}  // namespace

AdaptedConfig adapted_config(const model::Config& base, const io::TensorStore& weights,
                             std::span<const io::Adapter> adapters, const AdaptOptions& options) {
  model::check_weights(weights, base);
  AdaptedConfig adapted{base, "", "", {}, {}, {}, {}};
  if (!adapters.empty()) adapted.fingerprint = io::model_fingerprint(weights);
  size_t settings_of = 0;  // the adapter whose context settings are taken
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
    const auto& record = adapted.records.emplace_back(io::read_context_record(adapter.folder()));
    adapted.on.push_back(record ? find_below(adapters.first(i), *record) : std::vector<size_t>());
    const bool whole = record && adapted.on[i].size() == record->stacked_on.size();
    adapted.of_this_base.push_back(whole && record->base_fingerprint == adapted.fingerprint);
    if (!record) continue;
    const std::string where = (adapter.folder() / io::kContextRecordFile).string();
    const bool counts = options.brings_context.empty() || options.brings_context[i];
    if (!whole && counts) {
      std::string below;
      for (const io::StackedOn& one : record->stacked_on) below += fmt::format(" '{}'", one.path);
      input_error(
          "{}: the adapter was trained on its base with{} on it; give {} before it (--adapter A --adapter B; in a "
          "recipe model.stack_on)",
          where, below, record->stacked_on.size() == 1 ? "that one" : "these, in this order,");
    }
    if (!record->base_fingerprint.empty() && record->base_fingerprint != adapted.fingerprint) {
      if (!options.other_bases) {
        input_error(
            "{}: the adapter was trained on another base than {}: on '{}'; 'longlora merge' can put it on a model "
            "of the same architecture",
            where, weights.path().string(), record->base_model);
      }
      adapted.strangers.push_back(
          fmt::format("{} was trained on another base: '{}'", adapter.folder().string(), record->base_model));
    }
    if (!counts) continue;
    const model::RopeSettings rope = model::rope_from_json(record->rope, config.head_dim, where);
    const bool above = std::ranges::find(adapted.on[i], settings_of) != adapted.on[i].end();
    if (!adapted.whence.empty() && !above && (rope != config.rope || record->max_positions != config.max_positions)) {
      input_error("{}: its context settings are not those of {}", where, adapted.whence);
    }
    config.rope = rope;
    config.max_positions = record->max_positions;
    adapted.whence = where;
    settings_of = i;
  }
  return adapted;
}

void check_stacked(std::span<const io::Adapter> adapters, const AdaptedConfig& adapted) {
  for (size_t i = 1; i < adapters.size(); ++i) {
    if (adapted.on[i].size() == i) continue;
    usage_error(
        "{}: was not trained with {} on its base (its longlora.json does not say so); 'longlora merge' adds up "
        "adapters that "
        "are independent of each other",
        adapters[i].folder().string(), adapters[i - 1].folder().string());
  }
}

}  // namespace longlora::adapt

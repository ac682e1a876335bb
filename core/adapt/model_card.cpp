#include "core/adapt/model_card.h"

#include "core/base/file.h"
#include "core/base/version.h"

namespace longlora::adapt {
namespace {

// A folder by its own name: the card goes elsewhere, where paths mean nothing.
std::string name_of_folder(const fs::path& folder) {
  const fs::path whole = fs::weakly_canonical(folder);
  return (whole.has_filename() ? whole : whole.parent_path()).filename().string();
}

}  // namespace

void write_model_card(const MergeOptions& options, const AdaptedConfig& adapted, std::span<const io::Adapter> adapters,
                      const fs::path& folder) {
  std::string text = fmt::format(
      "---\nbase_model: {}\ntags:\n- long-context\n- longlora\n---\n\n# {}\n\n"
      "`{}` (fingerprint {}) with these adapters, merged and rounded once by {}.\n\n"
      "| adapter | weight | rank | trained at | base when trained |\n|---|---|---|---|---|\n",
      name_of_folder(options.model), name_of_folder(options.out), name_of_folder(options.model), adapted.fingerprint,
      version_line());
  for (size_t i = 0; i < adapters.size(); ++i) {
    const auto& record = adapted.records[i];
    text += fmt::format("| {} | {} | {} | {} | {} |\n", name_of_folder(adapters[i].folder()),
                        options.adapters[i].weight, adapters[i].config().rank,
                        record ? fmt::format("{} tokens", record->context_length) : "not recorded",
                        record ? record->base_fingerprint : "not recorded");
  }
  const model::Config& config = adapted.config;
  text +=
      fmt::format("\nContext: {} tokens, RoPE {}, theta {:.10g}. Embedding and head: {}.\n", config.covered_length(),
                  model::name_of(config.rope.type), config.rope.theta, config.tie_embeddings ? "tied" : "separate");
  write_file_atomically(folder / "README.md", text);
}

}  // namespace longlora::adapt

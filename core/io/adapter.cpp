#include "core/io/adapter.h"

#include <algorithm>
#include <optional>
#include <set>

#include "core/base/error.h"
#include "core/base/hash.h"
#include "core/base/nearest.h"
#include "core/io/context_record.h"
#include "core/io/names.h"

namespace longlora::io {
namespace {

constexpr std::string_view kPrefix = "base_model.model.";

// The part of `name` before `suffix`, if it ends so.
std::optional<std::string> before(const std::string& name, std::string_view suffix) {
  if (!name.ends_with(suffix)) return std::nullopt;
  return name.substr(0, name.size() - suffix.size());
}

// "a, b, c and 5 more"
std::string some(const std::vector<std::string>& names) {
  constexpr size_t kShown = 3;
  std::string text = fmt::format("{}", fmt::join(names.begin(), names.begin() + std::min(names.size(), kShown), ", "));
  if (names.size() > kShown) text += fmt::format(" and {} more", names.size() - kShown);
  return text;
}

struct Pair {
  std::optional<TensorView> a, b, magnitude;
  bool embedding = false;
};

}  // namespace

std::string adapter_name(const std::string& base_name) {
  return std::string(kPrefix) + base_name;
}
std::string lora_a_name(const std::string& module) {
  return adapter_name(module) + ".lora_A.weight";
}
std::string lora_b_name(const std::string& module) {
  return adapter_name(module) + ".lora_B.weight";
}

std::vector<std::string> saved_modules(const std::vector<std::string>& also) {
  std::vector<std::string> modules;
  for (const std::string& what : also) {
    if (what == "embed") modules.push_back("embed_tokens");
    if (what == "norm") modules.insert(modules.end(), {"input_layernorm", "post_attention_layernorm", "norm"});
    if (what == "lm_head") modules.push_back("lm_head");
  }
  return modules;
}

namespace {

fs::path adapter_folder(const fs::path& folder) {
  if (!fs::is_directory(folder)) input_error("{}: no such adapter folder", folder.string());
  if (fs::exists(folder / "adapter_config.json")) return folder;
  const bool model = fs::exists(folder / "config.json");
  input_error("{}: {}", folder.string(),
              model ? "is the folder of a whole model, not of an adapter (it has no adapter_config.json)"
                    : "holds no adapter (no adapter_config.json)");
}

}  // namespace

Adapter::Adapter(const fs::path& folder, Vocabulary vocabulary)
    : folder_(adapter_folder(folder)), vocabulary_(vocabulary), config_(read_adapter_config(folder)) {
  const fs::path pickle = folder / "adapter_model.bin", whole = folder / "trainable_params.bin";
  const bool pickled = fs::exists(pickle) && !fs::exists(folder / "adapter_model.safetensors") &&
                       !fs::exists(folder / "adapter_model.safetensors.index.json");
  if (!pickled) {
    store_.emplace(folder, "adapter_model");
    sort_in(store_->tensors());
    if (vocabulary == Vocabulary::skip) leave_out_vocabulary();
    return;
  }
  std::map<std::string, TensorView> tensors = pickles_.emplace_back(pickle).tensors();
  if (fs::exists(whole)) {
    for (const auto& [name, view] : pickles_.emplace_back(whole).tensors()) {
      tensors.insert_or_assign(name.starts_with(kPrefix) ? name : adapter_name(name), view);
    }
  }
  sort_in(tensors);
  if (vocabulary == Vocabulary::skip) leave_out_vocabulary();
}

void Adapter::leave_out_vocabulary() {
  for (const std::string module : {"model.embed_tokens", "lm_head"}) {
    low_rank_.erase(module);
    replaced_.erase(module + ".weight");
    const auto names_it = [&](const std::string& name) { return module.ends_with(name); };
    std::erase_if(config_.targets, names_it);
    std::erase_if(config_.modules_to_save, names_it);
  }
}

void Adapter::sort_in(const std::map<std::string, TensorView>& tensors) {
  const std::string where = folder_.string();
  std::map<std::string, Pair> pairs;
  std::set<std::string> whole;  // modules trained whole
  for (const auto& [name, view] : tensors) {
    if (!name.starts_with(kPrefix)) {
      input_error("{}: tensor '{}' does not begin with '{}' as PEFT's do", where, name, kPrefix);
    }
    const std::string own = name.substr(kPrefix.size());
    if (view.dtype != DType::f32 && view.dtype != DType::f16 && view.dtype != DType::bf16 && view.dtype != DType::f64) {
      input_error("{}: tensor '{}' is {}; floating-point values are needed", where, name, name_of(view.dtype));
    }
    if (const auto module = before(own, ".lora_A.weight")) {
      pairs[*module].a = view;
    } else if (const auto module_b = before(own, ".lora_B.weight")) {
      pairs[*module_b].b = view;
    } else if (const auto embedding = before(own, ".lora_embedding_A")) {
      pairs[*embedding].a = view;
      pairs[*embedding].embedding = true;
    } else if (const auto embedding_b = before(own, ".lora_embedding_B")) {
      pairs[*embedding_b].b = view;
      pairs[*embedding_b].embedding = true;
    } else if (const auto scaled = before(own, ".lora_magnitude_vector")) {
      pairs[*scaled].magnitude = view;
    } else if (own.ends_with(".original_module.weight") ||
               (own.ends_with(".modules_to_save.weight") &&
                tensors.contains(name.substr(0, name.size() - std::string_view("modules_to_save.weight").size()) +
                                 "weight"))) {
      continue;  // the base's own, and a second copy, which PEFT saves where the vocabulary was resized
    } else if (const auto base = before(own, ".base_layer.weight")) {
      replaced_.emplace(*base + ".weight", view);  // PEFT saves a targeted embedding's own weight beside its LoRA
    } else if (own.find(".lora_") != own.npos || own.find("token_adapter") != own.npos) {
      input_error("{}: tensor '{}' is of a kind that is not supported", where, name);
    } else {
      replaced_.emplace(own, view);
      whole.insert(before(own, ".weight").value_or(own));
    }
  }
  for (const auto& [module, pair] : pairs) {
    if (whole.contains(module)) input_error("{}: module '{}' has both LoRA and a weight of its own", where, module);
    if (!pair.a || !pair.b) {
      input_error("{}: module '{}' has only its {} matrix", where, module, pair.a ? "A" : "B");
    }
    const int64_t rank = config_.rank_of(module);
    if (pair.a->shape.size() != 2 || pair.b->shape.size() != 2 || pair.a->shape[0] != rank ||
        pair.b->shape[1] != rank) {
      input_error("{}: module '{}': A {} and B {} are not of rank {}, which adapter_config.json gives", where, module,
                  shape_text(pair.a->shape), shape_text(pair.b->shape), rank);
    }
    if (pair.magnitude.has_value() != config_.dora || (pair.embedding && pair.magnitude)) {
      input_error("{}: module '{}' {}", where, module,
                  pair.embedding ? "is an embedding with DoRA, which is not supported"
                  : config_.dora ? "has no lora_magnitude_vector, though use_dora is true"
                                 : "has a lora_magnitude_vector, though use_dora is false");
    }
    if (pair.magnitude && pair.magnitude->shape != std::vector{pair.b->shape[0]}) {
      input_error("{}: module '{}': its lora_magnitude_vector is {}, [{}] is needed", where, module,
                  shape_text(pair.magnitude->shape), pair.b->shape[0]);
    }
    low_rank_.emplace(module,
                      LowRank{*pair.a, *pair.b, rank, config_.scale_of(module), pair.embedding, pair.magnitude});
  }
  std::string text = tensors_fingerprint(tensors);
  for (const auto& [module, lora] : low_rank_) text += fmt::format(":{:.17g}", lora.scale);
  fingerprint_ = longlora::fingerprint(text);
}

bool Adapter::keeps_tied() const {
  const auto embed = replaced_.find(kEmbed), head = replaced_.find(kHead);
  if (embed == replaced_.end() || head == replaced_.end()) return embed == head;
  return embed->second.dtype == head->second.dtype && std::ranges::equal(embed->second.bytes, head->second.bytes);
}

int64_t Adapter::vocabulary(const TensorStore& base) const {
  const auto rows = [](const auto& tensors, const char* name) {
    const auto found = tensors.find(name);
    return found == tensors.end() || found->second.shape.empty() ? 0 : found->second.shape[0];
  };
  if (vocabulary_ == Vocabulary::overlap) return rows(base.tensors(), kEmbed);
  const int64_t own = rows(base.tensors(), kEmbed), embed = rows(replaced_, kEmbed), head = rows(replaced_, kHead);
  if (embed == 0 && (head == 0 || head == own)) return own;
  if (embed == head) return embed;
  if (head == 0 && embed >= own) return own;
  input_error("{}: embed_tokens has {} rows and lm_head {}, in {} there are {}: the vocabularies do not fit together",
              folder().string(), embed == 0 ? own : embed, head == 0 ? own : head, base.path().string(), own);
}

void Adapter::check_against(const TensorStore& base, bool tied_embeddings) const {
  const std::string where = folder().string(), of = base.path().string();
  for (const auto& [module, lora] : low_rank_) {
    const std::string name = module + ".weight";
    if (tied_embeddings && (module == "lm_head" || module.ends_with("embed_tokens"))) {
      input_error(
          "{}: has LoRA for '{}', but in {} embeddings and lm_head are one tied matrix, which it would change "
          "in both places",
          where, module, of);
    }
    if (!base.contains(name)) {
      const std::vector<std::string> known = base.names();
      input_error("{}: has LoRA for '{}', which {} does not have{}", where, module, of, did_you_mean(name, known));
    }
    const std::vector<int64_t> own = {lora.rows(), lora.columns()}, &shape = base.at(name).shape;
    const bool vocabulary = (name == kEmbed || name == kHead) && shape.size() == 2 && shape[1] == own[1];
    if (shape != own && !(vocabulary && vocabulary_ == Vocabulary::overlap)) {
      input_error("{}: LoRA for '{}' is for a matrix of {}, in {} it is {}{}", where, module, shape_text(own), of,
                  shape_text(shape),
                  vocabulary ? " (merge --embed overlap changes the rows that both have, skip leaves it out)" : "");
    }
  }
  for (const auto& [name, view] : replaced_) {
    // A tied head has no tensor of its own in the base; it has the embedding's shape.
    const bool tied_head = tied_embeddings && name == kHead && !base.contains(name);
    const std::string of_base = tied_head ? kEmbed : name;
    if (!base.contains(of_base)) {
      const std::vector<std::string> known = base.names();
      input_error("{}: has '{}', which {} does not have{}", where, name, of, did_you_mean(name, known));
    }
    const std::vector<int64_t>& shape = base.at(of_base).shape;
    const bool by_vocabulary = (name == kEmbed || name == kHead) && view.shape.size() == 2 && shape.size() == 2 &&
                               view.shape[1] == shape[1] &&
                               (vocabulary_ == Vocabulary::overlap || view.shape[0] >= vocabulary(base));
    if (shape != view.shape && !by_vocabulary) {
      input_error("{}: '{}' is {}, in {} it is {}", where, name, shape_text(view.shape), of, shape_text(shape));
    }
  }
  std::vector<std::string> missing;
  std::set<std::string> found;
  for (const auto& [name, view] : base.tensors()) {
    const auto module = before(name, ".weight");
    if (!module) continue;
    for (const std::string& target : config_.targets) {
      const bool matches = *module == target || module->ends_with("." + target);
      if (matches && !config_.some_layers_only && !low_rank_.contains(*module)) missing.push_back(*module);
    }
    for (const std::string& saved : config_.modules_to_save) {
      if (!module->ends_with(saved)) continue;
      found.insert(saved);
      const bool tied_head = tied_embeddings && *module == "lm_head";
      if (!tied_head && !replaced_.contains(name)) missing.push_back(*module);
    }
  }
  if (!missing.empty()) {
    input_error("{}: adapter_config.json promises {}, but there are no tensors for it", where, some(missing));
  }
  for (const std::string& saved : config_.modules_to_save) {
    if (!found.contains(saved) && !(tied_embeddings && saved == "lm_head")) {
      input_error("{}: modules_to_save names '{}', which matches nothing in {}", where, saved, of);
    }
  }
}

}  // namespace longlora::io

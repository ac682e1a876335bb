#include "core/adapt/extract_plan.h"

#include <fnmatch.h>

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "core/base/error.h"
#include "core/base/nearest.h"
#include "core/io/names.h"
#include "core/model/tensors.h"

namespace longlora::adapt {
namespace {

using Tensors = std::map<std::string, io::TensorView>;

using io::kEmbed, io::kHead, io::kLinear, io::last_part, io::module_of;

bool is_linear(const std::string& tensor) {
  return tensor.ends_with(".weight") && kLinear.contains(last_part(module_of(tensor)));
}
bool is_norm(const std::string& tensor) {
  return tensor.ends_with("norm.weight");
}

// model.layers.2 before model.layers.10
std::string by_number(const std::string& name) {
  std::string key, digits;
  for (const char c : name + '.') {
    if (c >= '0' && c <= '9') {
      digits += c;
      continue;
    }
    key += std::string(digits.empty() || digits.size() > 8 ? 0 : 8 - digits.size(), '0') + digits + c;
    digits.clear();
  }
  return key;
}

void check_settings(const model::Config& base, const model::Config& tuned, const ExtractOptions& options) {
  const auto same = [&](const char* key, const auto& a, const auto& b) {
    if (a == b) return;
    input_error(
        "{}: '{}' is {}, in {} it is {}: the two are not of one architecture, an adapter cannot make up for that",
        (options.tuned / "config.json").string(), key, b, options.base.string(), a);
  };
  same("architectures", base.architecture, tuned.architecture);
  same("hidden_size", base.hidden, tuned.hidden);
  same("intermediate_size", base.intermediate, tuned.intermediate);
  same("num_hidden_layers", base.layers, tuned.layers);
  same("num_attention_heads", base.heads, tuned.heads);
  same("num_key_value_heads", base.kv_heads, tuned.kv_heads);
  same("head_dim", base.head_dim, tuned.head_dim);
  same("rms_norm_eps", base.rms_eps, tuned.rms_eps);
  same("attention_bias", base.attention_bias, tuned.attention_bias);
  same("mlp_bias", base.mlp_bias, tuned.mlp_bias);
  same("sliding_window", base.sliding_window, tuned.sliding_window);
}

// The weights that a model of this config has; a head that is the embedding under its own name where `head` asks for it.
Tensors weights_of(const io::TensorStore& store, const model::Config& config, bool head) {
  Tensors tensors = store.tensors();
  std::erase_if(tensors, [](const auto& item) { return item.first.ends_with(".rotary_emb.inv_freq"); });
  if (config.tie_embeddings) tensors.erase(kHead);  // a copy that old checkpoints hold
  if (config.tie_embeddings && head) tensors.emplace(kHead, store.at(kEmbed));
  for (const auto& [name, view] : tensors) {
    if (!at::isFloatingType(model::scalar_type(view.dtype))) {
      input_error("{}: tensor '{}' is {}; the unquantized checkpoint is needed", store.path().string(), name,
                  io::name_of(view.dtype));
    }
  }
  return tensors;
}

void check_tensors(const Tensors& base, const Tensors& tuned, const ExtractOptions& options) {
  const std::string of_base = options.base.string(), of_tuned = options.tuned.string();
  for (const auto& [name, view] : tuned) {
    if (!base.contains(name)) input_error("{}: has a tensor '{}', which {} does not have", of_tuned, name, of_base);
  }
  for (const auto& [name, view] : base) {
    const auto found = tuned.find(name);
    if (found == tuned.end()) input_error("{}: lacks tensor '{}', which {} has", of_tuned, name, of_base);
    const std::vector<int64_t>&a = view.shape, &b = found->second.shape;
    const bool vocabulary = (name == kEmbed || name == kHead) && a.size() == 2 && b.size() == 2 && a[1] == b[1];
    if (a != b && !vocabulary) {
      input_error("{}: tensor '{}' is {}, in {} it is {}", of_tuned, name, io::shape_text(b), of_base,
                  io::shape_text(a));
    }
    if (is_linear(name) && a.size() != 2)
      input_error("{}: tensor '{}' is {}, no matrix", of_base, name, io::shape_text(a));
  }
}

bool differ(const io::TensorView& a, const io::TensorView& b) {
  if (a.shape != b.shape) return true;
  if (a.dtype == b.dtype) return std::memcmp(a.bytes.data(), b.bytes.data(), a.bytes.size()) != 0;
  const at::Tensor x = model::as_tensor(a).flatten(), y = model::as_tensor(b).flatten();
  constexpr int64_t kStep = int64_t{1} << 20;
  for (int64_t first = 0; first < x.numel(); first += kStep) {
    const int64_t count = std::min(kStep, x.numel() - first);
    if (!x.narrow(0, first, count).to(at::kDouble).equal(y.narrow(0, first, count).to(at::kDouble))) return true;
  }
  return false;
}

// Whether the pattern is the module's name or the end of it after some dot.
bool matches(const std::string& pattern, const std::string& module) {
  for (size_t at = 0; at != std::string::npos; at = module.find('.', at)) {
    at += at > 0;  // the dot
    if (::fnmatch(pattern.c_str(), module.c_str() + at, 0) == 0) return true;
  }
  return false;
}

std::set<std::string> targets_of(const Tensors& base, const std::vector<std::string>& patterns) {
  std::vector<std::string> modules;
  for (const auto& [name, view] : base) {
    if (is_linear(name)) modules.push_back(module_of(name));
  }
  if (patterns.empty()) return {modules.begin(), modules.end()};
  std::set<std::string> targets;
  for (const std::string& pattern : patterns) {
    bool any = false;
    for (const std::string& module : modules) {
      if (!matches(pattern, module)) continue;
      targets.insert(module);
      any = true;
    }
    if (any) continue;
    const std::vector<std::string> known(kLinear.begin(), kLinear.end());
    usage_error("--targets '{}' matches no linear module of the base{}", pattern, did_you_mean(pattern, known));
  }
  return targets;
}

std::string count_text(int64_t count, const std::string& what) {
  return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
}

// Embedding and head: whole, as LoRA, or left out.
void plan_vocabulary(ExtractPlan& plan, const Tensors& base, const Tensors& tuned, const ExtractOptions& options) {
  const auto [base_rows, tuned_rows] = std::pair{base.at(kEmbed).shape[0], tuned.at(kEmbed).shape[0]};
  const bool resized = base_rows != tuned_rows;
  for (const char* name : {kEmbed, kHead}) {
    if (!base.contains(name) || !differ(base.at(name), tuned.at(name))) continue;
    const std::string what = name == kHead ? "lm_head" : "the embedding";
    if (options.portable || options.embed == ExtractEmbed::skip) {
      plan.left_out.push_back(
          fmt::format("{}, which differs{}", what,
                      resized ? fmt::format(" ({} rows, {} in the base)", tuned_rows, base_rows) : ""));
    } else if (options.embed == ExtractEmbed::whole) {
      plan.whole.emplace(name, tuned.at(name));
      plan.modules_to_save.push_back(last_part(module_of(name)));
      if (base.contains(kHead)) continue;
      plan.whole.emplace(kHead, tuned.at(kEmbed));  // both are tied; PEFT would leave the head on the base's values
      plan.modules_to_save.push_back("lm_head");
    } else if (resized) {
      usage_error(
          "--embed lora: the tuned model has {} tokens, the base {}; a changed number of rows goes in whole only "
          "(--embed whole)",
          tuned_rows, base_rows);
    } else if (plan.base.tie_embeddings) {
      usage_error(
          "--embed lora: in {} embedding and head are one tied matrix, and LoRA on it would change one place only; "
          "use --embed whole",
          options.base.string());
    } else {
      plan.matrices.push_back({module_of(name), base.at(name), tuned.at(name), name == std::string(kEmbed)});
    }
  }
  if (resized && options.embed == ExtractEmbed::whole && !options.portable)
    plan.notes.push_back(fmt::format("the vocabulary goes from {} to {} tokens; the tokenizer files are in {}",
                                     base_rows, tuned_rows, options.tuned.string()));
}

}  // namespace

ExtractPlan plan_extract(const ExtractOptions& options, const io::TensorStore& base_store,
                         const io::TensorStore& tuned_store) {
  ExtractPlan plan;
  plan.base = model::read_config(options.base);
  plan.tuned = model::read_config(options.tuned);
  check_settings(plan.base, plan.tuned, options);
  const bool head = !plan.base.tie_embeddings || !plan.tuned.tie_embeddings;
  const Tensors base = weights_of(base_store, plan.base, head), tuned = weights_of(tuned_store, plan.tuned, head);
  check_tensors(base, tuned, options);
  for (const char* name : {kEmbed, kHead}) {
    if ((name == kEmbed || head) && !base.contains(name)) (void)base_store.at(name);  // says what is missing
  }

  const std::set<std::string> targets = targets_of(base, options.targets);
  std::map<std::string, int64_t> untargeted;
  int64_t norms = 0, narrower = 0;
  for (const auto& [name, view] : base) {
    const io::TensorView& now = tuned.at(name);
    narrower += view.dtype != now.dtype && io::size_of(now.dtype) <= io::size_of(view.dtype);
    if (is_linear(name) && targets.contains(module_of(name))) {
      plan.matrices.push_back({module_of(name), view, now, false});
    } else if (name == kEmbed || name == kHead || !differ(view, now)) {
      continue;
    } else if (is_linear(name)) {
      ++untargeted[last_part(module_of(name))];
    } else if (is_norm(name)) {
      ++norms;
    } else {
      input_error("{}: tensor '{}' differs from {}'s, and an adapter cannot hold that kind of change",
                  options.tuned.string(), name, options.base.string());
    }
  }
  std::sort(plan.matrices.begin(), plan.matrices.end(),
            [](const auto& a, const auto& b) { return by_number(a.module) < by_number(b.module); });
  plan_vocabulary(plan, base, tuned, options);
  if (norms > 0 && options.norms && !options.portable) {
    for (const auto& [name, view] : tuned) {
      if (is_norm(name)) plan.whole.emplace(name, view);  // all: PEFT finds them by the ends of their names
    }
    for (const std::string& module : io::saved_modules({"norm"})) plan.modules_to_save.push_back(module);
  } else if (norms > 0) {
    plan.left_out.push_back(fmt::format("{} that differ", count_text(norms, "norm")));
  }
  for (const auto& [kind, count] : untargeted) {
    plan.left_out.push_back(fmt::format("{} of {} that differ and --targets does not name",
                                        count == 1 ? "1 matrix" : fmt::format("{} matrices", count), kind));
  }
  if (narrower > 0) {
    plan.notes.push_back(fmt::format(
        "{} in the tuned model than in the base: that rounding is part of the difference",
        narrower == 1 ? "1 tensor is of a coarser type" : fmt::format("{} tensors are of a coarser type", narrower)));
  }
  if (plan.base.eos != plan.tuned.eos || plan.base.bos != plan.tuned.bos || plan.base.pad != plan.tuned.pad)
    plan.notes.push_back(
        "the two have other BOS, EOS or padding tokens in config.json; an adapter does not carry these");
  return plan;
}

}  // namespace longlora::adapt

// adapter_config.json. Keys and defaults: PEFT's LoraConfig.
#include <array>
#include <cmath>
#include <map>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/io/adapter.h"
#include "core/io/json_file.h"
#include "core/io/name_pattern.h"

namespace longlora::io {
namespace {

using nlohmann::ordered_json;

// A key that must be absent, null or at its default, since another value changes what the adapter does.
struct Unsupported {
  const char* key;
  ordered_json allowed;
  const char* what;
};

const std::vector<Unsupported>& unsupported() {
  static const std::vector<Unsupported> list = {
      {"bias", "none", "trained biases"},
      {"lora_bias", false, "LoRA with biases"},
      {"fan_in_fan_out", false, "transposed weights"},
      {"layer_replication", nullptr, "replicated layers"},
      {"trainable_token_indices", nullptr, "single trained tokens"},
      {"target_parameters", nullptr, "LoRA on bare parameters"},
      {"alora_invocation_tokens", nullptr, "activated LoRA"},
      {"use_qalora", false, "QA-LoRA"},
      {"use_bdlora", false, "block-diagonal LoRA"},
      {"arrow_config", nullptr, "Arrow routing"},
      {"kasa_config", nullptr, "KaSA"},
      {"monteclora_config", nullptr, "MonteCLoRA"},
  };
  return list;
}

template <class T>
std::vector<std::pair<std::string, T>> patterns(const ordered_json& root, const char* key, const std::string& where) {
  std::vector<std::pair<std::string, T>> list;
  if (!root.contains(key) || root[key].is_null()) return list;
  if (!root[key].is_object()) input_error("{}: '{}' is not an object", where, key);
  for (const auto& [pattern, value] : root[key].items()) {
    if (!value.is_number() || !(value.template get<double>() > 0) ||
        (std::is_same_v<T, int64_t> && !value.is_number_integer())) {
      input_error("{}: '{}': the value for '{}' cannot be used", where, key, pattern);
    }
    (void)NamePattern(pattern, fmt::format("{}: '{}'", where, key));
    list.emplace_back(pattern, value.template get<T>());
  }
  return list;
}

std::vector<std::string> strings(const ordered_json& value, const char* key, const std::string& where) {
  std::vector<std::string> list;
  if (value.is_null()) return list;
  if (!value.is_array()) input_error("{}: '{}' is not a list of names", where, key);
  for (const ordered_json& v : value) {
    if (!v.is_string()) input_error("{}: '{}' is not a list of names", where, key);
    list.push_back(v.get<std::string>());
  }
  return list;
}

// Compiled once each: an extracted adapter has a pattern for every module, and each of them is tried on every module.
const NamePattern& compiled(const std::string& pattern) {
  thread_local std::map<std::string, NamePattern> known;
  return known.try_emplace(pattern, pattern, "adapter_config.json").first->second;
}

// The first pattern that matches counts.
template <class T>
T matched(const std::vector<std::pair<std::string, T>>& patterns, const std::string& module, T otherwise) {
  for (const auto& [pattern, value] : patterns) {
    if (compiled(pattern).matches(module)) return value;
  }
  return otherwise;
}

void check_supported(const ordered_json& root, const std::string& where) {
  if (root.value("peft_type", ordered_json("LORA")) != "LORA") {
    input_error("{}: peft_type {} is not supported, only LORA is", where, root["peft_type"].dump());
  }
  for (const Unsupported& u : unsupported()) {
    if (root.contains(u.key) && !root[u.key].is_null() && root[u.key] != u.allowed) {
      input_error("{}: '{}' is {}: {} is not supported", where, u.key, root[u.key].dump(), u.what);
    }
  }
  // The others (PiSSA, OLoRA, LoftQ, ...) change the base's weights too, which the adapter then does not hold.
  const ordered_json init = root.value("init_lora_weights", ordered_json(true));
  if (!init.is_boolean() && init != "gaussian" && init != "eva" && init != "orthogonal") {
    input_error("{}: 'init_lora_weights' is {}: such an adapter changes its base; convert it to plain LoRA first",
                where, init.dump());
  }
}

}  // namespace

int64_t AdapterConfig::rank_of(const std::string& module) const {
  return matched(rank_pattern, module, rank);
}

double AdapterConfig::scale_of(const std::string& module) const {
  const double r = static_cast<double>(rank_of(module));
  return matched(alpha_pattern, module, alpha) / (rslora ? std::sqrt(r) : r);
}

AdapterConfig read_adapter_config(const fs::path& folder_or_file) {
  const fs::path file = fs::is_directory(folder_or_file) ? folder_or_file / "adapter_config.json" : folder_or_file;
  const std::string where = file.string();
  AdapterConfig c;
  try {
    const ordered_json root = read_json(file);
    if (!root.is_object()) input_error("{}: is no JSON object", where);
    check_supported(root, where);
    c.rank = root.at("r").get<int64_t>();
    c.alpha = root.value("lora_alpha", 8.0);
    c.rslora = root.value("use_rslora", false);
    c.dora = root.value("use_dora", false);
    c.dropout = root.value("lora_dropout", 0.0);
    c.rank_pattern = patterns<int64_t>(root, "rank_pattern", where);
    c.alpha_pattern = patterns<double>(root, "alpha_pattern", where);
    c.modules_to_save = strings(root.value("modules_to_save", ordered_json()), "modules_to_save", where);
    const ordered_json targets = root.value("target_modules", ordered_json());
    if (targets.is_string()) {
      c.target_pattern = targets.get<std::string>();
    } else {
      c.targets = strings(targets, "target_modules", where);
    }
    for (const char* key : {"layers_to_transform", "exclude_modules"}) {
      c.some_layers_only = c.some_layers_only || (root.contains(key) && !root[key].is_null());
    }
    const ordered_json base = root.value("base_model_name_or_path", ordered_json());
    if (base.is_string()) c.base_model = base.get<std::string>();
  } catch (const ordered_json::exception& error) {
    input_error("{}: {}", where, error.what());
  }
  if (c.rank < 1) input_error("{}: 'r' is {}, at least 1 is needed", where, c.rank);
  if (!std::isfinite(c.alpha)) input_error("{}: 'lora_alpha' is not a number", where);
  return c;
}

void write_adapter_config(const AdapterConfig& c, const fs::path& file) {
  const auto number = [](double v) {  // PEFT's alpha is a whole number where it can be
    return v == std::floor(v) && std::abs(v) < 1e15 ? ordered_json(static_cast<int64_t>(v)) : ordered_json(v);
  };
  const auto list = [](const std::vector<std::string>& names) {
    return names.empty() ? ordered_json(nullptr) : ordered_json(names);
  };
  ordered_json root;
  if (!c.alpha_pattern.empty()) {
    for (const auto& [pattern, value] : c.alpha_pattern) root["alpha_pattern"][pattern] = number(value);
  }
  root["auto_mapping"] = nullptr;
  root["base_model_name_or_path"] = c.base_model;
  root["bias"] = "none";
  root["fan_in_fan_out"] = false;
  root["inference_mode"] = true;
  root["init_lora_weights"] = true;
  root["layers_pattern"] = nullptr;
  root["layers_to_transform"] = nullptr;
  root["lora_alpha"] = number(c.alpha);
  root["lora_dropout"] = c.dropout;
  root["modules_to_save"] = list(c.modules_to_save);
  root["peft_type"] = "LORA";
  root["r"] = c.rank;
  if (!c.rank_pattern.empty()) {
    for (const auto& [pattern, value] : c.rank_pattern) root["rank_pattern"][pattern] = value;
  }
  root["revision"] = nullptr;
  root["target_modules"] = c.target_pattern.empty() ? list(c.targets) : ordered_json(c.target_pattern);
  root["task_type"] = "CAUSAL_LM";
  if (c.rslora) root["use_rslora"] = true;
  write_file_atomically(file, root.dump(2) + "\n");
}

}  // namespace longlora::io

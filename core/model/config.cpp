#include "core/model/config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/io/json_file.h"

namespace longlora::model {
namespace {

using nlohmann::ordered_json;

// Typed access to the fields of one JSON object; every error names the file and the field.
class Fields {
 public:
  Fields(const ordered_json& object, std::string where) : object_(object), where_(std::move(where)) {}

  // The value, or null when the field is absent or null.
  [[nodiscard]] const ordered_json* find(const char* key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  [[nodiscard]] bool has(const char* key) const { return find(key) != nullptr; }

  [[noreturn]] void wrong(const char* key, const std::string& what) const {
    input_error("{}: field '{}' {}", where_, key, what);
  }

  // A size: 1 .. 2^31 - 1. Without a default the field must be there.
  [[nodiscard]] int64_t size(const char* key, std::optional<int64_t> otherwise = {}) const {
    const ordered_json* value = find(key);
    if (value == nullptr) {
      if (!otherwise) wrong(key, "is missing");
      return *otherwise;
    }
    if (!value->is_number_integer()) wrong(key, fmt::format("is {}, a whole number is needed", value->dump()));
    if (value->is_number_unsigned() && value->get<uint64_t>() > kMaxSize) wrong(key, value->dump() + " is too large");
    if (value->get<int64_t>() < 1) wrong(key, fmt::format("is {}, at least 1 is needed", value->dump()));
    return value->get<int64_t>();
  }

  [[nodiscard]] std::optional<double> number(const char* key) const {
    const ordered_json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_number()) wrong(key, fmt::format("is {}, a number is needed", value->dump()));
    return value->get<double>();
  }

  [[nodiscard]] bool boolean(const char* key, bool otherwise) const {
    const ordered_json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) wrong(key, fmt::format("is {}, true or false is needed", value->dump()));
    return value->get<bool>();
  }

  [[nodiscard]] std::string text(const char* key, const std::string& otherwise) const {
    const ordered_json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_string()) wrong(key, fmt::format("is {}, a string is needed", value->dump()));
    return value->get<std::string>();
  }

  [[nodiscard]] std::vector<double> numbers(const char* key) const {
    const ordered_json* value = find(key);
    if (value == nullptr) return {};
    if (!value->is_array()) wrong(key, "is not a list of numbers");
    std::vector<double> list;
    for (const ordered_json& v : *value) {
      if (!v.is_number()) wrong(key, "is not a list of numbers");
      list.push_back(v.get<double>());
    }
    return list;
  }

  // Token ids: absent, one or a list; negative ones (old "no such token") are left out.
  [[nodiscard]] std::vector<int32_t> ids(const char* key, std::vector<int32_t> otherwise) const {
    if (!object_.contains(key)) return otherwise;
    const ordered_json* value = find(key);
    if (value == nullptr) return {};
    std::vector<int32_t> list;
    for (const ordered_json& v : value->is_array() ? *value : ordered_json::array({*value})) {
      if (!v.is_number_integer() || v.get<int64_t>() > static_cast<int64_t>(kMaxSize)) {
        wrong(key, fmt::format("is {}, a token id is needed", value->dump()));
      }
      if (v.get<int64_t>() >= 0) list.push_back(v.get<int32_t>());
    }
    return list;
  }

  [[nodiscard]] const ordered_json& json() const { return object_; }
  [[nodiscard]] const std::string& where() const { return where_; }

 private:
  static constexpr uint64_t kMaxSize = std::numeric_limits<int32_t>::max();
  const ordered_json& object_;
  std::string where_;
};

// RoPE settings of one dictionary (rope_scaling or rope_parameters; null for none) with what stands at the
// top level.
RopeSettings read_rope(const ordered_json* dictionary, const Fields& top, int64_t max_positions, int64_t head_dim,
                       const char* key) {
  const ordered_json nothing = ordered_json::object();
  if (dictionary != nullptr && !dictionary->is_object()) top.wrong(key, "is not an object");
  const Fields in(dictionary == nullptr ? nothing : *dictionary, fmt::format("{}: {}", top.where(), key));
  for (const auto& [name, value] : in.json().items()) {
    if (value.is_object())
      top.wrong(key, fmt::format("has settings of its own for '{}', which is not supported", name));
  }
  for (const Fields* fields : {&in, &top}) {
    if (fields->number("partial_rotary_factor").value_or(1.0) != 1.0) {
      fields->wrong("partial_rotary_factor", "is not 1: partly rotated heads are not supported");
    }
  }
  RopeSettings rope;
  const std::string name = in.text("rope_type", in.text("type", "default"));
  const std::optional<RopeType> type = rope_type_of(name);
  if (!type) in.wrong("rope_type", fmt::format("'{}' is unknown; known are {}", name, rope_type_list()));
  rope.type = *type;
  rope.theta = in.number("rope_theta").value_or(top.number("rope_theta").value_or(10000.0));
  rope.original_length = max_positions;
  if (rope.type == RopeType::none) {
    const std::string fault = fault_of(rope, head_dim);
    if (!fault.empty()) top.wrong("rope_theta", "cannot be used: " + fault);
    return rope;
  }
  if (rope.type != RopeType::dynamic) {  // whose original length is max_position_embeddings itself
    const char* original = "original_max_position_embeddings";
    rope.original_length = in.size(original, top.size(original, max_positions));
    if (top.has(original) && top.size(original) != rope.original_length) {
      top.wrong(original,
                fmt::format("is {} at the top level and {} in {}", top.size(original), rope.original_length, key));
    }
  }
  const std::optional<double> factor = in.number("factor");
  const bool from_lengths = rope.type == RopeType::yarn || rope.type == RopeType::longrope;
  if (!factor && !from_lengths) in.wrong("factor", "is missing");
  rope.factor = factor.value_or(static_cast<double>(max_positions) / static_cast<double>(rope.original_length));
  if (rope.type == RopeType::yarn || rope.type == RopeType::longrope) {
    rope.attention_factor = in.number("attention_factor");
  }
  if (rope.type == RopeType::yarn) {
    rope.beta_fast = in.number("beta_fast");
    rope.beta_slow = in.number("beta_slow");
    rope.mscale = in.number("mscale");
    rope.mscale_all_dim = in.number("mscale_all_dim");
    rope.truncate = in.boolean("truncate", true);
  }
  if (rope.type == RopeType::longrope) {
    rope.short_factor = in.numbers("short_factor");
    rope.long_factor = in.numbers("long_factor");
  }
  // Spelt out by this program for old readers; the law's own is no choice that a further extension would have to respect.
  if (rope.attention_factor && std::abs(*rope.attention_factor / own_attention_factor(rope) - 1) < 1e-9) {
    rope.attention_factor.reset();
  }
  if (rope.type == RopeType::llama3) {
    for (const char* needed : {"low_freq_factor", "high_freq_factor"}) {
      if (!in.has(needed)) in.wrong(needed, "is missing");
    }
    rope.low_freq_factor = *in.number("low_freq_factor");
    rope.high_freq_factor = *in.number("high_freq_factor");
  }
  if (const std::string fault = fault_of(rope, head_dim); !fault.empty()) top.wrong(key, "cannot be used: " + fault);
  return rope;
}

// The settings a file means, in whichever spelling; two spellings that say different things are refused,
// since other programs would read the one or the other.
RopeSettings read_rope(const Fields& top, int64_t max_positions, int64_t head_dim) {
  const ordered_json* old_spelling = top.find("rope_scaling");
  const ordered_json* new_spelling = top.find("rope_parameters");
  if (new_spelling == nullptr) return read_rope(old_spelling, top, max_positions, head_dim, "rope_scaling");
  const RopeSettings rope = read_rope(new_spelling, top, max_positions, head_dim, "rope_parameters");
  if (old_spelling != nullptr || top.has("rope_theta")) {
    RopeSettings old = read_rope(old_spelling, top, max_positions, head_dim, "rope_scaling");
    if (!top.has("rope_theta")) old.theta = rope.theta;
    if (old_spelling == nullptr) {
      const double theta = old.theta;
      old = rope;
      old.theta = theta;
    }
    if (old != rope) {
      top.wrong("rope_parameters", "and the older rope_scaling / rope_theta say different things; leave only one");
    }
  }
  return rope;
}

Config read_fields(const Fields& in) {
  Config c;
  c.raw = in.json();
  if (const ordered_json* list = in.find("architectures")) {
    if (!list->is_array() || list->size() != 1 || !(*list)[0].is_string()) {
      in.wrong("architectures", "is not a list of one name");
    }
    c.architecture = (*list)[0].get<std::string>();
  } else {
    const std::string model_type = in.text("model_type", "");
    if (model_type.empty()) in.wrong("architectures", "is missing");
    c.architecture = model_type == "llama"     ? "LlamaForCausalLM"
                     : model_type == "mistral" ? "MistralForCausalLM"
                                               : model_type;
  }
  const bool mistral = c.architecture == "MistralForCausalLM";
  if (!mistral && c.architecture != "LlamaForCausalLM") {
    in.wrong("architectures",
             fmt::format("names {}; supported are LlamaForCausalLM and MistralForCausalLM", c.architecture));
  }
  if (in.has("quantization_config")) {
    in.wrong("quantization_config", "says the weights are quantized; the unquantized checkpoint is needed");
  }
  if (const std::string act = in.text("hidden_act", "silu"); act != "silu") {
    in.wrong("hidden_act", fmt::format("is '{}', only silu is supported", act));
  }
  c.vocab_size = in.size("vocab_size");
  c.hidden = in.size("hidden_size");
  c.intermediate = in.size("intermediate_size");
  c.layers = in.size("num_hidden_layers");
  c.heads = in.size("num_attention_heads");
  c.kv_heads = in.size("num_key_value_heads", mistral && !in.json().contains("num_key_value_heads") ? 8 : c.heads);
  if (c.heads % c.kv_heads != 0) {
    in.wrong("num_key_value_heads", fmt::format("{} does not divide the {} heads", c.kv_heads, c.heads));
  }
  if (!in.has("head_dim") && c.hidden % c.heads != 0) {
    in.wrong("hidden_size", fmt::format("{} is not a multiple of the {} heads", c.hidden, c.heads));
  }
  c.head_dim = in.size("head_dim", c.hidden / c.heads);
  if (c.head_dim < 4 || c.head_dim % 2 != 0)
    in.wrong("head_dim", fmt::format("{} is not even and at least 4", c.head_dim));
  c.rms_eps = in.number("rms_norm_eps").value_or(1e-6);
  if (!(c.rms_eps > 0.0)) in.wrong("rms_norm_eps", "is not positive");
  c.initializer_range = in.number("initializer_range").value_or(0.02);
  c.tie_embeddings = in.boolean("tie_word_embeddings", false);
  c.attention_bias = !mistral && in.boolean("attention_bias", false);
  c.mlp_bias = !mistral && in.boolean("mlp_bias", false);
  c.max_positions = in.size("max_position_embeddings");
  // transformers' default where the field is absent; null switches the window off
  if (mistral) c.sliding_window = in.size("sliding_window", in.json().contains("sliding_window") ? 0 : 4096);
  c.rope = read_rope(in, c.max_positions, c.head_dim);
  for (const auto& [key, target] : {std::pair{"bos_token_id", &c.bos}, std::pair{"pad_token_id", &c.pad}}) {
    const std::vector<int32_t> ids = in.ids(key, target == &c.bos ? std::vector{1} : std::vector<int32_t>{});
    if (ids.size() > 1) in.wrong(key, "is a list");
    if (!ids.empty()) *target = ids.front();
  }
  c.eos = in.ids("eos_token_id", {2});
  for (const int32_t id : c.eos) {
    if (id >= c.vocab_size) in.wrong("eos_token_id", fmt::format("{} is beyond the {} tokens", id, c.vocab_size));
  }
  if (c.bos && *c.bos >= c.vocab_size) {
    in.wrong("bos_token_id", fmt::format("{} is beyond the {} tokens", *c.bos, c.vocab_size));
  }
  c.dtype = in.text("dtype", in.text("torch_dtype", "float32"));
  constexpr std::array kDTypes = {"float32", "bfloat16", "float16", "float64"};
  if (std::find(kDTypes.begin(), kDTypes.end(), c.dtype) == kDTypes.end()) {
    in.wrong(in.has("dtype") ? "dtype" : "torch_dtype", fmt::format("'{}' is not a floating-point type", c.dtype));
  }
  return c;
}

}  // namespace

int64_t Config::covered_length() const {
  if (rope.type == RopeType::none || rope.type == RopeType::llama3) return max_positions;
  return std::max(max_positions, static_cast<int64_t>(static_cast<double>(rope.original_length) * rope.factor + 1e-6));
}

Config read_config(const std::filesystem::path& folder_or_file) {
  const fs::path file = fs::is_directory(folder_or_file) ? folder_or_file / "config.json" : folder_or_file;
  const ordered_json root = io::read_json(file);
  if (!root.is_object()) input_error("{}: is no JSON object", file.string());
  return read_fields(Fields(root, file.string()));
}

RopeSettings rope_from_json(const ordered_json& json, int64_t head_dim, const std::string& where) {
  if (!json.is_object()) input_error("{}: the RoPE settings are no object", where);
  const ordered_json nothing = ordered_json::object();
  const Fields in(json, where);
  return read_rope(&json, Fields(nothing, where), in.size("original_max_position_embeddings"), head_dim, "rope");
}

}  // namespace longlora::model
